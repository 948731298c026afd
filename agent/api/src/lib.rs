//! What every part of kindnet agrees on: the `Configuration` API, the CNI conflist model, and the
//! names of everything kindnet makes in a cluster or in a kernel.
//!
//! No I/O and no runtime: the CNI plugin, the agent, the controller and the CLI all link this.

pub mod configuration;
pub mod conflist;
pub mod endpoint;
pub mod names;
pub mod node;
pub mod yaml;

pub use configuration::{
    CniPlugin, CniSpec, Configuration, ConfigurationSpec, ConfigurationStatus, MasqueradeSpec,
};
