use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn settings(family: IpFamily) -> Settings {
    Settings {
        name: "kind".into(),
        family,
        workers: 1,
        ..Settings::default()
    }
}

#[rstest]
#[case(IpFamily::Ipv4)]
#[case(IpFamily::Ipv6)]
#[case(IpFamily::Dual)]
fn the_defaults_are_valid(#[case] family: IpFamily) {
    ClusterSpec::new(&settings(family)).unwrap();
}

#[rstest]
#[case(
    IpFamily::Ipv4,
    "10.0.0.0",
    r#"--pod-subnet: "10.0.0.0" is not a prefix such as 10.244.0.0/16"#
)]
#[case(
    IpFamily::Ipv4,
    "fd00::/56",
    "--pod-subnet: fd00::/56 is IPv6, but --ipfamily is ipv4"
)]
#[case(
    IpFamily::Ipv6,
    "10.0.0.0/16",
    "--pod-subnet: 10.0.0.0/16 is IPv4, but --ipfamily is ipv6"
)]
#[case(
    IpFamily::Ipv4,
    "10.0.0.0/16,10.1.0.0/16",
    r#"--pod-subnet: "10.0.0.0/16,10.1.0.0/16" has more than one IPv4 prefix"#
)]
#[case(
    IpFamily::Dual,
    "10.0.0.0/16,10.1.0.0/16",
    r#"--pod-subnet: "10.0.0.0/16,10.1.0.0/16" has more than one IPv4 prefix"#
)]
#[case(
    IpFamily::Ipv4,
    "10.0.0.1/16",
    "--pod-subnet: 10.0.0.1/16 has bits set behind its prefix: use 10.0.0.0/16"
)]
#[case(
    IpFamily::Ipv4,
    "10.0.0.0/25",
    "--pod-subnet: 10.0.0.0/25 must have a prefix from /8 to /24: each node gets a /24 out of it"
)]
#[case(
    IpFamily::Ipv6,
    "fd00::/40",
    "--pod-subnet: fd00::/40 must have a prefix from /48 to /64: each node gets a /64 out of it"
)]
#[case(
    IpFamily::Ipv4,
    "10.0.0.0/24",
    "--pod-subnet: 10.0.0.0/24 has room for 1 nodes of a /24 each, not 2"
)]
#[case(
    IpFamily::Ipv4,
    "10.96.0.0/12",
    "--pod-subnet 10.96.0.0/12 overlaps with --service-subnet 10.96.0.0/16"
)]
fn bad_pod_subnets(#[case] family: IpFamily, #[case] subnet: &str, #[case] message: &str) {
    let settings = Settings {
        pod_subnet: Some(subnet.into()),
        ..settings(family)
    };
    assert_eq!(
        ClusterSpec::new(&settings).unwrap_err().to_string(),
        message
    );
}

#[rstest]
#[case(IpFamily::Dual, "fd00:10:97::/112")]
#[case(IpFamily::Dual, "fd00:10:97::/112, 10.97.0.0/16")]
#[case(IpFamily::Ipv4, "10.97.0.0/12")]
fn good_service_subnets(#[case] family: IpFamily, #[case] subnet: &str) {
    let settings = Settings {
        service_subnet: Some(subnet.replace("10.97.0.0/12", "10.112.0.0/12")),
        ..settings(family)
    };
    ClusterSpec::new(&settings).unwrap();
}

#[rstest]
#[case("fd00:10:97::/64")]
#[case("fd00:10:97::/126")]
fn bad_service_subnets(#[case] subnet: &str) {
    let settings = Settings {
        service_subnet: Some(subnet.into()),
        ..settings(IpFamily::Ipv6)
    };
    let error = ClusterSpec::new(&settings).unwrap_err().to_string();
    assert!(error.contains("from /108 to /124"), "{error}");
}

#[rstest]
#[case("kind", true)]
#[case("a.b-1", true)]
#[case("0", true)]
#[case("", false)]
#[case("Kind", false)]
#[case("a_b", false)]
#[case("-a", false)]
#[case("ä", false)]
#[case("a-", true)]
#[case("a.-b", false)]
#[case("a-.b", false)]
#[case("a..b", false)]
#[case("a.", false)]
#[case("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeee", true)]
#[case("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee", false)]
fn cluster_names(#[case] name: &str, #[case] good: bool) {
    assert_eq!(check_name(name).is_ok(), good);
}

#[test]
fn every_problem_is_named_at_once() {
    let settings = Settings {
        name: "No".into(),
        pod_subnet: Some("x".into()),
        service_subnet: Some("y".into()),
        image: Some("a b".into()),
        ..settings(IpFamily::Ipv4)
    };
    let error = ClusterSpec::new(&settings).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 4, "{error}");
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any::<u32>(), 0u8..=32)
        .prop_map(|(bits, length)| IpNet::new_assert(Ipv4Addr::from(bits).into(), length).trunc())
}

proptest! {
    #[test]
    fn overlap_means_an_address_in_common(a in any_net(), b in any_net()) {
        let range = |net: &IpNet| match net {
            IpNet::V4(net) => (u32::from(net.network()), u32::from(net.broadcast())),
            IpNet::V6(_) => unreachable!("only IPv4 is generated"),
        };
        let (a_range, b_range) = (range(&a), range(&b));
        let common = a_range.0.max(b_range.0) <= a_range.1.min(b_range.1);
        prop_assert_eq!(overlap(&a, &b), common);
        prop_assert_eq!(overlap(&b, &a), common);
    }
}
