use super::*;
use crate::fixture::{Fate, Network, Packet, failed, stopped, topology, verify, view};
use kindnet_probe::wire::HostView;

fn views(topology: &Topology) -> Vec<HostView> {
    (0..topology.nodes.len())
        .map(|n| view(topology, n))
        .collect()
}

fn is_tcp(packet: &Packet<'_>) -> bool {
    matches!(packet.action, Action::Tcp { .. })
}

fn to_server_of(packet: &Packet<'_>, node: usize) -> bool {
    packet
        .target
        .is_some_and(|t| t.role == Role::Server && t.node == node)
}

#[test]
fn nothing_fails_on_a_healthy_network() {
    let topology = topology();
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|_| Fate::Arrives,
    };
    let evaluated = verify(&network, &[]);
    assert_eq!(failed(&evaluated), []);
    let skipped: Vec<_> = evaluated
        .iter()
        .filter(|e| e.skipped.is_some())
        .map(|e| (e.instance.spec.id, e.instance.family))
        .collect();
    // The API server's Service has an address of one family only.
    assert_eq!(skipped, [("dns.kubernetes", Some(Family::V6))]);
}

#[test]
fn a_missing_route_is_named_in_both_directions() {
    let topology = topology();
    let mut views = views(&topology);
    views[0]
        .routes
        .retain(|r| r.dst.to_string() != "10.244.1.0/24");
    let network = Network {
        topology: &topology,
        views,
        // Neither requests from alpha nor answers to beta find their way.
        fate: &|packet| match packet.family {
            Family::V4 if packet.crosses() && packet.source.role == Role::Client => {
                match packet.target.unwrap().role {
                    Role::Server => Fate::Lost(ProblemKind::Timeout),
                    _ => Fate::Arrives,
                }
            }
            _ => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["pod", "node.routes"]);
    let v4 = Some(Family::V4);
    assert_eq!(
        failed(&evaluated),
        [
            ("pod.cross-node.tcp", v4),
            ("pod.cross-node.udp", v4),
            ("pod.cross-node.icmp", v4),
            ("pod.cross-node.body", v4),
            ("pod.cross-node.mtu", v4),
            ("node.routes", v4),
        ]
    );
    let why = "node alpha has no route to 10.244.1.0/24: its packets take the default route";
    assert_eq!(
        stopped(&evaluated, "pod.cross-node.tcp"),
        [
            format!("between node alpha and node beta: {why}"),
            format!("on the way back, between node alpha and node beta: {why}"),
        ]
    );
}

#[test]
fn a_filtered_port_is_told_from_a_lost_path() {
    let topology = topology();
    let network = Network {
        topology: &topology,
        views: views(&topology),
        // beta drops what it would forward to the port; its own packets are not forwarded.
        fate: &|packet| {
            let own = packet.source.node == 1 && packet.source.role == Role::Host;
            match is_tcp(packet) && to_server_of(packet, 1) && !own {
                true => Fate::Lost(ProblemKind::Timeout),
                false => Fate::Arrives,
            }
        },
    };
    let evaluated = verify(&network, &["pod.cross-node", "node.to-own-pod"]);
    let both = [Some(Family::V4), Some(Family::V6)];
    let expected: Vec<_> = ["pod.cross-node.tcp", "pod.cross-node.body"]
        .into_iter()
        .flat_map(|id| both.map(|f| (id, f)))
        .collect();
    assert_eq!(failed(&evaluated), expected);
    assert_eq!(
        stopped(&evaluated, "pod.cross-node.tcp")[0],
        "on node beta: it reaches its pod itself but does not forward packets to it; other \
         traffic passes, this is filtered"
    );
}

#[test]
fn the_link_that_is_too_small_is_named() {
    let topology = topology();
    let mut views = views(&topology);
    views[1]
        .links
        .iter_mut()
        .find(|l| l.name == "eth0")
        .unwrap()
        .mtu = 1400;
    let network = Network {
        topology: &topology,
        views,
        fate: &|packet| match packet.crosses() && packet.size() > 1400 {
            true => Fate::Lost(ProblemKind::TooBig),
            false => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["*.mtu"]);
    let failed = failed(&evaluated);
    assert!(
        failed.iter().all(|(id, _)| *id == "pod.cross-node.mtu"),
        "{failed:?}"
    );
    assert_eq!(failed.len(), 2);
    for place in stopped(&evaluated, "pod.cross-node.mtu") {
        assert_eq!(
            place,
            "at link eth0 of node beta to the other node, whose MTU is 1400"
        );
    }
}

#[test]
fn a_tunnel_nobody_knows_of_is_measured() {
    let topology = topology();
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| match packet.crosses() && packet.size() > 1455 {
            true => Fate::Lost(ProblemKind::Timeout),
            false => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["pod.cross-node.mtu"]);
    assert_eq!(
        stopped(&evaluated, "pod.cross-node.mtu")[0],
        "on the way: packets of 1450 bytes get through"
    );
}

#[test]
fn who_masquerades_pods_is_named() {
    let topology = topology();
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| match packet.family == Family::V4 && to_server_of(packet, 1) {
            true => Fate::From("172.18.0.2".parse().unwrap()),
            false => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["pod"]);
    assert_eq!(failed(&evaluated), [("pod.source", Some(Family::V4))]);
    assert_eq!(
        stopped(&evaluated, "pod.source")[0],
        "node alpha masquerades traffic between pods"
    );
}

#[test]
fn missing_masquerade_fails_the_outside_check_only() {
    let topology = topology();
    let outside = topology.outside.clone().unwrap();
    let lost = |action: &Action| match action {
        Action::Tcp { to, .. } | Action::Udp { to, .. } => outside.contains(to),
        _ => false,
    };
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| match packet.source.role == Role::Client && lost(packet.action) {
            true => Fate::Lost(ProblemKind::Timeout),
            false => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &[]);
    let ids: Vec<_> = failed(&evaluated).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["outside.source", "outside.source"]);
    assert!(
        stopped(&evaluated, "outside.source")[0]
            .starts_with("node alpha itself reaches the outside host"),
    );
}

#[test]
fn nodes_that_do_not_reach_each_other() {
    let topology = topology();
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| match packet.crosses() {
            true => Fate::Lost(ProblemKind::Timeout),
            false => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["pod.cross-node.tcp"]);
    assert_eq!(
        stopped(&evaluated, "pod.cross-node.tcp")[0],
        "between node alpha and node beta: the nodes do not reach each other"
    );
}

#[test]
fn a_service_that_does_not_work_while_its_pods_do() {
    let topology = topology();
    let service = topology.services[0].cluster_ip;
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| match packet.action {
            Action::Tcp { to, .. } if to.ip() == service => Fate::Lost(ProblemKind::Refused),
            _ => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["service.cluster-ip.tcp"]);
    assert_eq!(
        stopped(&evaluated, "service.cluster-ip.tcp")[0],
        "at node alpha's Service rules (kube-proxy): the pods behind it are reached directly"
    );
}

#[test]
fn a_host_port_that_is_not_forwarded() {
    let topology = topology();
    let host_port = topology.host_port;
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| match packet.action {
            Action::Tcp { to, .. } if to.port() == host_port => Fate::Lost(ProblemKind::Refused),
            _ => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["host-port", "pod"]);
    assert!(
        failed(&evaluated)
            .iter()
            .all(|(id, _)| id.starts_with("host-port."))
    );
    for id in ["host-port.from-pod", "host-port.from-node"] {
        for place in stopped(&evaluated, id) {
            assert!(place.contains("does not forward the hostPort"), "{place}");
        }
    }
}

#[test]
fn a_body_that_does_not_fit_is_a_matter_of_size() {
    let topology = topology();
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| {
            let big = packet.size() > 1420
                || matches!(packet.action, Action::Tcp { bytes, .. } if *bytes > 1420);
            match packet.crosses() && big {
                true => Fate::Lost(ProblemKind::Timeout),
                false => Fate::Arrives,
            }
        },
    };
    let evaluated = verify(&network, &["pod.cross-node.body"]);
    assert_eq!(
        stopped(&evaluated, "pod.cross-node.body")[0],
        "on the way: packets of 1420 bytes get through"
    );
}

#[test]
fn icmp_that_a_node_drops_is_no_broken_node() {
    let topology = topology();
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| {
            let to_beta = packet
                .target
                .is_some_and(|t| t.role == Role::Host && t.node == 1);
            match to_beta && matches!(packet.action, Action::Icmp { .. }) {
                true => Fate::Lost(ProblemKind::Timeout),
                false => Fate::Arrives,
            }
        },
    };
    let evaluated = verify(&network, &["node.from-remote-pod"]);
    assert_eq!(
        stopped(&evaluated, "node.from-remote-pod")[0],
        "on node beta: it is reached, but drops this traffic"
    );
}

#[test]
fn a_node_port_is_a_matter_of_the_node_that_was_asked() {
    let topology = topology();
    let asked = SocketAddr::new(
        topology.nodes[1].addresses[0],
        topology.services[0].node_port,
    );
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| match packet.action {
            Action::Tcp { to, .. } if *to == asked => Fate::Lost(ProblemKind::Timeout),
            _ => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["service"]);
    assert_eq!(
        failed(&evaluated),
        [("service.node-port", Some(Family::V4))]
    );
    for place in stopped(&evaluated, "service.node-port") {
        assert!(place.starts_with("on node beta: its NodePort"), "{place}");
    }
}

#[test]
fn a_node_without_an_address_of_a_family_is_named() {
    let mut topology = topology();
    let beta = &mut topology.nodes[1];
    beta.addresses.retain(|ip| Family::of(*ip) == Family::V4);
    let network = Network {
        topology: &topology,
        views: views(&topology),
        fate: &|packet| match packet.crosses() {
            true => Fate::Lost(ProblemKind::Timeout),
            false => Fate::Arrives,
        },
    };
    let evaluated = verify(&network, &["pod.cross-node.tcp", "node.routes"]);
    let text = "no node has a route to the pods of node beta: it has podCIDR";
    let of_ipv6 = |place: &String| place.starts_with(text) && place.ends_with("no IPv6 address");
    let stopped = stopped(&evaluated, "pod.cross-node.tcp");
    assert!(stopped.iter().any(of_ipv6), "{stopped:?}");
    let failed = failed(&evaluated);
    assert!(failed.iter().any(|(id, _)| *id == "node.routes"));
}
