//! What the cluster says about itself.

use std::net::IpAddr;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use kindnet_api::node::{Family, NodeInfo};
use kindnet_api::{Configuration, names};
use kindnet_ui::UserError;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::options::NodeChoice;

/// A Linux node that can run check pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Addresses and subnets.
    pub info: NodeInfo,
    /// `spec.providerID`; `kind://docker/CLUSTER/NODE` for nodes that are Docker containers.
    pub provider_id: String,
    control_plane: bool,
}

/// What a run needs to know.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Ready nodes, in the order they are chosen.
    pub nodes: Vec<ClusterNode>,
    /// Nodes that are left out, with the reason.
    pub left_out: Vec<String>,
    /// Image of the check pods.
    pub image: String,
    /// Addresses of the Service `kubernetes`.
    pub kubernetes: Vec<IpAddr>,
    /// Why there is no cluster DNS.
    pub no_dns: Option<String>,
    /// Nodes with a ready pod behind the Service kube-dns.
    pub dns_nodes: Vec<String>,
    /// Why kindnet's own configuration is not to be expected.
    pub not_kindnet: Option<String>,
    /// Whether pods keep their address when they leave the cluster.
    pub masquerade_off: bool,
}

impl Cluster {
    /// Reads the cluster.
    ///
    /// # Errors
    /// No API server, no right to read nodes, no node that is ready.
    pub async fn read(client: &Client, image: Option<&str>) -> Result<Self, UserError> {
        let all = ListParams::default();
        let nodes = Api::<Node>::all(client.clone());
        let services = Api::<Service>::namespaced(client.clone(), "default");
        let dns = Api::<Service>::namespaced(client.clone(), names::NAMESPACE);
        let endpoints = Api::<Endpoints>::namespaced(client.clone(), names::NAMESPACE);
        let configurations = Api::<Configuration>::namespaced(client.clone(), names::NAMESPACE);
        let agents = Api::<DaemonSet>::namespaced(client.clone(), names::NAMESPACE);
        let (nodes, kubernetes, dns, endpoints, configuration, agent) = futures_util::join!(
            nodes.list(&all),
            services.get_opt("kubernetes"),
            dns.get_opt("kube-dns"),
            endpoints.get_opt("kube-dns"),
            configurations.get_opt(names::CONFIGURATION_NAME),
            agents.get_opt(names::AGENT_NAME),
        );
        let listed = nodes.map_err(|error| api_error("the nodes cannot be listed", error))?;
        let (mut nodes, mut left_out) = (Vec::new(), Vec::new());
        for node in &listed.items {
            match usable(node) {
                Ok(()) => nodes.push(cluster_node(node)),
                Err(reason) => {
                    let name = node.metadata.name.as_deref().unwrap_or_default();
                    left_out.push(format!("{name} ({reason})"));
                }
            }
        }
        if nodes.is_empty() {
            return Err(
                UserError::usage(format!("no node is ready: {}", left_out.join(", "))).hint(
                    "`kubectl describe node` shows what they wait for; where it is a network \
                         plugin, `kindnetctl install` brings one",
                ),
            );
        }
        nodes.sort_by(|a, b| (a.control_plane, &a.info.name).cmp(&(b.control_plane, &b.info.name)));
        // No Configuration, or no right to read it, or no such kind: the checks work without.
        let configuration = configuration.ok().flatten();
        let agent = agent.ok().flatten();
        let dns_nodes = endpoints
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .map(nodes_of);
        // One without a ready pod behind it is asked all the same, and fails.
        let no_dns = matches!(dns, Ok(None)).then(|| "there is no Service kube-dns".to_owned());
        Ok(Self {
            image: image
                .map(str::to_owned)
                .or_else(|| {
                    configuration
                        .as_ref()
                        .map(|c| c.spec.kindnetd_image.clone())
                })
                .or_else(|| agent.as_ref().and_then(agent_image))
                .unwrap_or_else(|| names::DEFAULT_IMAGE.to_owned()),
            nodes,
            left_out,
            kubernetes: kubernetes
                .ok()
                .flatten()
                .as_ref()
                .map(cluster_ips)
                .unwrap_or_default(),
            no_dns,
            dns_nodes: dns_nodes.unwrap_or_default(),
            not_kindnet: (configuration.is_none() && agent.is_none()).then(|| {
                format!(
                    "kindnet is not installed: no DaemonSet {}/{}",
                    names::NAMESPACE,
                    names::AGENT_NAME
                )
            }),
            masquerade_off: configuration.is_some_and(|c| !c.spec.masquerade.enabled),
        })
    }

    /// The families pods have addresses of.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let has = |family: Family| {
            let of_pods = |n: &ClusterNode| n.info.pod_cidrs_of(family).next().is_some();
            self.nodes.iter().any(of_pods)
        };
        let found: Vec<Family> = Family::ALL.into_iter().filter(|f| has(*f)).collect();
        if !found.is_empty() {
            return found;
        }
        // A network that does not use podCIDRs: Services have the families of pods.
        let of_service = |f: &Family| self.kubernetes.iter().any(|ip| Family::of(*ip) == *f);
        Family::ALL.into_iter().filter(of_service).collect()
    }

    /// Positions of the nodes whose pods talk to each other.
    ///
    /// # Errors
    /// A node was named that is not there or not ready.
    pub fn choose(&self, choice: &NodeChoice) -> Result<Vec<usize>, UserError> {
        match choice {
            NodeChoice::Count(count) => Ok((0..self.nodes.len().min(*count)).collect()),
            NodeChoice::Names(names) => names
                .iter()
                .map(|name| {
                    self.nodes
                        .iter()
                        .position(|n| n.info.name == *name)
                        .ok_or_else(|| self.no_such_node(name))
                })
                .collect(),
        }
    }

    fn no_such_node(&self, name: &str) -> UserError {
        let ready: Vec<&str> = self.nodes.iter().map(|n| n.info.name.as_str()).collect();
        UserError::usage(format!("there is no ready node {name}"))
            .hint(format!("ready nodes: {}", ready.join(", ")))
    }
}

/// An error of the API server before anything was checked.
pub fn api_error(what: &str, error: kube::Error) -> UserError {
    let hint = match &error {
        kube::Error::Api(status) if status.code == 403 => {
            "verify needs a kubeconfig that may create namespaces and exec into pods"
        }
        kube::Error::Api(status) if status.code == 401 => {
            "the credentials of the kubeconfig are not accepted any more"
        }
        _ => "is the cluster running? `kubectl cluster-info` shows whether it answers",
    };
    UserError::usage(what).hint(hint).source(error)
}

fn usable(node: &Node) -> Result<(), &'static str> {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    if label("kubernetes.io/os").is_some_and(|os| os != "linux") {
        return Err("not Linux");
    }
    // Nodes without a kubelet that runs containers.
    if label("type").is_some_and(|t| t == "virtual-kubelet" || t == "kwok") {
        return Err("virtual");
    }
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions
        .filter(|c| c.type_ == "Ready")
        .any(|c| c.status == "True");
    if ready { Ok(()) } else { Err("not ready") }
}

fn cluster_node(node: &Node) -> ClusterNode {
    let labels = node.metadata.labels.as_ref();
    let has = |key: &str| labels.is_some_and(|l| l.contains_key(key));
    ClusterNode {
        info: NodeInfo::from_node(node),
        provider_id: node
            .spec
            .as_ref()
            .and_then(|s| s.provider_id.clone())
            .unwrap_or_default(),
        control_plane: has("node-role.kubernetes.io/control-plane")
            || has("node-role.kubernetes.io/master"),
    }
}

/// Addresses of a Service.
#[must_use]
pub fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let mut texts: Vec<&str> = spec
        .cluster_ips
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if texts.is_empty() {
        texts.extend(spec.cluster_ip.as_deref());
    }
    texts.iter().filter_map(|t| t.parse().ok()).collect()
}

fn nodes_of(endpoints: &Endpoints) -> Vec<String> {
    let subsets = endpoints.subsets.iter().flatten();
    let addresses = subsets.flat_map(|s| s.addresses.iter().flatten());
    let mut names: Vec<String> = addresses.filter_map(|a| a.node_name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn agent_image(agent: &DaemonSet) -> Option<String> {
    let spec = agent.spec.as_ref()?.template.spec.as_ref()?;
    spec.containers
        .iter()
        .find(|c| c.name == names::AGENT_NAME)
        .or_else(|| spec.containers.first())?
        .image
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn node(value: serde_json::Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[rstest]
    #[case(json!({}), "True", Ok(()))]
    #[case(json!({"kubernetes.io/os": "linux"}), "True", Ok(()))]
    #[case(json!({"kubernetes.io/os": "windows"}), "True", Err("not Linux"))]
    #[case(json!({"type": "virtual-kubelet"}), "True", Err("virtual"))]
    #[case(json!({}), "Unknown", Err("not ready"))]
    fn which_nodes_take_part(
        #[case] labels: serde_json::Value,
        #[case] ready: &str,
        #[case] expected: Result<(), &str>,
    ) {
        let node = node(json!({
            "metadata": {"name": "a", "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }));
        assert_eq!(usable(&node), expected);
    }

    #[test]
    fn addresses_of_a_service_before_and_after_dual_stack() {
        let old: Service =
            serde_json::from_value(json!({"spec": {"clusterIP": "10.96.0.1"}})).unwrap();
        assert_eq!(cluster_ips(&old).len(), 1);
        let new: Service = serde_json::from_value(
            json!({"spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"]}}),
        )
        .unwrap();
        assert_eq!(cluster_ips(&new).len(), 2);
        let headless: Service =
            serde_json::from_value(json!({"spec": {"clusterIP": "None"}})).unwrap();
        assert!(cluster_ips(&headless).is_empty());
    }
}
