use super::*;
use rstest::rstest;

fn nets(text: &str) -> Vec<IpNet> {
    text.split(',').map(|net| net.parse().unwrap()).collect()
}

fn addresses(family: IpFamily) -> Vec<IpAddr> {
    let v4 = Some("172.18.0.2".parse().unwrap());
    let v6 = Some("fc00:f853:ccd:e793::2".parse().unwrap());
    node_addresses(v4, v6, family, &nets(family.default_service_subnet()))
}

struct Case {
    version: &'static str,
    family: IpFamily,
    role: Role,
    cgroup_v1: bool,
    rootless: bool,
}

fn render(case: &Case) -> String {
    let version = KubeVersion::parse(case.version).unwrap();
    let (pods, services) = (
        nets(case.family.default_pod_subnet()),
        nets(case.family.default_service_subnet()),
    );
    Input {
        version: &version,
        cluster: "kind",
        node: match case.role {
            Role::ControlPlane => "kind-control-plane",
            _ => "kind-worker",
        },
        role: case.role,
        addresses: &addresses(case.family),
        family: case.family,
        pod_subnets: &pods,
        service_subnets: &services,
        cgroup_v1: case.cgroup_v1,
        rootless: case.rootless,
    }
    .render()
}

#[rstest]
fn control_planes(
    #[values("v1.20.2", "v1.22.17", "v1.34.0", "v1.36.1")] version: &'static str,
    #[values(IpFamily::Ipv4, IpFamily::Ipv6, IpFamily::Dual)] family: IpFamily,
) {
    let text = render(&Case {
        version,
        family,
        role: Role::ControlPlane,
        cgroup_v1: false,
        rootless: false,
    });
    insta::assert_snapshot!(format!("{version}-{family}"), text);
}

#[rstest]
#[case::worker("worker", "v1.36.1", Role::Worker, false, false)]
#[case::cgroup_v1("cgroup-v1", "v1.35.0", Role::ControlPlane, true, false)]
#[case::rootless("rootless", "v1.36.1", Role::ControlPlane, false, true)]
fn variants(
    #[case] name: &str,
    #[case] version: &'static str,
    #[case] role: Role,
    #[case] cgroup_v1: bool,
    #[case] rootless: bool,
) {
    let family = IpFamily::Dual;
    let case = Case {
        version,
        family,
        role,
        cgroup_v1,
        rootless,
    };
    insta::assert_snapshot!(name, render(&case));
}

#[rstest]
#[case("v1.22.17", ApiVersion::V1Beta2)]
#[case("v1.23.0", ApiVersion::V1Beta3)]
#[case("v1.35.8", ApiVersion::V1Beta3)]
#[case("v1.36.0-alpha.1", ApiVersion::V1Beta4)]
#[case("v1.37.0", ApiVersion::V1Beta4)]
fn api_versions(#[case] version: &str, #[case] expected: ApiVersion) {
    assert_eq!(
        ApiVersion::of(&KubeVersion::parse(version).unwrap()),
        expected
    );
}

#[test]
fn an_old_kubelet_is_not_told_about_a_field_it_does_not_know() {
    let text = render(&Case {
        version: "v1.34.0",
        family: IpFamily::Ipv4,
        role: Role::ControlPlane,
        cgroup_v1: true,
        rootless: false,
    });
    assert!(!text.contains("failCgroupV1"), "{text}");
}

#[test]
fn the_first_service_subnet_orders_the_addresses() {
    let v4: IpAddr = "172.18.0.2".parse().unwrap();
    let v6: IpAddr = "fc00::2".parse().unwrap();
    let order = |services| node_addresses(Some(v4), Some(v6), IpFamily::Dual, &nets(services));
    assert_eq!(order("10.96.0.0/16,fd00:10:96::/112"), [v4, v6]);
    assert_eq!(order("fd00:10:96::/112,10.96.0.0/16"), [v6, v4]);
}

#[test]
fn every_document_is_read_back() {
    let text = render(&Case {
        version: "v1.36.1",
        family: IpFamily::Dual,
        role: Role::ControlPlane,
        cgroup_v1: false,
        rootless: false,
    });
    let kinds: Vec<String> = kindnet_api::yaml::documents::<serde_json::Value>(&text)
        .unwrap()
        .iter()
        .map(|document| document["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds,
        [
            "ClusterConfiguration",
            "InitConfiguration",
            "JoinConfiguration",
            "KubeletConfiguration",
            "KubeProxyConfiguration"
        ]
    );
}

/// kubeadm reads YAML 1.1, where these words are no strings unless they are quoted.
#[rstest]
#[case("on")]
#[case("yes")]
#[case("n")]
#[case("null")]
#[case("1e3")]
#[case("0x1f")]
#[case("012")]
#[case("1.5")]
#[case("2020-01-01")]
#[case(".inf")]
fn a_cluster_name_stays_a_string(#[case] cluster: &str) {
    let version = KubeVersion::parse("v1.36.1").unwrap();
    let text = Input {
        version: &version,
        cluster,
        node: "node",
        role: Role::ControlPlane,
        addresses: &addresses(IpFamily::Ipv4),
        family: IpFamily::Ipv4,
        pod_subnets: &nets("10.244.0.0/16"),
        service_subnets: &nets("10.96.0.0/16"),
        cgroup_v1: false,
        rootless: false,
    }
    .render();
    let line = text
        .lines()
        .find(|line| line.starts_with("clusterName:"))
        .unwrap();
    assert!(line.ends_with(['\'', '"']), "{line}");
}
