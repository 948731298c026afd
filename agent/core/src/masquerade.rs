//! Whose source address is rewritten, and towards whom it is not.

use std::collections::BTreeMap;

use ipnet::IpNet;
use kindnet_api::node::{Family, NodeInfo};

/// Desired masquerading, per family this node has pods of. A family that is absent gets none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MasqueradePlan {
    /// The rules of each family.
    pub families: BTreeMap<Family, FamilyMasquerade>,
}

/// Packets from `sources` to anywhere but `exempt` get the address of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyMasquerade {
    /// Pod subnets of this node. Nothing else is ever rewritten: not the traffic of the node itself,
    /// nor what it forwards for others.
    pub sources: Vec<IpNet>,
    /// Pod subnets of every node and what the user excluded, merged into as few prefixes as cover
    /// exactly the same addresses.
    pub exempt: Vec<IpNet>,
}

/// Computes the plan. `nodes` are all nodes; whether this node is among them makes no difference.
#[must_use]
pub fn plan<'a>(
    own: &'a NodeInfo,
    nodes: impl IntoIterator<Item = &'a NodeInfo>,
    excluded: &[IpNet],
) -> MasqueradePlan {
    let mut exempt: BTreeMap<Family, Vec<IpNet>> = BTreeMap::new();
    let all = nodes
        .into_iter()
        .chain([own])
        .flat_map(|node| node.pod_cidrs.iter().copied())
        .chain(excluded.iter().map(IpNet::trunc));
    for cidr in all {
        exempt.entry(Family::of_net(&cidr)).or_default().push(cidr);
    }
    let families = Family::ALL
        .into_iter()
        .filter_map(|family| {
            let sources = IpNet::aggregate(&own.pod_cidrs_of(family).collect());
            if sources.is_empty() {
                return None;
            }
            let exempt = IpNet::aggregate(exempt.get(&family)?);
            Some((family, FamilyMasquerade { sources, exempt }))
        })
        .collect();
    MasqueradePlan { families }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, cidrs: &[&str]) -> NodeInfo {
        NodeInfo {
            name: name.into(),
            pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            ..NodeInfo::default()
        }
    }

    #[test]
    fn every_nodes_pods_and_the_excluded_prefixes_are_exempt() {
        let own = node("a", &["10.244.0.0/24", "fd00:10:244::/64"]);
        let peers = [
            node("b", &["10.244.1.0/24", "fd00:10:244:1::/64"]),
            node("c", &["10.244.2.0/24"]),
        ];
        let plan = plan(&own, &peers, &["192.168.7.1/16".parse().unwrap()]);
        insta::assert_debug_snapshot!(plan);
    }

    #[test]
    fn a_family_without_own_pods_has_no_rules() {
        let plan = plan(
            &node("a", &["10.244.0.0/24"]),
            &[node("b", &["fd00::/64"])],
            &[],
        );
        assert_eq!(plan.families.keys().collect::<Vec<_>>(), [&Family::V4]);
        assert_eq!(
            super::plan(&NodeInfo::default(), &[], &[]),
            MasqueradePlan::default()
        );
    }

    fn cidrs() -> impl Strategy<Value = Vec<IpNet>> {
        let net = (any::<[u8; 4]>(), 8u8..=32)
            .prop_map(|(octets, len)| IpNet::new_assert(octets.into(), len).trunc());
        proptest::collection::vec(net, 0..12)
    }

    proptest! {
        #[test]
        fn merging_exempts_exactly_the_given_addresses(nets in cidrs(), probe in any::<[u8; 4]>()) {
            let own = node("own", &["203.0.113.0/24"]);
            let peers: Vec<NodeInfo> = nets.iter().map(|n| NodeInfo {
                pod_cidrs: vec![*n], ..NodeInfo::default() }).collect();
            let plan = plan(&own, &peers, &[]);
            let exempt = &plan.families[&Family::V4].exempt;
            let probe = std::net::IpAddr::from(probe);
            let expected = nets.iter().chain(&own.pod_cidrs).any(|n| n.contains(&probe));
            prop_assert_eq!(exempt.iter().any(|n| n.contains(&probe)), expected);
        }

        #[test]
        fn the_order_of_nodes_does_not_matter(nets in cidrs()) {
            let own = node("own", &["203.0.113.0/24"]);
            let mut peers: Vec<NodeInfo> = nets.iter().map(|n| NodeInfo {
                pod_cidrs: vec![*n], ..NodeInfo::default() }).collect();
            let first = plan(&own, &peers, &[]);
            peers.reverse();
            prop_assert_eq!(first, plan(&own, &peers, &[]));
        }
    }
}
