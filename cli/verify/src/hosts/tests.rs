use super::*;
use kindnet_probe::wire::{ConfFile, Link, Route};
use rstest::rstest;

fn node() -> TestNode {
    TestNode {
        name: "a".into(),
        addresses: vec!["172.18.0.2".parse().unwrap()],
        pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
        chosen: true,
        client: PodState::Absent,
        server: PodState::Absent,
        host: PodState::Running(vec!["172.18.0.2".parse().unwrap()]),
    }
}

fn route(dst: &str, via: Option<&str>, dev: &str) -> Route {
    Route {
        dst: dst.parse().unwrap(),
        via: via.map(|v| v.parse().unwrap()),
        dev: dev.into(),
        metric: 0,
        rejects: false,
    }
}

fn view(conflist: &Conflist) -> HostView {
    HostView {
        links: vec![Link {
            name: "eth0".into(),
            mtu: 1500,
        }],
        routes: vec![route("0.0.0.0/0", Some("172.18.0.1"), "eth0")],
        forwarding_v4: true,
        forwarding_v6: true,
        conf_files: vec![ConfFile {
            name: names::CONFLIST_FILE.into(),
            content: conflist.to_json(),
        }],
    }
}

fn saw(view: &HostView) -> Vec<String> {
    conflist(&node(), view).into_iter().map(|f| f.saw).collect()
}

#[rstest]
#[case(Some(1500))]
#[case(None)]
fn a_conflist_as_the_agent_writes_it(#[case] mtu: Option<u32>) {
    let cidrs = node().pod_cidrs;
    for conflist in [
        Conflist::standard(&cidrs, mtu),
        Conflist::kindnet(&cidrs, mtu),
    ] {
        assert!(saw(&view(&conflist)).is_empty());
    }
}

#[test]
fn whatever_is_wrong_with_a_conflist_is_named() {
    let right = Conflist::standard(&node().pod_cidrs, Some(1500));
    let mut none = view(&right);
    none.conf_files.clear();
    assert_eq!(saw(&none), ["there is no 10-kindnet.conflist"]);

    let mut torn = view(&right);
    torn.conf_files[0].content.truncate(20);
    assert!(saw(&torn)[0].starts_with("10-kindnet.conflist is broken"));

    let mut second = view(&right);
    second.conf_files.insert(
        0,
        ConfFile {
            name: "05-other.conf".into(),
            content: "{}".into(),
        },
    );
    assert_eq!(
        saw(&second),
        ["05-other.conf comes first and is used instead"]
    );

    let other = Conflist::standard(&["10.244.9.0/24".parse().unwrap()], Some(1500));
    assert_eq!(saw(&view(&other)), ["pod subnets 10.244.9.0/24"]);

    let mut masquerading = right.clone();
    let Plugin::Ptp { ip_masq, .. } = &mut masquerading.plugins[0] else {
        panic!("ptp comes first");
    };
    *ip_masq = true;
    assert_eq!(saw(&view(&masquerading)).len(), 1);

    let small = Conflist::standard(&node().pod_cidrs, Some(1400));
    assert_eq!(saw(&view(&small)), ["an MTU of 1400 for pods"]);
    let mut big_uplink = view(&Conflist::standard(&node().pod_cidrs, None));
    big_uplink.links[0].mtu = 9000;
    assert_eq!(saw(&big_uplink), ["an MTU of 1500 for pods"]);
}

#[rstest]
#[case(route("10.244.1.0/24", Some("172.18.0.3"), "eth0"), None)]
#[case(
    route("10.244.1.0/24", Some("172.18.0.9"), "eth0"),
    Some("10.244.1.0/24 goes via 172.18.0.9")
)]
#[case(
    route("10.244.1.0/24", None, "cni0"),
    Some("10.244.1.0/24 goes to the link cni0")
)]
#[case(
    route("10.250.0.0/24", None, "cni0"),
    Some("no route to 10.244.1.0/24: its packets take the default route")
)]
// A wider route to the same node does as well.
#[case(route("10.244.0.0/16", Some("172.18.0.3"), "eth0"), None)]
fn routes_to_a_peer(#[case] extra: Route, #[case] problem: Option<&str>) {
    let mut view = view(&Conflist::standard(&[], None));
    view.routes.push(extra);
    let saw = route_problem(
        &view,
        "10.244.1.0/24".parse().unwrap(),
        "172.18.0.3".parse().unwrap(),
    );
    assert_eq!(saw.as_deref(), problem);
}

#[test]
fn a_pod_subnet_without_an_address_of_its_family_is_a_fault_of_the_node() {
    let mut node = node();
    assert_eq!(no_address(&node, Family::V4), None);
    assert_eq!(no_address(&node, Family::V6), None);
    node.pod_cidrs.push("fd00:10:244::/64".parse().unwrap());
    assert_eq!(
        no_address(&node, Family::V6).unwrap(),
        "podCIDR fd00:10:244::/64, but no IPv6 address"
    );
}
