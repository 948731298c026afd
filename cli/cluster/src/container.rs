//! The container of a node: everything kind passes to `docker run`, as an Engine API body.

use std::collections::HashMap;
use std::net::SocketAddr;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum, PortBinding,
    RestartPolicy, RestartPolicyNameEnum,
};

use crate::docker::Facts;
use crate::names::{self, Role};
use crate::spec::IpFamily;

/// Variable that overrides the snapshotter of containerd inside the nodes.
pub const SNAPSHOTTER_VARIABLE: &str = "KIND_EXPERIMENTAL_CONTAINERD_SNAPSHOTTER";

/// What the container depends on.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Name of the container, host and Kubernetes node.
    pub node: &'a str,
    /// Role of the node.
    pub role: Role,
    /// Node image.
    pub image: &'a str,
    /// Docker network.
    pub network: &'a str,
    /// Address families of the cluster.
    pub family: IpFamily,
    /// Address and port of this machine the API server is published on; control planes only. The
    /// port is explicit because one chosen by the daemon changes with every restart.
    pub publish: Option<SocketAddr>,
    /// Proxy variables, see [`crate::proxy`].
    pub proxy: &'a [(String, String)],
    /// Value of [`SNAPSHOTTER_VARIABLE`] of the caller.
    pub snapshotter: Option<&'a str>,
    /// What is known about the daemon.
    pub facts: &'a Facts,
}

/// The request body.
#[must_use]
pub fn body(input: &Input<'_>) -> ContainerCreateBody {
    let mut env: Vec<String> = input
        .proxy
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if let Some(snapshotter) = input.snapshotter {
        env.push(format!("{SNAPSHOTTER_VARIABLE}={snapshotter}"));
    }
    if input.role == Role::ControlPlane {
        env.push("KUBECONFIG=/etc/kubernetes/admin.conf".into());
    }

    let api_port = format!("{}/tcp", names::API_PORT);
    ContainerCreateBody {
        hostname: Some(input.node.to_owned()),
        image: Some(input.image.to_owned()),
        // The console of systemd ends up in the container's log.
        tty: Some(true),
        env: Some(env),
        // Anonymous, so that the removal of the container frees it.
        volumes: Some(vec!["/var".into()]),
        exposed_ports: input.publish.map(|_| vec![api_port.clone()]),
        labels: Some(HashMap::from([
            (names::CLUSTER_LABEL.into(), input.cluster.to_owned()),
            (names::ROLE_LABEL.into(), input.role.label().to_owned()),
        ])),
        host_config: Some(HostConfig {
            port_bindings: input.publish.map(|address| {
                let binding = PortBinding {
                    host_ip: Some(address.ip().to_string()),
                    host_port: Some(address.port().to_string()),
                };
                HashMap::from([(api_port, Some(vec![binding]))])
            }),
            ..host_config(input)
        }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(input: &Input<'_>) -> HostConfig {
    let facts = input.facts;
    let mut binds = vec!["/lib/modules:/lib/modules:ro".to_owned()];
    if facts.needs_dev_mapper() {
        binds.push("/dev/mapper:/dev/mapper".into());
    }
    let empty = |path: &str| (path.to_owned(), String::new());
    let on = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    HostConfig {
        privileged: Some(true),
        security_opt: Some(vec![
            "seccomp=unconfined".into(),
            "apparmor=unconfined".into(),
        ]),
        tmpfs: Some(HashMap::from([empty("/tmp"), empty("/run")])),
        binds: Some(binds),
        network_mode: Some(input.network.to_owned()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::ON_FAILURE),
            maximum_retry_count: Some(1),
        }),
        // Explicit: a daemon with `init: true` would put its own init in front of systemd.
        init: Some(false),
        // Explicit: the default is `host` on cgroup v1.
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        sysctls: input.family.has_v6().then(|| {
            HashMap::from([
                on("net.ipv6.conf.all.disable_ipv6", "0"),
                on("net.ipv6.conf.all.forwarding", "1"),
            ])
        }),
        userns_mode: facts.userns_remap.then(|| "host".into()),
        devices: facts.rootless.then(|| {
            vec![DeviceMapping {
                path_on_host: Some("/dev/fuse".into()),
                path_in_container: Some("/dev/fuse".into()),
                cgroup_permissions: Some("rwm".into()),
            }]
        }),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn plain() -> Facts {
        Facts {
            storage_driver: "overlay2".into(),
            backing_filesystem: "extfs".into(),
            ..Facts::default()
        }
    }

    fn input<'a>(family: IpFamily, role: Role, facts: &'a Facts) -> Input<'a> {
        Input {
            cluster: "kind",
            node: match role {
                Role::ControlPlane => "kind-control-plane",
                _ => "kind-worker",
            },
            role,
            image: "kindest/node:v1.36.1",
            network: "kind",
            family,
            publish: (role == Role::ControlPlane)
                .then(|| SocketAddr::new(family.api_server_address(), 40000)),
            proxy: &[],
            snapshotter: None,
            facts,
        }
    }

    fn snapshot(name: &str, input: &Input<'_>) {
        // Through a value, whose maps are sorted.
        let body = serde_json::to_value(body(input)).unwrap();
        insta::assert_snapshot!(name, serde_json::to_string_pretty(&body).unwrap());
    }

    #[rstest]
    #[case("ipv4-control-plane", IpFamily::Ipv4, Role::ControlPlane)]
    #[case("ipv4-worker", IpFamily::Ipv4, Role::Worker)]
    #[case("ipv6-control-plane", IpFamily::Ipv6, Role::ControlPlane)]
    #[case("ipv6-worker", IpFamily::Ipv6, Role::Worker)]
    #[case("dual-control-plane", IpFamily::Dual, Role::ControlPlane)]
    #[case("dual-worker", IpFamily::Dual, Role::Worker)]
    fn families(#[case] name: &str, #[case] family: IpFamily, #[case] role: Role) {
        snapshot(name, &input(family, role, &plain()));
    }

    #[test]
    fn proxies_and_a_snapshotter() {
        let proxy = [
            ("HTTP_PROXY".to_owned(), "http://proxy:3128".to_owned()),
            ("http_proxy".to_owned(), "http://proxy:3128".to_owned()),
        ];
        let facts = plain();
        let input = Input {
            proxy: &proxy,
            snapshotter: Some("native"),
            ..input(IpFamily::Ipv4, Role::Worker, &facts)
        };
        snapshot("proxy", &input);
    }

    #[test]
    fn remapped_users() {
        let facts = Facts {
            userns_remap: true,
            ..plain()
        };
        snapshot("userns", &input(IpFamily::Ipv4, Role::Worker, &facts));
    }

    #[test]
    fn btrfs() {
        let facts = Facts {
            backing_filesystem: "btrfs".into(),
            ..plain()
        };
        snapshot("btrfs", &input(IpFamily::Ipv4, Role::Worker, &facts));
    }

    #[test]
    fn rootless() {
        let facts = Facts {
            rootless: true,
            backing_filesystem: "btrfs".into(),
            ..plain()
        };
        snapshot("rootless", &input(IpFamily::Ipv4, Role::Worker, &facts));
    }
}
