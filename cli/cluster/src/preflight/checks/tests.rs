use super::*;
use crate::docker::{Facts, Network};
use crate::names::Role;
use crate::preflight::Host;
use crate::spec::Settings;

fn spec(family: IpFamily, workers: usize) -> ClusterSpec {
    let name = "kind".into();
    ClusterSpec::new(&Settings {
        name,
        family,
        workers,
        ..Settings::default()
    })
    .unwrap()
}

fn good() -> Observed {
    Observed {
        facts: Facts {
            runtime: "runc".into(),
            ..Facts::default()
        },
        remote: None,
        nodes: Vec::new(),
        taken: Vec::new(),
        network: Some(network(&["172.18.0.0/16", "fc00:f853:ccd:e793::/64"], &[])),
        node_image: None,
        kindnet_image: None,
        host: Some(Host {
            v6_disabled: false,
            v6_loopback: true,
            inotify_instances: Some(512),
            inotify_watches: Some(524_288),
        }),
    }
}

fn network(subnets: &[&str], containers: &[&str]) -> Network {
    let subnets: Vec<ipnet::IpNet> = subnets.iter().map(|s| s.parse().unwrap()).collect();
    Network {
        id: "id".into(),
        name: "kind".into(),
        has_v6: subnets.iter().any(|s| matches!(s, ipnet::IpNet::V6(_))),
        subnets,
        containers: containers.iter().map(|&c| c.to_owned()).collect(),
    }
}

/// Runs all checks: the messages and hints of those that fail.
fn run(spec: &ClusterSpec, observed: &Observed) -> Vec<(String, String)> {
    ALL.iter()
        .filter_map(|check| check(spec, observed).err())
        .map(|e| {
            (
                e.to_string(),
                e.hint_text().expect("every failure has a cure").to_owned(),
            )
        })
        .collect()
}

fn fails_with(spec: &ClusterSpec, observed: &Observed, message: &str, hint: &str) {
    let found = run(spec, observed);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.contains(message), "{}", found[0].0);
    assert!(found[0].1.contains(hint), "{}", found[0].1);
}

#[test]
fn a_good_machine_passes_in_every_family() {
    for family in [IpFamily::Ipv4, IpFamily::Ipv6, IpFamily::Dual] {
        assert!(run(&spec(family, 3), &good()).is_empty());
    }
}

#[test]
fn a_cluster_of_that_name() {
    let node = crate::list::Node {
        name: "kind-control-plane".into(),
        cluster: "kind".into(),
        role: Role::ControlPlane,
        state: "exited".into(),
        image: String::new(),
        id: String::new(),
        ipv4: None,
        ipv6: None,
    };
    let taken = vec![node.name.clone()];
    let observed = Observed {
        nodes: vec![node],
        taken,
        ..good()
    };
    let spec = spec(IpFamily::Ipv4, 0);
    fails_with(
        &spec,
        &observed,
        "there is a cluster named \"kind\" already",
        "kindnetctl down",
    );
}

#[test]
fn another_container_of_that_name() {
    let observed = Observed {
        taken: vec!["kind-worker".into()],
        ..good()
    };
    let hint = "docker rm -f kind-worker";
    fails_with(
        &spec(IpFamily::Ipv4, 1),
        &observed,
        "other containers have: kind-worker",
        hint,
    );
}

#[test]
fn a_network_without_ipv6() {
    let unused = Observed {
        network: Some(network(&["172.18.0.0/16"], &[])),
        ..good()
    };
    let used = Observed {
        network: Some(network(&["172.18.0.0/16"], &["a-worker"])),
        ..good()
    };
    let message = "the Docker network \"kind\" has no IPv6";
    for family in [IpFamily::Ipv6, IpFamily::Dual] {
        fails_with(&spec(family, 0), &unused, message, "docker network rm kind");
        fails_with(&spec(family, 0), &used, message, "used by a-worker");
    }
    assert!(run(&spec(IpFamily::Ipv4, 0), &unused).is_empty());
}

#[test]
fn a_host_without_ipv6() {
    let host = Host {
        v6_disabled: true,
        ..good().host.unwrap()
    };
    let observed = Observed {
        host: Some(host),
        ..good()
    };
    fails_with(
        &spec(IpFamily::Dual, 0),
        &observed,
        "no IPv6",
        "disable_ipv6=0",
    );
    assert!(run(&spec(IpFamily::Ipv4, 0), &observed).is_empty());
    let host = Host {
        v6_loopback: false,
        ..good().host.unwrap()
    };
    let observed = Observed {
        host: Some(host),
        ..good()
    };
    fails_with(
        &spec(IpFamily::Ipv6, 0),
        &observed,
        "loopback",
        "lo.disable_ipv6=0",
    );
    assert!(run(&spec(IpFamily::Dual, 0), &observed).is_empty());
}

#[test]
fn overlapping_subnets() {
    let observed = Observed {
        network: Some(network(&["10.244.0.0/16"], &[])),
        ..good()
    };
    let message = "--pod-subnet 10.244.0.0/16 overlaps with the Docker network \"kind\"";
    fails_with(&spec(IpFamily::Ipv4, 0), &observed, message, "--pod-subnet");
}

#[test]
fn low_inotify_limits() {
    let host = Host {
        inotify_instances: Some(64),
        ..good().host.unwrap()
    };
    let observed = Observed {
        host: Some(host),
        ..good()
    };
    let message = "fs.inotify.max_user_instances is 64, too little for 4 nodes";
    fails_with(
        &spec(IpFamily::Ipv4, 3),
        &observed,
        message,
        "max_user_instances=512",
    );
}

#[test]
fn daemons_that_cannot() {
    let with = |facts: Facts| Observed { facts, ..good() };
    let spec = spec(IpFamily::Ipv4, 0);
    let rootless = Facts {
        rootless: true,
        cgroup_v1: true,
        ..Facts::default()
    };
    fails_with(
        &spec,
        &with(rootless),
        "needs cgroup v2",
        "unified_cgroup_hierarchy",
    );
    let rootless = Facts {
        rootless: true,
        can_limit: false,
        ..Facts::default()
    };
    fails_with(&spec, &with(rootless), "may not limit", "Delegate=yes");
    let sandbox = Facts {
        runtime: "runsc".into(),
        ..Facts::default()
    };
    fails_with(&spec, &with(sandbox), "runsc", "runc");
    let remote = Observed {
        remote: Some("tcp://192.0.2.1:2375".into()),
        ..good()
    };
    fails_with(&spec, &remote, "another machine", "on that machine");
}

#[test]
fn a_new_kubernetes_on_cgroup_v1_is_a_warning() {
    let observed = Observed {
        facts: Facts {
            cgroup_v1: true,
            ..Facts::default()
        },
        ..good()
    };
    let spec = spec(IpFamily::Ipv4, 0);
    let count = |text| warnings(&spec, &observed, KubeVersion::parse(text).as_ref()).len();
    assert_eq!((count("v1.34.0"), count("v1.35.0")), (0, 1));
}
