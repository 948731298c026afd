//! What the user may choose.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kindnet_api::node::Family;

/// Options of [`crate::run`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Families to check; empty for all the cluster has.
    pub families: Vec<Family>,
    /// Patterns on the identifiers of checks, `*` and `?` as in a shell; empty for all.
    pub only: Vec<String>,
    /// Deadline of the whole run, without cleaning up.
    pub timeout: Duration,
    /// Deadline of one probe, with its retries.
    pub probe_timeout: Duration,
    /// Image of the check pods; found from the cluster's `Configuration` when absent.
    pub image: Option<String>,
    /// A `kindnet-probe serve` outside of the cluster.
    pub outside: Option<Outside>,
    /// Nodes whose pods talk to each other.
    pub nodes: NodeChoice,
    /// Leaves the check pods behind, to look into a failure.
    pub keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            families: Vec::new(),
            only: Vec::new(),
            timeout: Duration::from_secs(120),
            probe_timeout: Duration::from_secs(5),
            image: None,
            outside: None,
            nodes: NodeChoice::Count(2),
            keep: false,
        }
    }
}

/// Which nodes take part in the packet checks. The configuration of every node is checked anyway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChoice {
    /// So many, picked by name.
    Count(usize),
    /// These.
    Names(Vec<String>),
}

impl std::str::FromStr for NodeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(count) = text.parse::<usize>() {
            return match count {
                0 => Err("at least one node is needed".to_owned()),
                count => Ok(Self::Count(count)),
            };
        }
        let names: Vec<String> = text.split(',').map(|n| n.trim().to_owned()).collect();
        if names.iter().any(String::is_empty) {
            return Err(format!(
                "{text:?} is neither a number nor a list of node names"
            ));
        }
        Ok(Self::Names(names))
    }
}

/// Where a `kindnet-probe serve` listens outside of the cluster: one address per family at most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outside {
    /// Addresses and ports.
    pub addresses: Vec<SocketAddr>,
}

impl Outside {
    /// Address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<SocketAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| Family::of(canonical(a.ip())) == family)
    }
}

/// An IPv4 address written as an IPv6 one is IPv4.
pub(crate) fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
