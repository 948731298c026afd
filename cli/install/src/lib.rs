//! Puts kindnet onto a cluster and takes it off again.
//!
//! Three separate steps, so that a command can do something else in between:
//!
//! 1. [`connect`] makes a client from a kubeconfig. No request is sent. [`reach`] also makes sure
//!    that somebody answers.
//! 2. [`apply`] sends every object and returns; it waits for an API server that is still starting,
//!    but not for any node or pod.
//! 3. [`wait_ready`] watches until the controller, every agent and every node is ready.
//!
//! [`install`] does 2 and 3. [`uninstall`] removes every object and every trace in the kernels.

mod apply;
mod client;
mod conflict;
mod diagnose;
mod error;
mod install;
mod manifests;
mod proxy;
mod uninstall;
mod wait;
mod watch;

pub use apply::{AppliedObject, ApplyOptions, apply_objects, apply_yaml};
pub use client::{ConnectOptions, Kubeconfig, connect, reach};
pub use install::{Applied, InstallOptions, Summary, apply, install, render};
pub use uninstall::{UninstallOptions, UninstallSummary, uninstall};
pub use wait::{Readiness, wait_ready};
