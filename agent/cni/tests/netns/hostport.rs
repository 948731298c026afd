//! Host ports.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::*;

/// A host with an address a client outside reaches it at.
struct Outside {
    host: Host,
    client: Netns,
}

impl Outside {
    fn new() -> Self {
        let host = Host::dual();
        let client = Netns::new("client");
        let (h, c) = (&host.netns, &client);
        h.run(
            "ip",
            &format!("link add uplink type veth peer name eth0 netns {}", c.name),
        );
        for (netns, link, number) in [(h, "uplink", 1), (c, "eth0", 2)] {
            netns.run("ip", &format!("addr add 192.0.2.{number}/24 dev {link}"));
            netns.run(
                "ip",
                &format!("addr add fd00:2::{number}/64 dev {link} nodad"),
            );
            netns.run("ip", &format!("link set {link} up"));
        }
        Self { host, client }
    }
}

fn modes(host: &Host, ports: &[&str], mode: &str) -> Value {
    let mut config = host.with_ports(ports);
    config["hostPorts"] = json!(mode);
    config
}

#[rstest]
#[ignore = "needs root"]
fn from_everywhere(#[values("nftables", "iptables")] mode: &str) {
    let Outside { host, client } = Outside::new();
    let (pod, other) = (Netns::new("pod"), Netns::new("pod"));
    let config = modes(&host, &["tcp 8080:80", "udp 5353:53"], mode);
    host.add_with("a", &pod, &config);
    host.add("b", &other);
    let _tcp = Server::tcp(&pod, 80, "pod");
    let _udp = Server::udp(&pod, 53, "pod");
    for (from, target, sees) in [
        (&client, "192.0.2.1", "192.0.2.2"),
        (&client, "[fd00:2::1]", "fd00:2::2"),
        (&other, "192.0.2.1", "10.77.1.3"),
        (&other, "[fd00:2::1]", "fd00:77:1::3"),
        // Hairpin: the pod must not see itself.
        (&pod, "192.0.2.1", "10.77.1.1"),
        (&pod, "[fd00:2::1]", "fd00:77:1::1"),
        (&host.netns, "127.0.0.1", "10.77.1.1"),
    ] {
        let expected = format!("pod {sees}");
        assert_eq!(
            tcp(from, &format!("{target}:8080")).as_ref(),
            Ok(&expected),
            "TCP to {target}"
        );
        let udp = UdpClient::new(from, &format!("{target}:5353")).ask();
        assert_eq!(udp.as_ref(), Ok(&expected), "UDP to {target}");
    }
    assert!(tcp(&host.netns, "192.0.2.1:8080").is_ok());
    host.command("DEL", "a", &pod.path(), &config).success();
    assert!(tcp(&client, "192.0.2.1:8080").is_err());
    host.del("b", &other.path());
    host.netns.run("ip", "link del uplink");
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn ipv6_loopback_is_refused_at_once() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    host.add_with("a", &pod, &host.with_ports(&["tcp 8080:80"]));
    let _server = Server::tcp(&pod, 80, "pod");
    let began = std::time::Instant::now();
    assert!(
        tcp(&host.netns, "[::1]:8080")
            .unwrap_err()
            .contains("refused")
    );
    assert!(began.elapsed() < std::time::Duration::from_millis(500));
}

#[test]
#[ignore = "needs root"]
fn pods_do_not_reach_the_loopback_of_the_host() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    host.add_with("a", &pod, &host.with_ports(&["tcp 8080:80"]));
    let _private = Server::tcp(&host.netns, 9999, "private");
    // A pod can send anything to its gateway.
    pod.run("ip", "route add 127.0.0.1 via 10.77.1.1 dev eth0 table 5");
    pod.run("ip", "rule add to 127.0.0.1 lookup 5 pref 1");
    pod.run("ip", "rule del pref 0");
    pod.run("sysctl", "-w net.ipv4.conf.all.route_localnet=1");
    assert!(tcp(&pod, "127.0.0.1:9999").is_err());
}

#[test]
#[ignore = "needs root"]
fn one_address_of_the_host_only() {
    let Outside { host, client } = Outside::new();
    host.netns.run("ip", "addr add 192.0.2.11/24 dev uplink");
    let pod = Netns::new("pod");
    let ports = [
        "tcp 192.0.2.11:8080:80",
        "tcp 127.0.0.1:8081:80",
        "tcp [fd00:2::1]:8082:80",
    ];
    host.add_with("a", &pod, &host.with_ports(&ports));
    let _server = Server::tcp(&pod, 80, "pod");
    assert!(tcp(&client, "192.0.2.11:8080").is_ok());
    assert!(tcp(&client, "192.0.2.1:8080").is_err());
    assert!(tcp(&client, "192.0.2.11:8081").is_err());
    assert!(tcp(&host.netns, "127.0.0.1:8081").is_ok());
    assert!(tcp(&client, "[fd00:2::1]:8082").is_ok());
    assert!(tcp(&client, "192.0.2.1:8082").is_err());
}

#[test]
#[ignore = "needs root"]
fn a_protocol_has_ports_of_its_own() {
    let Outside { host, client } = Outside::new();
    let pods: Vec<Netns> = (0..3).map(|_| Netns::new("pod")).collect();
    for (n, protocol) in ["tcp", "udp", "sctp"].iter().enumerate() {
        host.add_with(
            &format!("c{n}"),
            &pods[n],
            &host.with_ports(&[&format!("{protocol} 8080:80")]),
        );
    }
    let _tcp = Server::tcp(&pods[0], 80, "tcp");
    let _udp = Server::udp(&pods[1], 80, "udp");
    assert_eq!(tcp(&client, "192.0.2.1:8080").unwrap(), "tcp 192.0.2.2");
    assert_eq!(
        UdpClient::new(&client, "192.0.2.1:8080").ask().unwrap(),
        "udp 192.0.2.2"
    );
    let table = host
        .netns
        .run("nft", "list map inet kindnet-hostports ports4");
    assert!(table.contains("sctp . 8080 : 10.77.1.4 . 80"), "{table}");
}

#[test]
#[ignore = "needs root"]
fn a_port_goes_to_the_last_pod_and_stays_there_when_the_first_one_goes() {
    let Outside { host, client } = Outside::new();
    let pods = [Netns::new("pod"), Netns::new("pod")];
    let config = host.with_ports(&["tcp 8080:80"]);
    let _servers = [
        Server::tcp(&pods[0], 80, "old"),
        Server::tcp(&pods[1], 80, "new"),
    ];
    host.add_with("old", &pods[0], &config);
    host.add_with("new", &pods[1], &config);
    assert_eq!(tcp(&client, "192.0.2.1:8080").unwrap(), "new 192.0.2.2");
    host.command("DEL", "old", &pods[0].path(), &config)
        .success();
    assert_eq!(tcp(&client, "192.0.2.1:8080").unwrap(), "new 192.0.2.2");
}

#[test]
#[ignore = "needs root"]
fn a_udp_client_that_goes_on_reaches_the_new_pod() {
    let Outside { host, client } = Outside::new();
    let pods = [Netns::new("pod"), Netns::new("pod")];
    let config = host.with_ports(&["udp 5353:53"]);
    let _servers = [
        Server::udp(&pods[0], 53, "old"),
        Server::udp(&pods[1], 53, "new"),
    ];
    for target in ["192.0.2.1:5353", "[fd00:2::1]:5353"] {
        let client = UdpClient::new(&client, target);
        // Before there is a pod the flow is tracked without a translation.
        drop(client.ask());
        host.add_with("old", &pods[0], &config);
        assert!(client.ask().unwrap().starts_with("old "));
        host.command("DEL", "old", &pods[0].path(), &config)
            .success();
        host.add_with("new", &pods[1], &config);
        assert!(client.ask().unwrap().starts_with("new "));
        host.command("DEL", "new", &pods[1].path(), &config)
            .success();
    }
}

#[test]
#[ignore = "needs root"]
fn forgetting_flows_leaves_those_of_other_ports_alone() {
    let Outside { host, client } = Outside::new();
    let pods = [Netns::new("pod"), Netns::new("pod")];
    let _servers = [
        Server::udp(&pods[0], 53, "a"),
        Server::udp(&pods[1], 53, "b"),
    ];
    host.add_with("a", &pods[0], &host.with_ports(&["udp 5353:53"]));
    let client = UdpClient::new(&client, "192.0.2.1:5353");
    client.ask().unwrap();
    let flows = || {
        host.netns
            .run("conntrack", "-L -p udp --orig-port-dst 5353")
            .lines()
            .count()
    };
    assert_eq!(flows(), 1);
    host.add_with("b", &pods[1], &host.with_ports(&["udp 5354:53"]));
    assert_eq!(flows(), 1);
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_comes_after_a_flush_brings_the_others_back() {
    let Outside { host, client } = Outside::new();
    let pods = [Netns::new("pod"), Netns::new("pod")];
    let _server = Server::tcp(&pods[0], 80, "first");
    host.add_with("a", &pods[0], &host.with_ports(&["tcp 8080:80"]));
    host.netns.run("nft", "flush ruleset");
    assert!(tcp(&client, "192.0.2.1:8080").is_err());
    host.add_with("b", &pods[1], &host.with_ports(&["tcp 8081:80"]));
    assert!(tcp(&client, "192.0.2.1:8080").is_ok());
}

#[test]
#[ignore = "needs root"]
fn links_of_other_plugins() {
    let Outside { host, client } = Outside::new();
    let pod = Netns::new("pod");
    // A pod that another plugin has attached.
    let mut result = host.add("a", &pod);
    std::fs::remove_dir_all(host.state.path().join("net")).unwrap();
    result["cniVersion"] = json!("1.1.0");
    let mut config = host.with_ports(&["tcp 8080:80"]);
    config["ranges"] = json!([]);
    config["prevResult"] = result.clone();
    config["name"] = json!("chained");
    assert_eq!(host.add_with("a", &pod, &config), result);
    let _server = Server::tcp(&pod, 80, "pod");
    assert!(tcp(&client, "192.0.2.1:8080").is_ok());
    host.command("CHECK", "a", &pod.path(), &config).success();
    host.command("DEL", "a", &pod.path(), &config).success();
    assert!(tcp(&client, "192.0.2.1:8080").is_err());
    assert_eq!(pod.links(), ["eth0"]);
}
