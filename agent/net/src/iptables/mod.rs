//! Masquerading with iptables, beside kube-proxy and whoever else uses the `nat` table.
//!
//! Ours is one chain per family, [`names::MASQUERADE_CHAIN`], and one rule in `POSTROUTING` per pod
//! subnet of this node that leads to it. Both are written in one `iptables-restore`, so there is no
//! moment with half of them. Nothing is written while the kernel has what it should have.
//!
//! The chain returns for what is exempt and masquerades the rest. It is entered only by packets from
//! this node's pods, so the node's own traffic is never touched, and a packet it returns is still
//! seen by `KUBE-POSTROUTING`, which rewrites what kube-proxy has marked.
//!
//! [`names::MASQUERADE_CHAIN`]: kindnet_api::names::MASQUERADE_CHAIN

mod command;
mod flavour;
mod masquerade;
mod monitor;
mod rules;

pub use flavour::Flavour;
pub use masquerade::Iptables;
pub use monitor::Monitor;
pub use rules::Drift;

use kindnet_api::node::Family;
use kindnet_core::masquerade::MasqueradePlan;

use crate::Result;

/// What had to be repaired in a family.
pub type Repairs = Vec<(Family, Drift)>;

/// A way to masquerade. All functions block on processes or the kernel.
pub trait Masquerade: Send {
    /// What differs from the plan; empty when nothing does.
    ///
    /// # Errors
    /// The present state cannot be read.
    fn verify(&mut self, plan: &MasqueradePlan) -> Result<Repairs>;

    /// Makes the kernel match the plan, in one transaction per family; returns what was repaired. A
    /// family that is not in the plan is removed.
    ///
    /// # Errors
    /// The state cannot be read or written. Families are independent: all are tried.
    fn apply(&mut self, plan: &MasqueradePlan) -> Result<Repairs>;

    /// Removes everything that is ours, wherever an earlier run may have put it.
    ///
    /// # Errors
    /// Something is left, after everything was tried.
    fn cleanup(&mut self) -> Result<()>;
}
