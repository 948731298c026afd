//! Which pod subnets are reached through which node.
//!
//! The longest prefix decides in the kernel, so peers whose subnets merely overlap both get their
//! route. Two peers with the very same subnet cannot both have it: the older Node wins until it is
//! gone, and of two of the same age the first by name, whatever the order in which this node heard of
//! them. No peer gets a route that would take over this node's pods or addresses.

mod diff;

pub use diff::{Changes, Observed, diff, metric};

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use kindnet_api::node::{Family, NodeInfo};

/// Desired routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutePlan {
    /// Gateway of each pod subnet, of the subnet's family.
    pub routes: BTreeMap<IpNet, IpAddr>,
    /// What a peer asked for and did not get, ordered by node.
    pub skipped: Vec<Skipped>,
}

/// Something of a peer that is not routed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Name of the peer.
    pub node: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a peer, or one of its subnets, is not routed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum SkipReason {
    /// Nothing in `spec.podCIDRs`, of any family or of one this node has pods of.
    #[error("it has no {} pod subnet yet", .0.map_or_else(|| "".to_owned(), |f| f.to_string()))]
    NoPodCidr(Option<Family>),
    /// A subnet, but no node address of its family.
    #[error("it has pod subnet {0} but no address of that family")]
    NoAddress(IpNet),
    /// It claims an address of this node.
    #[error("it claims {0}, an address of this node")]
    OwnAddress(IpAddr),
    /// Its subnet overlaps this node's pod subnet.
    #[error("its pod subnet {0} overlaps {1} of this node")]
    OverlapsOwn(IpNet, IpNet),
    /// Its subnet holds an address of this node.
    #[error("its pod subnet {0} contains {1}, an address of this node")]
    ContainsOwn(IpNet, IpAddr),
    /// Its subnet holds its own address, which would be reached through itself.
    #[error("its pod subnet {0} contains its own address {1}")]
    ContainsGateway(IpNet, IpAddr),
    /// Another node has the same subnet.
    #[error("its pod subnet {0} belongs to node {1}")]
    Duplicate(IpNet, String),
}

impl SkipReason {
    /// A short name for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoPodCidr(_) => "no_pod_cidr",
            Self::NoAddress(_) => "no_address",
            Self::OwnAddress(_) => "own_address",
            Self::OverlapsOwn(..) => "overlaps_own",
            Self::ContainsOwn(..) => "contains_own",
            Self::ContainsGateway(..) => "contains_gateway",
            Self::Duplicate(..) => "duplicate",
        }
    }
}

/// Computes the routes of the node `own` to the pods of its peers. A node of the same name among
/// `peers` is `own` itself and ignored. Families this node has neither an address nor pods of are
/// left out.
#[must_use]
pub fn plan<'a>(own: &NodeInfo, peers: impl IntoIterator<Item = &'a NodeInfo>) -> RoutePlan {
    let mut claims: BTreeMap<IpNet, (Seniority<'_>, IpAddr)> = BTreeMap::new();
    let mut skipped = Vec::new();
    for peer in peers.into_iter().filter(|p| p.name != own.name) {
        let mut skip = |node: &str, reason| {
            skipped.push(Skipped {
                node: node.to_owned(),
                reason,
            });
        };
        if peer.pod_cidrs.is_empty() {
            skip(&peer.name, SkipReason::NoPodCidr(None));
            continue;
        }
        for family in Family::ALL {
            let own_pods = own.pod_cidrs_of(family).next().is_some();
            if own_pods && peer.pod_cidrs_of(family).next().is_none() {
                skip(&peer.name, SkipReason::NoPodCidr(Some(family)));
            }
            if !own_pods && own.address(family).is_none() {
                continue;
            }
            for cidr in peer.pod_cidrs_of(family) {
                match claim(own, peer, cidr) {
                    Err(reason) => skip(&peer.name, reason),
                    Ok(gateway) => {
                        let seniority = Seniority::of(peer);
                        let winner = claims.entry(cidr).or_insert((seniority, gateway));
                        if winner.0 == seniority {
                            continue;
                        }
                        let loser = if seniority < winner.0 {
                            std::mem::replace(winner, (seniority, gateway)).0.name
                        } else {
                            &peer.name
                        };
                        skip(loser, SkipReason::Duplicate(cidr, String::new()));
                    }
                }
            }
        }
    }
    // Who won is only known once everybody was heard.
    for entry in &mut skipped {
        if let SkipReason::Duplicate(cidr, winner) = &mut entry.reason {
            *winner = claims
                .get(cidr)
                .map(|claim| claim.0.name.to_owned())
                .unwrap_or_default();
        }
    }
    skipped.sort();
    RoutePlan {
        routes: claims
            .into_iter()
            .map(|(cidr, (_, gateway))| (cidr, gateway))
            .collect(),
        skipped,
    }
}

/// Who goes first; the smaller one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seniority<'a> {
    created_secs: i64,
    name: &'a str,
}

impl<'a> Seniority<'a> {
    fn of(node: &'a NodeInfo) -> Self {
        Self {
            created_secs: node.created_secs.unwrap_or(i64::MAX),
            name: &node.name,
        }
    }
}

/// The gateway of one subnet of a peer, unless the claim cannot be granted.
fn claim(own: &NodeInfo, peer: &NodeInfo, cidr: IpNet) -> Result<IpAddr, SkipReason> {
    let gateway = peer
        .address(Family::of_net(&cidr))
        .ok_or(SkipReason::NoAddress(cidr))?;
    if own.addresses.contains(&gateway) {
        return Err(SkipReason::OwnAddress(gateway));
    }
    if let Some(mine) = own
        .pod_cidrs
        .iter()
        .find(|mine| mine.contains(&cidr) || cidr.contains(*mine))
    {
        return Err(SkipReason::OverlapsOwn(cidr, *mine));
    }
    if let Some(address) = own.addresses.iter().find(|a| cidr.contains(*a)) {
        return Err(SkipReason::ContainsOwn(cidr, *address));
    }
    if cidr.contains(&gateway) {
        return Err(SkipReason::ContainsGateway(cidr, gateway));
    }
    Ok(gateway)
}

#[cfg(test)]
mod tests;
