//! From desired and observed routes to changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use kindnet_api::node::Family;

/// Metric of our routes. IPv4 has nothing below 0, the default of `ip route add`. IPv6 routes get
/// 1024 unless told otherwise; 512 puts ours before such a route of somebody else without touching
/// it, and behind the 256 of the kernel's own.
#[must_use]
pub const fn metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 512,
    }
}

/// A route with our protocol number, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed<K> {
    /// Destination.
    pub destination: IpNet,
    /// Metric.
    pub metric: u32,
    /// The gateway of a plain unicast route with one next hop; `None` for anything else.
    pub gateway: Option<IpAddr>,
    /// What the kernel needs to remove it.
    pub key: K,
}

/// What has to be done; `set` first, so that a destination is never without a route in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<K> {
    /// Routes to add, or to put in place of a wrong one with the same destination and metric.
    pub set: BTreeMap<IpNet, IpAddr>,
    /// Destinations in `set` that have a wrong route of ours now.
    pub wrong: BTreeSet<IpNet>,
    /// Routes to remove.
    pub remove: Vec<K>,
}

impl<K> Changes<K> {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// Computes the changes that turn `observed` into `desired`.
#[must_use]
pub fn diff<K>(
    desired: &BTreeMap<IpNet, IpAddr>,
    observed: impl IntoIterator<Item = Observed<K>>,
) -> Changes<K> {
    let mut right = BTreeSet::new();
    let mut wrong: BTreeMap<IpNet, Vec<K>> = BTreeMap::new();
    let mut remove = Vec::new();
    for route in observed {
        let destination = route.destination;
        let at_our_place = route.metric == metric(Family::of_net(&destination));
        match desired.get(&destination) {
            Some(gateway) if at_our_place && route.gateway == Some(*gateway) => {
                if !right.insert(destination) {
                    remove.push(route.key);
                }
            }
            Some(_) if at_our_place => wrong.entry(destination).or_default().push(route.key),
            _ => remove.push(route.key),
        }
    }
    let set: BTreeMap<IpNet, IpAddr> = desired
        .iter()
        .filter(|(destination, _)| !right.contains(destination))
        .map(|(destination, gateway)| (*destination, *gateway))
        .collect();
    let mut replaced = BTreeSet::new();
    for (destination, keys) in wrong {
        // One wrong route is replaced by the right one; any further one has to be removed.
        let in_place = usize::from(set.contains_key(&destination));
        if in_place == 1 {
            replaced.insert(destination);
        }
        remove.extend(keys.into_iter().skip(in_place));
    }
    Changes {
        set,
        wrong: replaced,
        remove,
    }
}
