//! The CNI plugin of kindnet, and what the agent needs of it.
//!
//! A plugin is a program that is started for every pod that comes or goes: what it does is small,
//! synchronous, and done with as few system calls as the kernel allows. It keeps its state in a
//! folder on tmpfs ([`ipam`]), links in the kernel ([`config`] says what they look like) and host
//! ports in nftables.
//!
//! It follows the [CNI specification](https://www.cni.dev/docs/spec/) 1.1.0 and its predecessors down
//! to 0.3.0.

pub mod agent;
mod commands;
pub mod config;
mod error;
mod fault;
mod hostport;
pub mod ipam;
mod link;
mod netlink;
pub mod request;
mod result;
mod sys;
pub mod version;

pub use commands::{Outcome, run};
pub use error::{Error, Result};
