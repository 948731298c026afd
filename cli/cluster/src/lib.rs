//! KIND clusters through the Docker Engine API.
//!
//! Clusters look the way kind makes them, label by label and file by file, so that `kind` and
//! kindnetctl can be used on each other's. What is kind's interface stands in [`names`],
//! [`container`], [`kubeadm`] and [`kubeconfig`] as pure functions; [`Engine`] is the only thing
//! that talks to the daemon.

pub mod container;
pub mod create;
pub mod delete;
pub mod docker;
mod error;
pub mod kubeadm;
pub mod kubeconfig;
pub mod list;
pub mod load;
pub mod logs;
pub mod names;
pub mod preflight;
pub mod proxy;
pub mod spec;
pub mod version;

pub use docker::Engine;
pub use error::Result;
pub use spec::{ClusterSpec, IpFamily, Settings};
