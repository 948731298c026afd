//! What the end-to-end tests stand on: commands with a deadline, a cluster that is taken down
//! again, and its nodes.
//!
//! The tests drive the real `kindnetctl` from the outside, as a user would, and look into nodes
//! with `docker exec`.

#![allow(clippy::print_stderr, reason = "a test tells what it measured")]

pub mod cluster;
pub mod command;
pub mod poll;
pub mod report;

pub use cluster::{Cluster, Family, Node};
pub use command::{Output, Tool};
pub use poll::eventually;
pub use report::VerifyReport;
