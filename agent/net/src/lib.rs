//! The only crate that touches the kernel: routes and links over netlink, masquerading over
//! iptables, sysctls over /proc.
//!
//! What to do is decided in kindnet-core; here it is observed, applied and removed again. Nothing
//! but what carries one of the names in [`kindnet_api::names`] is ever removed.

mod error;
pub mod iptables;
pub mod netlink;
pub mod sysctl;

pub use error::{Error, ErrorKind, Result};
