//! What the agent does for the plugin.

use kindnet_cni::agent::Network;
use kindnet_cni::config::{HostPorts, PortMapping, Protocol};
use kindnet_cni::ipam::{Range, RangeSet, Record, Store};

use crate::support::*;

fn network(host: &Host) -> Network {
    Network::new(host.state.path(), "net")
}

#[test]
#[ignore = "needs root"]
fn addresses_of_sandboxes_that_are_gone_return() {
    let host = Host::dual();
    let config = host.with_ports(&["tcp 8080:80"]);
    let (alive, dead) = (Netns::new("pod"), Netns::new("pod"));
    host.add("alive", &alive);
    host.add_with("dead", &dead, &config);
    let network = network(&host);
    let reclaim = || host.netns.enter(|| network.reclaim().unwrap());
    assert!(reclaim().attachments.is_empty());
    drop(dead);
    // The kernel frees a namespace when it finds the time.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while host.netns.links().len() > 1 && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let reclaimed = reclaim();
    assert_eq!(
        (reclaimed.attachments, reclaimed.addresses),
        (vec!["dead/eth0".to_owned()], 2)
    );
    assert_eq!(alive.links(), ["eth0"]);
    assert_eq!(network.attachments().unwrap(), 1);
    let table = host.netns.run("nft", "list table inet kindnet-hostports");
    assert!(!table.contains("elements"), "{table}");
    host.del("alive", &alive.path());
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn flushed_rules_are_repaired() {
    let host = Host::dual();
    let network = network(&host);
    let pod = Netns::new("pod");
    let repair = || host.netns.enter(|| network.repair_host_ports().unwrap());
    assert!(!repair());
    host.add_with("a", &pod, &host.with_ports(&["tcp 8080:80"]));
    assert!(!repair());
    let before = host.netns.run("nft", "list ruleset");
    host.netns.run("nft", "flush ruleset");
    assert!(repair());
    assert_eq!(host.netns.run("nft", "list ruleset"), before);
    host.netns.enter(|| network.restore_host_ports().unwrap());
    assert_eq!(host.netns.run("nft", "list ruleset"), before);
}

#[test]
#[ignore = "needs root"]
fn thousands_of_host_ports_are_restored_in_one_transaction() {
    let host = Host::dual();
    let network = network(&host);
    let range = |subnet: &str| Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
    let sets = [V4, V6].map(|subnet| RangeSet::new(vec![range(subnet)]).unwrap());
    let store = Store::new(host.state.path().join("net"));
    for pod in 0..250u16 {
        let port = |n| PortMapping {
            host_port: 10_000 + pod * 20 + n,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: None,
        };
        let record = Record {
            container_id: format!("c{pod}"),
            ifname: "eth0".into(),
            netns: String::new(),
            pod: None,
            link: "kn-none".into(),
            addresses: Vec::new(),
            ports: (0..20).map(port).collect(),
            port_targets: Vec::new(),
            host_ports: HostPorts::Auto,
        };
        store.allocate(&sets, &[], record, |_| Ok(false)).unwrap();
    }
    host.netns.enter(|| network.restore_host_ports().unwrap());
    for map in ["ports4", "ports6"] {
        let map = host
            .netns
            .run("nft", &format!("list map inet kindnet-hostports {map}"));
        assert_eq!(map.matches("tcp . ").count(), 5000);
    }
    assert_eq!(
        host.netns.enter(|| network.reclaim().unwrap()).addresses,
        500
    );
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn host_local_learns_of_running_pods_and_forgets_those_that_went_meanwhile() {
    let host = Host::dual();
    let network = network(&host);
    let pod = Netns::new("pod");
    let state = tempfile::tempdir().unwrap();
    let hand_over = || {
        host.netns
            .enter(|| network.hand_over_to_host_local(state.path()).unwrap())
    };
    assert_eq!(hand_over(), 0);
    // From the time before: one pod that is still there and one that is not.
    let folder = state.path().join("net");
    std::fs::create_dir(&folder).unwrap();
    host.netns
        .run("ip", "link add old type veth peer name old1");
    host.netns.run("ip", "link set old up");
    // As ptp leaves it.
    host.netns.run("ip", "addr add 10.77.1.1/32 dev old");
    host.netns
        .run("ip", "route add 10.77.1.9 dev old scope host");
    for ip in ["10.77.1.9", "10.77.1.8"] {
        std::fs::write(folder.join(ip), "before\r\neth0").unwrap();
    }
    host.add("a", &pod);
    assert_eq!((hand_over(), hand_over()), (2, 0));
    let mut reserved = files(&folder);
    reserved.sort();
    assert_eq!(reserved, ["10.77.1.2", "10.77.1.9", "fd00:77:1::2", "lock"]);
    for (ip, owner) in [
        ("10.77.1.2", "a"),
        ("fd00:77:1::2", "a"),
        ("10.77.1.9", "before"),
    ] {
        let content = std::fs::read_to_string(folder.join(ip)).unwrap();
        assert_eq!(content, format!("{owner}\r\neth0"));
    }
}

#[test]
#[ignore = "needs root"]
fn uninstalling_leaves_running_pods_what_they_have_and_nothing_else() {
    let host = Host::dual();
    let network = network(&host);
    let pod = Netns::new("pod");
    host.add_with("a", &pod, &host.with_ports(&["tcp 8080:80"]));
    let plugins = tempfile::tempdir().unwrap();
    kindnet_cni::agent::install(&host.plugin, plugins.path()).unwrap();
    let uninstall = || {
        host.netns
            .enter(|| network.uninstall(plugins.path()).unwrap())
    };
    uninstall();
    uninstall();
    assert!(files(plugins.path()).is_empty());
    assert!(!host.netns.run("nft", "list ruleset").contains("kindnet"));
    let server = Server::tcp(&pod, 80, "pod");
    assert!(tcp(&host.netns, "10.77.1.2:80").is_ok());
    drop(server);

    // Whoever hands out addresses next still learns of the pod.
    let standard = tempfile::tempdir().unwrap();
    let reserved = host
        .netns
        .enter(|| network.hand_over_to_host_local(standard.path()).unwrap());
    assert_eq!(reserved, 2);

    drop(pod);
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        uninstall();
        files(host.state.path()).is_empty()
    });
    assert!(gone, "{:?}", files(host.state.path()));
}
