//! Names and labels that kind gives to what it makes, so that either tool finds the other's
//! clusters. The forms are part of kind's interface and may not be changed.

use serde::Serialize;

/// Label with the name of the cluster.
pub const CLUSTER_LABEL: &str = "io.x-k8s.kind.cluster";

/// Label with the role of a node.
pub const ROLE_LABEL: &str = "io.x-k8s.kind.role";

/// Name of a cluster nobody named. Also kind's.
pub const DEFAULT_CLUSTER: &str = "kind";

/// Name of the Docker network all clusters share.
pub const DEFAULT_NETWORK: &str = "kind";

/// Port of the API server inside a control-plane node.
pub const API_PORT: u16 = 6443;

/// The bootstrap token. Well known on purpose: who can reach the API server of a cluster on this
/// machine can reach its Docker daemon as well.
pub const BOOTSTRAP_TOKEN: &str = "abcdef.0123456789abcdef";

/// First part of [`BOOTSTRAP_TOKEN`].
pub const BOOTSTRAP_TOKEN_ID: &str = "abcdef";

/// The node image of a cluster nobody chose one for.
pub const DEFAULT_NODE_IMAGE: &str = "kindest/node:v1.36.1@sha256:\
    3489c7674813ba5d8b1a9977baea8a6e553784dab7b84759d1014dbd78f7ebd5";

/// What a container of a cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs etcd and the API server.
    ControlPlane,
    /// Runs pods.
    Worker,
    /// Forwards to several control planes; no Kubernetes node.
    ExternalLoadBalancer,
    /// A container with the cluster's label and no role kind knows.
    Other,
}

impl Role {
    /// Value of [`ROLE_LABEL`].
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
            Self::ExternalLoadBalancer => "external-load-balancer",
            Self::Other => "",
        }
    }

    /// Reads a value of [`ROLE_LABEL`].
    #[must_use]
    pub fn from_label(label: &str) -> Self {
        [Self::ControlPlane, Self::Worker, Self::ExternalLoadBalancer]
            .into_iter()
            .find(|role| role.label() == label)
            .unwrap_or(Self::Other)
    }

    /// Whether the container is a Kubernetes node.
    #[must_use]
    pub const fn is_node(self) -> bool {
        matches!(self, Self::ControlPlane | Self::Worker)
    }
}

/// The nodes of a cluster with one control plane, in the order kind numbers them: the first of a
/// role has no number.
#[must_use]
pub fn node_names(cluster: &str, workers: usize) -> Vec<(String, Role)> {
    let mut nodes = vec![(control_plane(cluster), Role::ControlPlane)];
    nodes.extend((1..=workers).map(|i| {
        let number = if i == 1 { String::new() } else { i.to_string() };
        (format!("{cluster}-worker{number}"), Role::Worker)
    }));
    nodes
}

/// Name of the only control-plane node.
#[must_use]
pub fn control_plane(cluster: &str) -> String {
    format!("{cluster}-control-plane")
}

/// Name of the kubeconfig's cluster, user and context.
#[must_use]
pub fn context(cluster: &str) -> String {
    format!("kind-{cluster}")
}

/// The name of the Docker network, which `KIND_EXPERIMENTAL_DOCKER_NETWORK` overrides.
#[must_use]
pub fn network() -> String {
    std::env::var("KIND_EXPERIMENTAL_DOCKER_NETWORK")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| DEFAULT_NETWORK.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_role_has_no_number() {
        let names: Vec<_> = node_names("a.b", 3).into_iter().map(|n| n.0).collect();
        assert_eq!(
            names,
            [
                "a.b-control-plane",
                "a.b-worker",
                "a.b-worker2",
                "a.b-worker3"
            ]
        );
    }

    #[test]
    fn roles_survive_their_label() {
        for role in [Role::ControlPlane, Role::Worker, Role::ExternalLoadBalancer] {
            assert_eq!(Role::from_label(role.label()), role);
        }
        assert_eq!(Role::from_label("registry"), Role::Other);
    }
}
