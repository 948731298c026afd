//! ADD, VERSION and STATUS.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::json;

use crate::support::*;

#[rstest]
#[case::ipv4(&[V4], &["10.77.1.2"])]
#[case::ipv6(&[V6], &["fd00:77:1::2"])]
#[case::dual(&[V4, V6], &["10.77.1.2", "fd00:77:1::2"])]
#[case::dual_ipv6_first(&[V6, V4], &["fd00:77:1::2", "10.77.1.2"])]
#[ignore = "needs root"]
fn a_pod_is_reachable_at_once(#[case] subnets: &[&str], #[case] expected: &[&str]) {
    let host = Host::new(subnets);
    let (pod, other) = (Netns::new("pod"), Netns::new("pod"));
    let result = host.add("a", &pod);
    assert_eq!(ips(&result), expected);
    let _server = Server::tcp(&pod, 80, "pod");
    let second = host.add("b", &other);
    let began = Instant::now();
    for (ip, from_other) in ips(&result).iter().zip(ips(&second)) {
        let to = if ip.contains(':') {
            format!("[{ip}]:80")
        } else {
            format!("{ip}:80")
        };
        // Pods see each other's addresses; the host comes from the gateway's.
        assert_eq!(tcp(&other, &to).unwrap(), format!("pod {from_other}"));
        let gateway = ip.replace(":2", ":1").replace(".2", ".1");
        assert_eq!(tcp(&host.netns, &to).unwrap(), format!("pod {gateway}"));
    }
    // A lost first packet would cost a second.
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    let links = pod.ip("link show eth0");
    assert_eq!(links[0]["operstate"], "UP");
    host.del("a", &pod.path());
    host.del("b", &other.path());
    assert_eq!(pod.links(), [""; 0]);
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn what_a_dual_stack_pod_looks_like() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let config = host.with(json!({"mtu": 1400}));
    let result = host.add_with("a", &pod, &config);
    assert_eq!(result["interfaces"][1]["sandbox"], pod.path());
    assert_eq!(result["interfaces"][1]["mtu"], 1400);
    let link = &pod.ip("link show eth0")[0];
    assert_eq!(
        (&link["mtu"], &link["address"]),
        (&json!(1400), &result["interfaces"][1]["mac"])
    );
    let ours = result["interfaces"][0]["name"].as_str().unwrap();
    assert_eq!(host.netns.links(), [ours]);
    assert_eq!(host.netns.ip("link")[1]["mtu"], 1400);
    assert_eq!(
        pod.routes(4),
        [
            "10.77.1.0/24 via 10.77.1.1",
            "10.77.1.1",
            "default via 10.77.1.1"
        ]
    );
    assert_eq!(
        pod.routes(6),
        [
            "default via fd00:77:1::1",
            "fd00:77:1::/64 via fd00:77:1::1",
            "fd00:77:1::1"
        ]
    );
    assert_eq!(host.netns.routes(4), ["10.77.1.2"]);
    assert_eq!(host.netns.routes(6), ["fd00:77:1::2"]);
    let text = pod.run("ip", "-6 addr show eth0");
    assert!(!text.contains("tentative"), "{text}");
    assert!(text.contains("inet6 fe80::"), "{text}");
    for family in ["ipv4.ip_forward", "ipv6.conf.all.forwarding"] {
        assert_eq!(
            host.netns.run("sysctl", &format!("-n net.{family}")).trim(),
            "1"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn addresses_survive_the_link_going_down_and_up() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    host.add("a", &pod);
    pod.run("ip", "link set eth0 down");
    pod.run("ip", "link set eth0 up");
    let text = pod.run("ip", "addr show eth0");
    for address in ["10.77.1.2/24", "fd00:77:1::2/64", "fe80::"] {
        assert!(text.contains(address), "{text}");
    }
}

#[test]
#[ignore = "needs root"]
fn ipv6_is_switched_on_where_the_sandbox_has_it_off() {
    let host = Host::dual();
    for scope in ["default", "all"] {
        host.netns.run(
            "sysctl",
            &format!("-w net.ipv6.conf.{scope}.disable_ipv6=1"),
        );
    }
    let pod = Netns::new("pod");
    pod.run("sysctl", "-w net.ipv6.conf.default.disable_ipv6=1");
    host.add("a", &pod);
    let _server = Server::tcp(&pod, 80, "pod");
    assert!(tcp(&host.netns, "[fd00:77:1::2]:80").is_ok());
}

#[rstest]
#[case("0.3.0")]
#[case("0.3.1")]
#[case("0.4.0")]
#[case("1.0.0")]
#[case("1.1.0")]
#[ignore = "needs root"]
fn every_version(#[case] version: &str) {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let result = host.add_with("a", &pod, &host.with(json!({"cniVersion": version})));
    assert_eq!(result["cniVersion"], version);
    assert_eq!(result["ips"][0]["version"].is_string(), version < "1.0.0");
    assert_eq!(result["interfaces"][1]["name"], "eth0");
}

#[test]
#[ignore = "needs root"]
fn own_routes_and_a_gateway_elsewhere() {
    let host = Host::new(&[]);
    let pod = Netns::new("pod");
    let config = host.with(json!({
        "ranges": [[{"subnet": V4, "gateway": "169.254.1.1", "rangeStart": "10.77.1.100"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.0.2.0/24", "gw": "169.254.1.1"}],
    }));
    let result = host.add_with("a", &pod, &config);
    assert_eq!(ips(&result), ["10.77.1.100"]);
    assert_eq!(
        pod.routes(4),
        [
            "10.77.1.0/24 via 169.254.1.1",
            "169.254.1.1",
            "192.0.2.0/24 via 169.254.1.1",
            "default via 169.254.1.1"
        ]
    );
    let _server = Server::tcp(&pod, 80, "pod");
    assert!(tcp(&host.netns, "10.77.1.100:80").is_ok());
}

#[test]
#[ignore = "needs root"]
fn two_interfaces_of_one_container() {
    let host = Host::new(&[V4]);
    let pod = Netns::new("pod");
    host.add("a", &pod);
    let path = pod.path();
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "a"),
        ("CNI_NETNS", path.as_str()),
        ("CNI_IFNAME", "net1"),
    ];
    let config = host.with(json!({"routes": []}));
    assert_eq!(ips(&host.call(&env, &config).success()), ["10.77.1.3"]);
    let mut links = pod.links();
    links.sort();
    assert_eq!(links, ["eth0", "net1"]);
    host.del("a", &path);
    assert_eq!(pod.links(), ["net1"]);
}

#[test]
#[ignore = "needs root"]
fn a_requested_address() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let path = pod.path();
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "a"),
        ("CNI_NETNS", path.as_str()),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;IP=10.77.1.50",
        ),
    ];
    assert_eq!(
        ips(&host.call(&env, &host.config).success()),
        ["10.77.1.50", "fd00:77:1::2"]
    );
    let record = std::fs::read_to_string(host.state.path().join("net/attachments/a@eth0")).unwrap();
    assert!(record.contains(r#""pod":"ns/p""#), "{record}");
    assert!(
        host.netns
            .run("ip", "link")
            .contains("alias kindnet net ns/p")
    );
}

#[test]
#[ignore = "needs root"]
fn many_at_once_and_each_is_reachable_at_once() {
    let host = Host::dual();
    let pods: Vec<Netns> = (0..32).map(|_| Netns::new("pod")).collect();
    let servers: Vec<Server> = pods.iter().map(|pod| Server::tcp(pod, 80, "pod")).collect();
    let addresses: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(n, pod)| {
                let host = &host;
                scope.spawn(move || {
                    let addresses = ips(&host.add(&format!("c{n}"), pod));
                    let to = format!("[{}]:80", addresses[1]);
                    let began = Instant::now();
                    assert_eq!(tcp(&host.netns, &to).as_deref(), Ok("pod fd00:77:1::1"));
                    // A lost first packet costs a second.
                    assert!(
                        began.elapsed() < Duration::from_secs(1),
                        "{:?}",
                        began.elapsed()
                    );
                    addresses
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let all: HashSet<&String> = addresses.iter().flatten().collect();
    assert_eq!(all.len(), 64);
    drop(servers);
    std::thread::scope(|scope| {
        for (n, pod) in pods.iter().enumerate() {
            let host = &host;
            scope.spawn(move || host.del(&format!("c{n}"), &pod.path()));
        }
    });
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn refusals_leave_nothing_behind() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let add = |netns: &str| host.command("ADD", "a", netns, &host.config).error();
    assert_eq!(add("/run/netns/there-is-none").0, 3);
    assert_eq!(add(&host.netns.path()).0, 8);
    assert_eq!(add("/etc/hostname").0, 8);
    // Another plugin has made an interface of this name.
    pod.run("ip", "link add eth0 type veth peer name other");
    let (code, message) = add(&pod.path());
    assert_eq!(code, 104, "{message}");
    assert!(message.starts_with("create the veth pair: "), "{message}");
    host.assert_clean();
    pod.run("ip", "link del eth0");
    host.add("a", &pod);
    let (code, message) = add(&pod.path());
    assert_eq!(code, 102, "{message}");
    assert_eq!(host.netns.links().len(), 1);
}

#[test]
#[ignore = "needs root"]
fn an_exhausted_range_says_so() {
    let host = Host::new(&["10.77.1.0/30"]);
    let pods = [Netns::new("pod"), Netns::new("pod")];
    host.add("a", &pods[0]);
    let (code, message) = host
        .command("ADD", "b", &pods[1].path(), &host.config)
        .error();
    assert_eq!(
        (code, message.as_str()),
        (100, "no free address in 10.77.1.0/30: all 1 are in use")
    );
    host.del("a", &pods[0].path());
    host.add("b", &pods[1]);
}

#[test]
#[ignore = "needs root"]
fn pods_of_a_plugin_that_was_here_before_keep_their_addresses() {
    let host = Host::dual();
    let pods = [Netns::new("pod"), Netns::new("pod")];
    host.add("a", &pods[0]);
    // As another plugin would have left it: a link and routes, and no state of ours.
    std::fs::remove_dir_all(host.state.path().join("net")).unwrap();
    assert_eq!(ips(&host.add("b", &pods[1])), ["10.77.1.3", "fd00:77:1::3"]);
    let _server = Server::tcp(&pods[0], 80, "pod");
    for to in ["10.77.1.2:80", "[fd00:77:1::2]:80"] {
        assert!(tcp(&host.netns, to).is_ok());
    }
    assert_eq!(host.netns.routes(4), ["10.77.1.2", "10.77.1.3"]);
}

#[test]
#[ignore = "needs root"]
fn results_of_plugins_before_this_one_are_kept() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let before = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "sandbox": pod.path()}],
        "ips": [{"interface": 0, "address": "192.0.2.1/24"}],
    });
    let result = host.add_with("a", &pod, &host.with(json!({"prevResult": before})));
    assert_eq!(ips(&result), ["192.0.2.1", "10.77.1.2", "fd00:77:1::2"]);
    assert_eq!(result["ips"][1]["interface"], 2);
    // Without ranges it passes them on as they are.
    let only = host.with(json!({"ranges": [], "prevResult": before}));
    assert_eq!(
        host.command("ADD", "b", &pod.path(), &only).success(),
        before
    );
}

#[test]
#[ignore = "needs root"]
fn versions_and_status() {
    let host = Host::dual();
    let env = [("CNI_COMMAND", "VERSION")];
    let answer = host.call(&env, &json!({"cniVersion": "1.0.0"})).success();
    assert_eq!(answer["cniVersion"], "1.0.0");
    assert_eq!(answer["supportedVersions"].as_array().unwrap().len(), 5);
    let env = [("CNI_COMMAND", "STATUS")];
    assert_eq!(host.call(&env, &host.config).output, "");
    host.call(&env, &host.config).success();
    let file = host.state.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(
        host.call(&env, &host.with(json!({"dataDir": file})))
            .error()
            .0,
        50
    );
    assert_eq!(
        host.call(&env, &host.with(json!({"cniVersion": "1.0.0"})))
            .error()
            .0,
        7
    );
    assert_eq!(
        host.call(&[("CNI_COMMAND", "PLAY")], &host.config)
            .error()
            .0,
        4
    );
    assert_eq!(
        host.call(&[("CNI_COMMAND", "ADD")], &host.config).error().0,
        4
    );
}
