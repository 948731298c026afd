//! `kindnet.io/v1alpha1`, kind `Configuration`: the one object that configures kindnet.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the agents should run and do.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "kindnet.io",
    version = "v1alpha1",
    kind = "Configuration",
    plural = "configurations",
    namespaced,
    status = "ConfigurationStatus",
    derive = "PartialEq",
    doc = "Configures kindnet. There is one, named kindnet, in the namespace kube-system.",
    printcolumn = r#"{"name": "Image", "type": "string", "jsonPath": ".spec.kindnetdImage"}"#,
    printcolumn = r#"{"name": "Desired", "type": "integer", "jsonPath": ".status.desiredNodes"}"#,
    printcolumn = r#"{"name": "Ready", "type": "integer", "jsonPath": ".status.readyNodes"}"#,
    printcolumn = r#"{"name": "State", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Degraded\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationSpec {
    /// Image of the agent, for example `ghcr.io/kindnet-rs/kindnet:v0.1.0`.
    #[schemars(length(min = 1, max = 512))]
    pub kindnetd_image: String,

    /// `https://host:port` of the API server, tried before the cluster's own Service address so that
    /// agents do not have to wait for kube-proxy. Found from the cluster's
    /// `kube-public/cluster-info` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub control_plane_endpoint: Option<String>,

    /// Source address translation of what pods send out of the cluster.
    #[serde(default)]
    pub masquerade: MasqueradeSpec,

    /// How pods are attached to the network.
    #[serde(default)]
    pub cni: CniSpec,
}

/// How pods are attached to the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CniSpec {
    /// `kindnet` is the plugin in the agent's image, which the agent puts into `/opt/cni/bin`.
    /// `standard` is the chain `ptp`, `host-local`, `portmap`, which the nodes have to have. A change
    /// is for new pods; running ones stay as they are.
    pub plugin: CniPlugin,
}

/// The plugins pods can be attached with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CniPlugin {
    /// kindnet-cni
    #[default]
    Kindnet,
    /// ptp, host-local, portmap
    Standard,
}

impl CniPlugin {
    /// The value in a `Configuration` and on the agent's command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kindnet => "kindnet",
            Self::Standard => "standard",
        }
    }
}

impl std::fmt::Display for CniPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for CniPlugin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Kindnet, Self::Standard]
            .into_iter()
            .find(|plugin| plugin.as_str() == text)
            .ok_or_else(|| format!("{text:?} is neither kindnet nor standard"))
    }
}

/// Source address translation of pod traffic that leaves the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MasqueradeSpec {
    /// Whether pod traffic that leaves the cluster gets the address of its node. Traffic between pods
    /// never does.
    pub enabled: bool,

    /// Destinations besides the pods that see the pod's own address, for example
    /// `192.168.0.0/16` or `fd00::/8`.
    #[serde(rename = "nonMasqueradeCIDRs")]
    pub non_masquerade_cidrs: Vec<String>,
}

impl Default for MasqueradeSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            non_masquerade_cidrs: Vec::new(),
        }
    }
}

/// What the controller saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationStatus {
    /// `metadata.generation` this status describes.
    pub observed_generation: Option<i64>,
    /// Nodes that should run the agent.
    pub desired_nodes: i32,
    /// Nodes that run the agent as configured here.
    pub updated_nodes: i32,
    /// Nodes whose agent is ready.
    pub ready_nodes: i32,
    /// `Ready`, `Progressing` and `Degraded`.
    pub conditions: Vec<Condition>,
}

/// A `Configuration` that asks for something that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfiguration {
    /// No image, or one with blanks in it.
    #[error("spec.kindnetdImage: {0:?} is not an image reference")]
    Image(String),
    /// Not `https://host:port`.
    #[error("spec.controlPlaneEndpoint: {0:?} is not of the form https://host:port")]
    Endpoint(String),
    /// Not an IPv4 or IPv6 prefix.
    #[error("spec.masquerade.nonMasqueradeCIDRs: {0:?} is not an IPv4 or IPv6 prefix")]
    Cidr(String),
}

impl ConfigurationSpec {
    /// Everything that is wrong with the spec; empty when it can be used.
    #[must_use]
    pub fn problems(&self) -> Vec<InvalidConfiguration> {
        let mut problems = Vec::new();
        let image = &self.kindnetd_image;
        if image.is_empty() || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
            problems.push(InvalidConfiguration::Image(image.clone()));
        }
        if let Some(endpoint) = &self.control_plane_endpoint
            && !crate::endpoint::is_endpoint(endpoint)
        {
            problems.push(InvalidConfiguration::Endpoint(endpoint.clone()));
        }
        problems.extend(
            self.masquerade
                .non_masquerade_cidrs
                .iter()
                .filter(|text| text.parse::<IpNet>().is_err())
                .map(|text| InvalidConfiguration::Cidr(text.clone())),
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn spec() -> ConfigurationSpec {
        ConfigurationSpec {
            kindnetd_image: "example.test/kindnet:v1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn masquerade_is_on_by_default() {
        let spec: ConfigurationSpec =
            serde_json::from_value(serde_json::json!({"kindnetdImage": "a:b"})).unwrap();
        assert!(spec.masquerade.enabled);
        assert!(spec.problems().is_empty());
    }

    #[rstest]
    #[case("https://10.0.0.1:6443", true)]
    #[case("https://[fc00::1]:6443", true)]
    #[case("https://kind-control-plane:6443", true)]
    #[case("http://10.0.0.1:6443", false)]
    #[case("https://10.0.0.1", false)]
    #[case("https://10.0.0.1:0", false)]
    #[case("https://10.0.0.1:6443/", false)]
    #[case("https://user@host:6443", false)]
    #[case("https://[::zz]:6443", false)]
    fn endpoints(#[case] endpoint: &str, #[case] good: bool) {
        let spec = ConfigurationSpec {
            control_plane_endpoint: Some(endpoint.into()),
            ..spec()
        };
        assert_eq!(spec.problems().is_empty(), good);
    }

    #[test]
    fn every_problem_is_reported() {
        let spec = ConfigurationSpec {
            kindnetd_image: " ".into(),
            control_plane_endpoint: Some("nowhere".into()),
            masquerade: MasqueradeSpec {
                enabled: true,
                non_masquerade_cidrs: vec!["10.0.0.0/8".into(), "10.0.0.0/99".into()],
            },
            cni: CniSpec::default(),
        };
        assert_eq!(spec.problems().len(), 3);
    }
}
