//! CHECK.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::*;

const PORTS: [&str; 2] = ["tcp 8080:80", "udp [fd00::9]:5353:53"];

fn attached(host: &Host, pod: &Netns) -> Value {
    let mut config = host.with_ports(&PORTS);
    let result = host.add_with("a", pod, &config);
    config["prevResult"] = result;
    config
}

#[test]
#[ignore = "needs root"]
fn what_add_made_is_right() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let config = attached(&host, &pod);
    assert_eq!(host.command("CHECK", "a", &pod.path(), &config).output, "");
    host.command("CHECK", "a", &pod.path(), &config).success();
}

#[rstest]
#[case::address(
    "pod",
    "ip",
    "addr del 10.77.1.2/24 dev eth0",
    "the pod has no 10.77.1.2/24 on eth0"
)]
#[case::route(
    "pod",
    "ip",
    "-6 route del default",
    "the pod has no route to ::/0 via fd00:77:1::1"
)]
#[case::pod_link("pod", "ip", "link del eth0", "the host has no link kn-")]
#[case::pod_down(
    "pod",
    "ip",
    "link set eth0 down",
    "the pod has no route to 0.0.0.0/0 via 10.77.1.1"
)]
#[case::renamed(
    "pod",
    "ip",
    "link set eth0 down name eth1",
    "the pod has no link eth0"
)]
#[case::host_route(
    "host",
    "ip",
    "route del 10.77.1.2",
    "the host has no route to 10.77.1.2/32 over kn-"
)]
#[case::host_route6(
    "host",
    "ip",
    "-6 route del fd00:77:1::2",
    "the host has no route to fd00:77:1::2/128 over kn-"
)]
#[case::table(
    "host",
    "nft",
    "flush ruleset",
    "host port tcp/:8080 to 10.77.1.2:80 is closed"
)]
#[case::element(
    "host",
    "nft",
    "delete element inet kindnet-hostports ip-ports6 { fd00::9 . udp . 5353 }",
    "host port udp/[fd00::9]:5353 to [fd00:77:1::2]:53 is closed"
)]
#[ignore = "needs root"]
fn damage_is_named(
    #[case] side: &str,
    #[case] program: &str,
    #[case] args: &str,
    #[case] expected: &str,
) {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let config = attached(&host, &pod);
    if side == "pod" { &pod } else { &host.netns }.run(program, args);
    let (code, message) = host.command("CHECK", "a", &pod.path(), &config).error();
    assert_eq!(code, 103);
    assert!(message.starts_with(expected), "{message}");
}

#[test]
#[ignore = "needs root"]
fn questions_that_make_no_sense() {
    let host = Host::dual();
    let pod = Netns::new("pod");
    let config = attached(&host, &pod);
    let check = |id: &str, config: &Value| host.command("CHECK", id, &pod.path(), config).error().0;
    assert_eq!(check("b", &config), 103);
    assert_eq!(check("a", &host.config), 7);
    let mut other = config.clone();
    other["prevResult"]["ips"] = json!([]);
    assert_eq!(check("a", &other), 103);
    other["cniVersion"] = json!("0.3.1");
    assert_eq!(check("a", &other), 7);
}
