//! `kindnetctl verify`: proves that a cluster network does what Kubernetes promises.
//!
//! Check pods are placed on the nodes, probes run inside them through exec (which works even where
//! pod networking does not), and pure functions turn what the probes saw into a [`Report`]:
//! [`catalogue`] lists the checks, `plan` decides which probes they need, `evaluate` what the
//! answers mean, and `diagnose` where a packet that got lost was seen last.

pub mod catalogue;
mod cluster;
mod diagnose;
mod evaluate;
mod exec;
#[cfg(test)]
mod fixture;
mod hosts;
mod junit;
mod objects;
mod options;
mod outside;
mod plan;
mod pods;
mod quick;
mod report;
mod run;
mod session;
mod table;
mod topology;

pub use junit::junit;
pub use options::{NodeChoice, Options, Outside};
pub use quick::{QuickOptions, quick};
pub use report::{Check, Failure, Outcome, Report};
pub use run::run;
pub use table::table;
