//! Routes in a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod lab;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use ipnet::IpNet;
use kindnet_core::routes::diff;
use kindnet_net::ErrorKind;
use kindnet_net::netlink::{Event, Netlink, Outcome, Reach, Routes, watch};
use lab::Lab;

fn desired(routes: &[(&str, &str)]) -> BTreeMap<IpNet, IpAddr> {
    routes
        .iter()
        .map(|(net, gateway)| (net.parse().unwrap(), gateway.parse().unwrap()))
        .collect()
}

/// What the agent does on every synchronisation.
fn sync(lab: &Lab, routes: &[(&str, &str)]) -> Outcome {
    let desired = desired(routes);
    lab.block_on("node", async {
        let routes = Routes::new(Netlink::open().unwrap());
        let changes = diff(&desired, routes.observe().await.unwrap());
        let outcome = routes.apply(&changes).await;
        if outcome.failed.is_empty() {
            let left = diff(&desired, routes.observe().await.unwrap());
            assert!(left.is_empty(), "not settled: {left:?}");
        }
        outcome
    })
}

const BOTH: [(&str, &str); 2] = [("10.244.2.0/24", "172.31.0.3"), ("fd44:2::/64", "fd31::3")];

fn ours(lab: &Lab) -> Vec<String> {
    let mut lines = lab.ip("node", "route show proto 107");
    lines += &lab.ip("node", "-6 route show proto 107");
    lines.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
#[ignore = "needs root and network namespaces"]
fn routes_carry_packets_and_settle() {
    let lab = Lab::new();
    lab.sh(
        "node",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    );
    let outcome = sync(&lab, &BOTH);
    assert_eq!(outcome.set.len(), 2, "{outcome:?}");
    assert_eq!(
        ours(&lab),
        [
            "10.244.2.0/24 via 172.31.0.3 dev eth0",
            "fd44:2::/64 via fd31::3 dev eth0 metric 512 pref medium"
        ]
    );
    assert_eq!(
        lab.source_seen("pod", "peer", "10.244.2.5").to_string(),
        "10.244.1.5"
    );
    assert_eq!(
        lab.source_seen("pod", "peer", "fd44:2::5").to_string(),
        "fd44:1::5"
    );
    assert!(!sync(&lab, &BOTH).changed());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn wrong_and_stale_routes_are_replaced_and_removed() {
    let lab = Lab::new();
    lab.ip("node", "route add 10.244.2.0/24 via 172.31.0.9 proto 107");
    lab.ip("node", "route add 10.244.7.0/24 via 172.31.0.9 proto 107");
    lab.ip("node", "route add blackhole 10.244.8.0/24 proto 107");
    lab.ip(
        "node",
        "-6 route add fd44:2::/64 via fd31::9 proto 107 metric 512",
    );
    lab.ip(
        "node",
        "-6 route add fd44:2::/64 via fd31::9 proto 107 metric 100",
    );
    lab.ip("node", "-6 route add fd44:7::/64 via fd31::9 proto 107");
    let outcome = sync(&lab, &BOTH);
    assert_eq!((outcome.set.len(), outcome.removed), (2, 4), "{outcome:?}");
    assert!(outcome.taken_over.is_empty());
    assert_eq!(ours(&lab).len(), 2);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn routes_of_others_stay_unless_they_hold_our_very_place() {
    let lab = Lab::new();
    let foreign = [
        "route add 10.244.2.0/24 via 172.31.0.9 metric 50 proto static",
        "-6 route add fd44:2::/64 via fd31::9 metric 1024 proto static",
        "route add 10.99.0.0/16 via 172.31.0.9 proto static",
        "route add 10.98.0.0/16 via 172.31.0.9 proto 186",
    ];
    for route in foreign {
        lab.ip("node", route);
    }
    let before = lab.ip("node", "route show") + &lab.ip("node", "-6 route show");
    assert!(sync(&lab, &BOTH).taken_over.is_empty());
    assert_eq!(
        lab.ip("node", "route get 10.244.2.5 from 172.31.0.2")
            .matches("172.31.0.3")
            .count(),
        1
    );
    assert_eq!(
        lab.ip("node", "-6 route get fd44:2::5")
            .matches("fd31::3")
            .count(),
        1
    );
    sync(&lab, &[]);
    let after = lab.ip("node", "route show") + &lab.ip("node", "-6 route show");
    assert_eq!(before, after);

    lab.ip(
        "node",
        "route add 10.244.2.0/24 via 172.31.0.9 proto static",
    );
    let outcome = sync(&lab, &BOTH);
    assert_eq!(
        outcome.taken_over,
        ["10.244.2.0/24".parse::<IpNet>().unwrap()]
    );
    assert!(ours(&lab)[0].contains("172.31.0.3"));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_network_this_node_is_on_is_never_routed_away() {
    let lab = Lab::new();
    let outcome = sync(&lab, &[("172.31.0.0/24", "172.31.0.3"), BOTH[0]]);
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(outcome.failed[0].2.kind(), ErrorKind::Exists);
    assert_eq!(outcome.set.len(), 1);
    assert_eq!(
        lab.source_seen("node", "peer", "172.31.0.3").to_string(),
        "172.31.0.2"
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_gateway_behind_a_router_is_refused_and_the_others_served() {
    let lab = Lab::new();
    lab.ip("node", "route add default via 172.31.0.9");
    lab.ip("node", "-6 route add default via fd31::9");
    let outcome = sync(
        &lab,
        &[
            ("10.244.5.0/24", "192.0.2.7"),
            ("fd44:5::/64", "2001:db8::7"),
            BOTH[0],
            BOTH[1],
        ],
    );
    assert_eq!(outcome.set.len(), 2, "{outcome:?}");
    assert_eq!(outcome.failed.len(), 2, "{outcome:?}");
    for (_, _, error) in &outcome.failed {
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    }
    let reach = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        lab.block_on("node", async move {
            let routes = Routes::new(Netlink::open().unwrap());
            routes.reach(address).await.unwrap()
        })
    };
    assert_eq!(
        reach("192.0.2.7"),
        Reach::Via("172.31.0.9".parse().unwrap())
    );
    assert_eq!(reach("2001:db8::7"), Reach::Via("fd31::9".parse().unwrap()));
    assert_eq!(reach("172.31.0.3"), Reach::OnLink);
    assert_eq!(reach("172.31.0.2"), Reach::Local);
    lab.ip("node", "route del default");
    assert_eq!(reach("192.0.2.7"), Reach::Nowhere);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn cleanup_leaves_the_routes_as_they_were() {
    let lab = Lab::new();
    let before =
        lab.ip("node", "route show table all") + &lab.ip("node", "-6 route show table all");
    sync(&lab, &BOTH);
    let removed = lab.block_on("node", async {
        Routes::new(Netlink::open().unwrap())
            .cleanup()
            .await
            .unwrap()
    });
    assert_eq!(removed, 2);
    let after = lab.ip("node", "route show table all") + &lab.ip("node", "-6 route show table all");
    assert_eq!(before, after);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_uplink_is_that_of_the_best_default_route() {
    let lab = Lab::new();
    let uplink = || {
        lab.block_on("node", async {
            Netlink::open().unwrap().uplink().await.unwrap()
        })
    };
    assert_eq!(uplink(), None);
    lab.ip("node", "link set eth0 mtu 1400");
    lab.ip("node", "link set pod0 mtu 1300");
    lab.ip("node", "-6 route add default via fd31::9");
    assert_eq!(uplink().unwrap().mtu_bytes, 1400);
    lab.ip("node", "route add default via 10.244.1.5 metric 10");
    assert_eq!(uplink().unwrap().name, "pod0");
    lab.ip("node", "route add default via 172.31.0.9 metric 5");
    let found = uplink().unwrap();
    assert_eq!((found.name.as_str(), found.mtu_bytes), ("eth0", 1400));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn damage_is_reported_at_once() {
    let lab = Lab::new();
    sync(&lab, &BOTH);
    lab.block_on("node", async {
        let mut events = watch().unwrap();
        let ns = lab.ns("node");
        let expect =
            async |events: &mut (dyn futures_util::Stream<Item = Event> + Send + Unpin),
                   wanted: fn(&Event) -> bool| {
                tokio::time::timeout(Duration::from_secs(5), async {
                    while let Some(event) = events.next().await {
                        if wanted(&event) {
                            return;
                        }
                    }
                    panic!("the watch ended");
                })
                .await
                .unwrap();
            };
        lab::run(&format!("ip -n {ns} route del 10.244.2.0/24"));
        expect(&mut events, |e| {
            matches!(e, Event::Route { destination, protocol: 107, removed: true }
                if destination.to_string() == "10.244.2.0/24")
        })
        .await;
        lab::run(&format!("ip -n {ns} -6 route flush proto 107"));
        expect(&mut events, |e| {
            matches!(
                e,
                Event::Route {
                    protocol: 107,
                    removed: true,
                    ..
                }
            )
        })
        .await;
        lab::run(&format!("ip -n {ns} link set eth0 down"));
        expect(&mut events, |e| matches!(e, Event::Link { .. })).await;
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn thousands_of_routes_are_set_in_well_under_a_second_each_way() {
    let lab = Lab::new();
    let routes: Vec<(String, &str)> = (0..5000u32)
        .map(|i| {
            (
                format!("10.{}.{}.0/24", 64 + i / 256, i % 256),
                "172.31.0.3",
            )
        })
        .collect();
    let routes: Vec<(&str, &str)> = routes
        .iter()
        .map(|(net, via)| (net.as_str(), *via))
        .collect();
    let began = std::time::Instant::now();
    assert_eq!(sync(&lab, &routes).set.len(), 5000);
    let set = began.elapsed();
    assert!(!sync(&lab, &routes).changed());
    let began = std::time::Instant::now();
    assert_eq!(sync(&lab, &[]).removed, 5000);
    println!(
        "5000 routes set in {set:?}, removed in {:?}",
        began.elapsed()
    );
    assert!(set < Duration::from_secs(10), "{set:?}");
}
