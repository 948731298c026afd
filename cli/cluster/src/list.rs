//! Clusters and nodes, as the labels of the containers tell.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use kindnet_ui::UserError;
use serde::Serialize;

use crate::docker::Engine;
use crate::error::{Doing as _, Result};
use crate::names::{self, Role};

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Name.
    pub name: String,
    /// Its containers.
    pub nodes: Vec<Node>,
}

/// A container of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Name of the container, host and Kubernetes node.
    pub name: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Role.
    pub role: Role,
    /// State of the container: `running`, `exited`, ...
    pub state: String,
    /// Image.
    pub image: String,
    /// Identifier of the container.
    #[serde(skip)]
    pub id: String,
    /// IPv4 address on its Docker network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<IpAddr>,
    /// IPv6 address on its Docker network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<IpAddr>,
}

impl Node {
    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }
}

impl Engine {
    /// All clusters, sorted by name.
    ///
    /// # Errors
    /// The daemon refuses.
    pub async fn clusters(&self) -> Result<Vec<Cluster>> {
        let mut clusters: BTreeMap<String, Vec<Node>> = BTreeMap::new();
        for node in self.containers(names::CLUSTER_LABEL.to_owned()).await? {
            clusters.entry(node.cluster.clone()).or_default().push(node);
        }
        Ok(clusters
            .into_iter()
            .map(|(name, nodes)| Cluster { name, nodes })
            .collect())
    }

    /// The containers of a cluster, stopped ones too, sorted by name; none when there is no such
    /// cluster.
    ///
    /// # Errors
    /// The daemon refuses.
    pub async fn nodes(&self, cluster: &str) -> Result<Vec<Node>> {
        self.containers(format!("{}={cluster}", names::CLUSTER_LABEL))
            .await
    }

    /// As [`Engine::nodes`], for who cannot go on without the cluster.
    ///
    /// # Errors
    /// There is no such cluster; the daemon refuses.
    pub async fn existing_nodes(&self, cluster: &str) -> Result<Vec<Node>> {
        let nodes = self.nodes(cluster).await?;
        if !nodes.is_empty() {
            return Ok(nodes);
        }
        let others: Vec<String> = self.clusters().await?.into_iter().map(|c| c.name).collect();
        let hint = if others.is_empty() {
            "there is no cluster at all; make one with `kindnetctl up`".to_owned()
        } else {
            format!("there is {}; choose with --name", others.join(", "))
        };
        Err(UserError::usage(format!("there is no cluster named {cluster:?}")).hint(hint))
    }

    async fn containers(&self, label: String) -> Result<Vec<Node>> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = self
            .docker
            .list_containers(Some(options))
            .await
            .doing(|| "cannot list the containers".into())?;
        let mut nodes: Vec<Node> = found.into_iter().filter_map(node).collect();
        nodes.sort_by_key(|node| natural(&node.name));
        Ok(nodes)
    }

    /// Everything the daemon knows about a container.
    ///
    /// # Errors
    /// The daemon refuses, or there is no such container.
    pub async fn inspect(&self, container: &str) -> Result<ContainerInspectResponse> {
        self.docker
            .inspect_container(container, None::<InspectContainerOptions>)
            .await
            .doing(|| format!("cannot inspect {container}"))
    }

    /// Where the API server of a cluster is published, and the node it is published by.
    ///
    /// # Errors
    /// The cluster has no single control plane or load balancer, or it does not run.
    pub async fn api_server(&self, cluster: &str) -> Result<(String, String)> {
        let nodes = self.existing_nodes(cluster).await?;
        let endpoint = endpoint_node(&nodes)?;
        let inspected = self.inspect(&endpoint.id).await?;
        let server = published(&inspected).ok_or_else(|| {
            UserError::failure(format!("{} does not publish its API server", endpoint.name))
                .hint(format!("is it running? `docker start {}`", endpoint.name))
        })?;
        Ok((server, endpoint.name.clone()))
    }
}

/// `kind-worker10` after `kind-worker9`.
fn natural(name: &str) -> (String, u64) {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (bare.to_owned(), name[bare.len()..].parse().unwrap_or(0))
}

fn node(container: ContainerSummary) -> Option<Node> {
    let labels = container.labels.unwrap_or_default();
    let endpoints = container
        .network_settings
        .and_then(|s| s.networks)
        .unwrap_or_default();
    let address = |pick: fn(&bollard::models::EndpointSettings) -> Option<&String>| {
        endpoints
            .values()
            .filter_map(pick)
            .find_map(|text| text.parse().ok())
    };
    Some(Node {
        name: container.names?.first()?.trim_start_matches('/').to_owned(),
        cluster: labels.get(names::CLUSTER_LABEL)?.clone(),
        role: Role::from_label(labels.get(names::ROLE_LABEL).map_or("", String::as_str)),
        state: container
            .state
            .map(|state| state.to_string())
            .unwrap_or_default(),
        image: container.image.unwrap_or_default(),
        id: container.id.unwrap_or_default(),
        ipv4: address(|endpoint| endpoint.ip_address.as_ref()),
        ipv6: address(|endpoint| endpoint.global_ipv6_address.as_ref()),
    })
}

/// The load balancer, or the only control plane.
fn endpoint_node(nodes: &[Node]) -> Result<&Node> {
    let of = |role| {
        nodes
            .iter()
            .filter(move |node| node.role == role)
            .collect::<Vec<_>>()
    };
    let (balancers, planes) = (of(Role::ExternalLoadBalancer), of(Role::ControlPlane));
    match (balancers.as_slice(), planes.as_slice()) {
        ([only], _) | ([], [only]) => Ok(only),
        ([], []) => Err(UserError::failure("the cluster has no control plane")),
        ([], _) => Err(UserError::failure(
            "the cluster has several control planes and no load balancer",
        )),
        _ => Err(UserError::failure(
            "the cluster has more than one load balancer",
        )),
    }
}

/// URL of the published API server.
fn published(container: &ContainerInspectResponse) -> Option<String> {
    let port = format!("{}/tcp", names::API_PORT);
    let labels = container
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    // Docker Desktop forwards to another address than the one it reports.
    if let Some(address) = labels.and_then(|l| l.get(&format!("desktop.docker.io/ports/{port}"))) {
        return Some(format!("https://{address}"));
    }
    let ports = container.network_settings.as_ref()?.ports.as_ref()?;
    let binding = ports.get(&port)?.as_ref()?.first()?;
    let (host, port) = (binding.host_ip.as_deref()?, binding.host_port.as_deref()?);
    let address = match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port.parse().ok()?).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    Some(format!("https://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerConfig, NetworkSettings, PortBinding};
    use rstest::rstest;

    fn with_role(name: &str, role: Role) -> Node {
        Node {
            name: name.into(),
            cluster: "kind".into(),
            role,
            state: "running".into(),
            image: String::new(),
            id: name.into(),
            ipv4: None,
            ipv6: None,
        }
    }

    #[test]
    fn the_load_balancer_is_the_endpoint_where_there_is_one() {
        let lb = with_role("lb", Role::ExternalLoadBalancer);
        let (a, b) = (
            with_role("a", Role::ControlPlane),
            with_role("b", Role::ControlPlane),
        );
        let worker = with_role("w", Role::Worker);
        assert_eq!(endpoint_node(&[a.clone(), worker]).unwrap().name, "a");
        assert_eq!(
            endpoint_node(&[a.clone(), b.clone(), lb.clone()])
                .unwrap()
                .name,
            "lb"
        );
        assert!(endpoint_node(&[a, b]).is_err());
        assert!(endpoint_node(&[lb.clone(), lb]).is_err());
    }

    #[rstest]
    #[case("127.0.0.1", "https://127.0.0.1:40000")]
    #[case("::1", "https://[::1]:40000")]
    #[case("0.0.0.0", "https://0.0.0.0:40000")]
    fn published_addresses(#[case] host: &str, #[case] url: &str) {
        let binding = PortBinding {
            host_ip: Some(host.into()),
            host_port: Some("40000".into()),
        };
        let container = ContainerInspectResponse {
            network_settings: Some(NetworkSettings {
                ports: Some(HashMap::from([("6443/tcp".into(), Some(vec![binding]))])),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        };
        assert_eq!(published(&container).as_deref(), Some(url));
        let label = (
            "desktop.docker.io/ports/6443/tcp".into(),
            "127.0.0.1:50000".into(),
        );
        let desktop = ContainerInspectResponse {
            config: Some(ContainerConfig {
                labels: Some(HashMap::from([label])),
                ..ContainerConfig::default()
            }),
            ..container
        };
        assert_eq!(
            published(&desktop).as_deref(),
            Some("https://127.0.0.1:50000")
        );
    }

    #[test]
    fn names_sort_by_their_number() {
        let mut names = [
            "kind-worker10",
            "kind-worker2",
            "kind-worker",
            "kind-control-plane",
        ];
        names.sort_by_key(|name| natural(name));
        assert_eq!(
            names,
            [
                "kind-control-plane",
                "kind-worker",
                "kind-worker2",
                "kind-worker10"
            ]
        );
    }
}
