use super::*;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

fn parse(value: &Value) -> Result<Config> {
    Config::parse(
        value.to_string().as_bytes(),
        &CniArgs::default(),
        Strictness::Full,
    )
}

fn with(fields: Value) -> Value {
    let mut value = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "kindnet-cni",
        "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1::/64"}]],
    });
    let object = value.as_object_mut().unwrap();
    for (key, field) in fields.as_object().unwrap() {
        object.insert(key.clone(), field.clone());
    }
    value
}

#[test]
fn defaults() {
    let config = parse(&with(json!({}))).unwrap();
    assert_eq!(config.state_dir(), PathBuf::from("/run/kindnet-cni/net"));
    assert_eq!(config.sets.len(), 2);
    assert_eq!((config.mtu, config.host_ports), (None, HostPorts::Auto));
    assert!(config.routes.is_none() && config.ports.is_empty() && config.requested.is_empty());
}

#[rstest]
#[case::no_version(json!({"cniVersion": ""}), 1)]
#[case::future_version(json!({"cniVersion": "2.0.0"}), 1)]
#[case::no_name(json!({"name": ""}), 7)]
#[case::name_leaves_the_folder(json!({"name": "../x"}), 7)]
#[case::relative_folder(json!({"dataDir": "x"}), 7)]
#[case::tiny_mtu(json!({"mtu": 67, "ranges": [[{"subnet": "10.1.2.0/24"}]]}), 7)]
#[case::mtu_without_ipv6(json!({"mtu": 1279}), 7)]
#[case::huge_mtu(json!({"mtu": 65536}), 7)]
#[case::wrong_type(json!({"mtu": "1500"}), 6)]
#[case::no_ranges(json!({"ranges": []}), 7)]
#[case::empty_set(json!({"ranges": [[]]}), 7)]
#[case::no_subnet(json!({"ranges": [[{"subnet": "10.1.2.0"}]]}), 6)]
#[case::too_small(json!({"ranges": [[{"subnet": "10.1.2.0/31"}]]}), 7)]
#[case::mixed_set(json!({"ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "fd00::/64"}]]}), 7)]
#[case::overlap(json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.2.128/25"}]]}), 7)]
#[case::start_outside(json!({"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}]]}), 7)]
#[case::end_before_start(
    json!({"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"}]]}), 7)]
#[case::foreign_gateway(json!({"ranges": [[{"subnet": "10.1.2.0/24", "gateway": "fd00::1"}]]}), 7)]
#[case::route_family(json!({"routes": [{"dst": "0.0.0.0/0", "gw": "fd00::1"}]}), 7)]
#[case::protocol(json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}}), 6)]
#[case::port(json!({"runtimeConfig": {"portMappings": [{"hostPort": 65536, "containerPort": 1}]}}), 7)]
#[case::negative_port(json!({"runtimeConfig": {"portMappings": [{"hostPort": -1, "containerPort": 1}]}}), 7)]
#[case::container_port(json!({"runtimeConfig": {"portMappings": [{"hostPort": 1}]}}), 7)]
#[case::host_ip(json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]}}), 7)]
#[case::requested(json!({"args": {"cni": {"ips": ["x"]}}}), 7)]
fn invalid(#[case] fields: Value, #[case] code: u32) {
    assert_eq!(parse(&with(fields)).unwrap_err().code(), code);
}

#[test]
fn what_is_invalid_does_not_keep_a_pod_from_being_deleted() {
    let json = with(json!({"ranges": [[{"subnet": "10.1.2.0/31"}]], "mtu": 1}));
    let config = Config::parse(
        json.to_string().as_bytes(),
        &CniArgs::default(),
        Strictness::Identity,
    );
    assert_eq!(config.unwrap().name, "net");
}

#[rstest]
#[case::containerd(json!({"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}))]
#[case::spec(json!({"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}))]
#[case::no_protocol(json!({"hostPort": 8080, "containerPort": 80}))]
fn port_mappings_of_every_runtime(#[case] mapping: Value) {
    let config = parse(&with(json!({"runtimeConfig": {"portMappings": [mapping]}}))).unwrap();
    assert_eq!(
        config.ports,
        [PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: None
        }]
    );
}

#[test]
fn container_ports_without_a_host_port_are_left_out() {
    let ports = json!({"runtimeConfig": {"portMappings": [{"HostPort": 0, "ContainerPort": 80}]}});
    assert!(parse(&with(ports)).unwrap().ports.is_empty());
}

#[rstest]
#[case(None, true, true)]
#[case(Some("0.0.0.0"), true, false)]
#[case(Some("::"), false, true)]
#[case(Some("127.0.0.1"), true, false)]
#[case(Some("fd00::1"), false, true)]
fn families_of_a_host_ip(#[case] ip: Option<&str>, #[case] v4: bool, #[case] v6: bool) {
    let mapping = PortMapping {
        host_port: 1,
        container_port: 1,
        protocol: Protocol::Udp,
        host_ip: ip.map(|ip| ip.parse().unwrap()),
    };
    assert_eq!((mapping.serves(true), mapping.serves(false)), (v4, v6));
}

#[test]
fn requested_addresses_come_from_three_places() {
    let json = with(json!({
        "args": {"cni": {"ips": ["10.1.2.9/24"]}},
        "runtimeConfig": {"ips": ["fd00:1::9"]},
    }));
    let args =
        CniArgs::parse("IgnoreUnknown=1;IP=10.1.2.9;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b").unwrap();
    assert_eq!(args.pod.as_deref(), Some("a/b"));
    let config = Config::parse(json.to_string().as_bytes(), &args, Strictness::Full).unwrap();
    let expected: Vec<IpAddr> = vec!["fd00:1::9".parse().unwrap(), "10.1.2.9".parse().unwrap()];
    assert_eq!(config.requested, expected);
}

#[test]
fn cni_args_without_a_value_are_an_error() {
    assert_eq!(CniArgs::parse("A=1;B").unwrap_err().code(), 4);
    assert_eq!(CniArgs::parse("").unwrap(), CniArgs::default());
}

/// Any JSON at all.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[0-9a-f.:/]{0,12}".prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(
                "subnet|rangeStart|rangeEnd|gateway|dst|gw|hostPort|portMappings|ips|cni|.{0,5}",
                inner,
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = Config::parse(&bytes, &CniArgs::default(), Strictness::Full);
        let _ = Config::parse(&bytes, &CniArgs::default(), Strictness::Identity);
    }

    #[test]
    fn any_field_is_read_or_refused(
        key in "ranges|routes|mtu|dataDir|hostPorts|runtimeConfig|args|prevResult|dns|name|cniVersion|cni\\.dev/valid-attachments",
        value in any_json(),
    ) {
        let _ = parse(&with(json!({key: value})));
    }

    #[test]
    fn any_range_is_refused_or_hands_out_addresses_of_its_subnet(
        address in any::<u128>(), v6 in any::<bool>(), length in 0u8..=128,
        start in prop::option::of(any::<u128>()), end in prop::option::of(any::<u128>()),
    ) {
        let ip = |bits: u128| -> IpAddr {
            if v6 { std::net::Ipv6Addr::from_bits(bits).into() }
            else { std::net::Ipv4Addr::from_bits(bits as u32).into() }
        };
        let length = if v6 { length } else { length % 33 };
        let subnet = format!("{}/{length}", ip(address));
        let range = json!({"subnet": subnet, "rangeStart": start.map(ip), "rangeEnd": end.map(ip)});
        if let Ok(config) = parse(&with(json!({"ranges": [[range]]}))) {
            let range = config.sets[0].ranges().next().unwrap();
            let subnet: IpNet = subnet.parse().unwrap();
            for index in [0, range.size() - 1] {
                prop_assert!(subnet.contains(&range.address(index)));
                prop_assert_eq!(range.index(range.address(index)), Some(index));
            }
        }
    }

    #[test]
    fn any_cni_args_are_read_or_refused(text in ".{0,64}") {
        let _ = CniArgs::parse(&text);
    }
}
