use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn node(name: &str, addresses: &[&str], cidrs: &[&str]) -> NodeInfo {
    NodeInfo {
        name: name.into(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
        ..NodeInfo::default()
    }
}

fn own() -> NodeInfo {
    node(
        "own",
        &["172.18.0.2", "fc00::2"],
        &["10.244.1.0/24", "fd00:10:244:1::/64"],
    )
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn a_healthy_peer_is_routed_in_both_families() {
    let peer = node(
        "b",
        &["172.18.0.3", "fc00::3"],
        &["10.244.2.0/24", "fd00:10:244:2::/64"],
    );
    let plan = plan(&own(), [&own(), &peer]);
    assert_eq!(plan.routes[&net("10.244.2.0/24")], peer.addresses[0]);
    assert_eq!(plan.routes[&net("fd00:10:244:2::/64")], peer.addresses[1]);
    assert_eq!(plan.skipped, []);
}

#[rstest]
#[case::nothing(&["172.18.0.3", "fc00::3"], &[], &["no_pod_cidr"])]
#[case::one_family(&["172.18.0.3"], &["10.244.2.0/24"], &["no_pod_cidr"])]
#[case::no_address(&["172.18.0.3"], &["fd00:10:244:2::/64"], &["no_address", "no_pod_cidr"])]
#[case::our_address(&["172.18.0.2"], &["10.244.2.0/24"], &["no_pod_cidr", "own_address"])]
#[case::our_pods(&["172.18.0.3"], &["10.244.1.0/24"], &["no_pod_cidr", "overlaps_own"])]
#[case::around_our_pods(&["172.18.0.3"], &["10.244.0.0/16"], &["no_pod_cidr", "overlaps_own"])]
#[case::part_of_our_pods(&["172.18.0.3"], &["10.244.1.128/25"], &["no_pod_cidr", "overlaps_own"])]
#[case::our_network(&["172.18.0.3"], &["172.18.0.0/24"], &["contains_own", "no_pod_cidr"])]
#[case::itself(&["172.30.0.3"], &["172.30.0.0/24"], &["contains_gateway", "no_pod_cidr"])]
fn bad_peers_are_skipped_and_the_others_served(
    #[case] addresses: &[&str],
    #[case] cidrs: &[&str],
    #[case] expected: &[&str],
) {
    let good = node(
        "good",
        &["172.18.0.9", "fc00::9"],
        &["10.244.9.0/24", "fd00:10:244:9::/64"],
    );
    let plan = plan(&own(), [&node("bad", addresses, cidrs), &good]);
    let mut labels: Vec<&str> = plan.skipped.iter().map(|s| s.reason.label()).collect();
    labels.sort_unstable();
    assert_eq!(labels, expected);
    assert!(plan.skipped.iter().all(|s| s.node == "bad"));
    assert!(plan.routes.contains_key(&net("10.244.9.0/24")));
    assert!(plan.routes.contains_key(&net("fd00:10:244:9::/64")));
}

#[rstest]
#[case("a", Some(1), "b", Some(2))]
#[case("b", Some(1), "a", Some(2))]
#[case("b", Some(1), "a", None)]
#[case("a", Some(1), "b", Some(1))]
fn of_two_claims_the_older_wins_until_it_is_gone(
    #[case] winner: &str,
    #[case] winner_created: Option<i64>,
    #[case] loser: &str,
    #[case] loser_created: Option<i64>,
) {
    let mut old = node(winner, &["172.18.0.3", "fc00::3"], &["10.244.2.0/24"]);
    let mut new = node(loser, &["172.18.0.4", "fc00::4"], &["10.244.2.0/24"]);
    old.created_secs = winner_created;
    new.created_secs = loser_created;
    for order in [[&old, &new], [&new, &old]] {
        let plan = plan(&own(), order);
        assert_eq!(plan.routes[&net("10.244.2.0/24")], old.addresses[0]);
        assert!(plan.skipped.contains(&Skipped {
            node: loser.into(),
            reason: SkipReason::Duplicate(net("10.244.2.0/24"), winner.into()),
        }));
    }
    assert_eq!(
        plan(&own(), [&new]).routes[&net("10.244.2.0/24")],
        new.addresses[0]
    );
}

#[test]
fn a_family_this_node_does_not_speak_is_left_out() {
    let own = node("own", &["172.18.0.2"], &["10.244.1.0/24"]);
    let peer = node(
        "b",
        &["172.18.0.3", "fc00::3"],
        &["10.244.2.0/24", "fd00:10:244:2::/64"],
    );
    let plan = plan(&own, [&peer]);
    assert_eq!(
        plan.routes.keys().collect::<Vec<_>>(),
        [&net("10.244.2.0/24")]
    );
    assert_eq!(plan.skipped, []);
}

#[test]
fn foreign_metric_and_duplicates_of_ours_are_tidied_up() {
    let destination = net("10.244.2.0/24");
    let gateway: IpAddr = "172.18.0.3".parse().unwrap();
    let desired = BTreeMap::from([(destination, gateway)]);
    let observed = |metric, gateway, key| Observed {
        destination,
        metric,
        gateway,
        key,
    };
    let changes = diff(
        &desired,
        [
            observed(100, Some(gateway), "other metric"),
            observed(0, None, "blackhole"),
        ],
    );
    assert_eq!(changes.set, desired);
    assert!(changes.wrong.contains(&destination));
    assert_eq!(changes.remove, ["other metric"]);
    let changes = diff(
        &desired,
        [
            observed(0, Some(gateway), "a"),
            observed(0, Some(gateway), "b"),
        ],
    );
    assert!(changes.set.is_empty());
    assert_eq!(changes.remove, ["b"]);
}

fn some_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0u8..4, 0u8..4, 14u8..=28).prop_map(|(a, b, len)| IpNet::new_assert(
            [10, 244 + a, b, 0].into(),
            len
        )
        .trunc()),
        (0u16..4, 46u8..=80).prop_map(|(a, len)| IpNet::new_assert(
            [0xfd00, 0x10, 0x244, a, 0, 0, 0, 0].into(),
            len
        )
        .trunc()),
    ]
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (2u8..8).prop_map(|last| IpAddr::from([172, 18, 0, last])),
        (2u16..8).prop_map(|last| IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, last])),
        (0u8..4).prop_map(|last| IpAddr::from([10, 244, last, 1])),
    ]
}

fn some_nodes() -> impl Strategy<Value = Vec<NodeInfo>> {
    let node = (
        proptest::collection::vec(some_address(), 0..3),
        proptest::collection::vec(some_net(), 0..4),
    );
    proptest::collection::vec(node, 0..8).prop_map(|nodes| {
        nodes
            .into_iter()
            .enumerate()
            .map(|(i, (addresses, pod_cidrs))| NodeInfo {
                name: format!("node-{i}"),
                addresses,
                pod_cidrs,
                created_secs: [None, Some(5)][i % 2],
                ..NodeInfo::default()
            })
            .collect()
    })
}

/// What the kernel holds after `changes` are applied to `routes`.
fn applied(routes: &[Observed<usize>], changes: &Changes<usize>) -> Vec<Observed<usize>> {
    let mut replaced = BTreeSet::new();
    let mut result: Vec<Observed<usize>> = routes
        .iter()
        .filter(|r| {
            let in_place = r.metric == metric(Family::of_net(&r.destination))
                && changes.wrong.contains(&r.destination)
                && !changes.remove.contains(&r.key);
            if in_place {
                replaced.insert(r.destination);
            }
            !in_place && !changes.remove.contains(&r.key)
        })
        .cloned()
        .collect();
    assert_eq!(replaced, changes.wrong, "a replacement needs its old route");
    for (destination, gateway) in &changes.set {
        result.push(Observed {
            destination: *destination,
            metric: metric(Family::of_net(destination)),
            gateway: Some(*gateway),
            key: 1000 + result.len(),
        });
    }
    result
}

use std::collections::BTreeSet;

proptest! {
    #[test]
    fn nobody_takes_over_our_pods_or_addresses(nodes in some_nodes()) {
        let own = own();
        for (destination, gateway) in plan(&own, &nodes).routes {
            prop_assert_eq!(Family::of_net(&destination), Family::of(gateway));
            prop_assert!(!own.addresses.contains(&gateway));
            prop_assert!(!destination.contains(&gateway));
            prop_assert!(!own.addresses.iter().any(|a| destination.contains(a)));
            for mine in &own.pod_cidrs {
                prop_assert!(!mine.contains(&destination) && !destination.contains(mine));
            }
        }
    }

    #[test]
    fn the_order_of_peers_does_not_matter(nodes in some_nodes(), seed in any::<u64>()) {
        let mut shuffled = nodes.clone();
        let count = shuffled.len().max(1);
        shuffled.rotate_left(seed as usize % count);
        if seed % 2 == 0 {
            shuffled.reverse();
        }
        prop_assert_eq!(plan(&own(), &nodes), plan(&own(), &shuffled));
    }

    #[test]
    fn every_claim_is_routed_or_accounted_for(nodes in some_nodes()) {
        let plan = plan(&own(), &nodes);
        for peer in &nodes {
            for cidr in &peer.pod_cidrs {
                let routed = plan.routes.get(cidr).is_some_and(|g| peer.addresses.contains(g));
                prop_assert!(routed || plan.skipped.iter().any(|s| s.node == peer.name));
            }
        }
    }

    #[test]
    fn applying_a_diff_leaves_nothing_to_do(
        nodes in some_nodes(),
        present in proptest::collection::vec(
            (some_net(), prop_oneof![Just(0u32), Just(512), Just(1024)],
             proptest::option::of(some_address())), 0..12),
    ) {
        let desired = plan(&own(), &nodes).routes;
        let kernel: Vec<Observed<usize>> = present
            .into_iter()
            .chain(desired.iter().take(3).map(|(d, g)| (*d, metric(Family::of_net(d)), Some(*g))))
            .enumerate()
            .map(|(key, (destination, metric, gateway))| Observed { destination, metric, gateway, key })
            .collect();
        let changes = diff(&desired, kernel.clone());
        let after = applied(&kernel, &changes);
        prop_assert!(diff(&desired, after.clone()).is_empty());
        prop_assert_eq!(after.len(), desired.len());
    }
}
