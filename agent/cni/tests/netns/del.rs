//! DEL.

use rstest::rstest;
use serde_json::json;

use crate::support::*;

#[derive(Debug, Clone, Copy)]
enum Sandbox {
    There,
    Vanished,
    Unnamed,
    Emptied,
}

#[rstest]
#[ignore = "needs root"]
fn everything_is_released(
    #[values(Sandbox::There, Sandbox::Vanished, Sandbox::Unnamed, Sandbox::Emptied)]
    sandbox: Sandbox,
) {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let config = host.with_ports(&["tcp 8080:80", "udp 5353:53"]);
    host.add_with("a", &pod, &config);
    let path = pod.path();
    let netns = match sandbox {
        Sandbox::There => path.as_str(),
        Sandbox::Vanished => {
            drop(pod);
            path.as_str()
        }
        Sandbox::Unnamed => "",
        Sandbox::Emptied => {
            pod.run("ip", "link del eth0");
            path.as_str()
        }
    };
    for _ in 0..2 {
        // What the runtime sends along does not matter.
        host.command("DEL", "a", netns, &host.config).success();
    }
    host.assert_clean();
    let table = host.netns.run("nft", "list table inet kindnet-hostports");
    assert!(!table.contains("elements"), "{table}");
}

#[test]
#[ignore = "needs root"]
fn what_never_was_is_gone() {
    let host = Host::dual();
    host.command("DEL", "never", "", &host.config).success();
    host.command("DEL", "never", "/run/netns/there-is-none", &host.config)
        .success();
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn an_invalid_configuration_keeps_nothing_alive() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    host.add("a", &pod);
    let config = host.with(json!({"ranges": [[{"subnet": "10.0.0.0/32"}]], "mtu": 3}));
    host.command("DEL", "a", &pod.path(), &config).success();
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn a_lost_state_keeps_nothing_alive() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    host.add("a", &pod);
    std::fs::remove_dir_all(host.state.path().join("net")).unwrap();
    host.del("a", &pod.path());
    assert_eq!((host.netns.links(), pod.links()), (vec![], vec![]));
}

#[test]
#[ignore = "needs root"]
fn the_interface_is_gone_when_del_returns() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    for round in 0..20 {
        host.add("a", &pod);
        host.del("a", &pod.path());
        assert_eq!(
            (host.netns.links(), pod.links()),
            (vec![], vec![]),
            "round {round}"
        );
    }
    host.assert_clean();
}

#[test]
#[ignore = "needs root"]
fn the_address_of_a_changed_range_returns_to_it() {
    let host = Host::new(&[V4]);
    let pods = [Netns::new("pod"), Netns::new("pod")];
    host.add("a", &pods[0]);
    let moved = host.with(json!({"ranges": [[{"subnet": "10.88.0.0/24"}]]}));
    assert_eq!(ips(&host.add_with("b", &pods[1], &moved)), ["10.88.0.2"]);
    host.command("DEL", "a", "", &moved).success();
    host.command("DEL", "b", "", &moved).success();
    host.assert_clean();
}
