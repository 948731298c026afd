//! The kubeadm configuration of a node, for the API version its Kubernetes understands.
//!
//! One multi-document file per node, the same documents kind writes: a restarted node edits it in
//! place when its addresses changed.

mod documents;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::names::{self, Role};
use crate::spec::IpFamily;
use crate::version::KubeVersion;

/// Where the file is on a node.
pub const PATH: &str = "/kind/kubeadm.conf";

/// Everything the documents depend on.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// Version of Kubernetes on the node.
    pub version: &'a KubeVersion,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Name of the node.
    pub node: &'a str,
    /// Role of the node.
    pub role: Role,
    /// Addresses of the node, the primary one first.
    pub addresses: &'a [IpAddr],
    /// Address families of the cluster.
    pub family: IpFamily,
    /// Pod subnets.
    pub pod_subnets: &'a [IpNet],
    /// Service subnets.
    pub service_subnets: &'a [IpNet],
    /// The Docker host runs cgroup v1, which kubelets from 1.35 on refuse unless told not to.
    pub cgroup_v1: bool,
    /// The daemon runs without root.
    pub rootless: bool,
}

/// Versions of kubeadm's configuration API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiVersion {
    /// Kubernetes 1.15 to 1.22
    V1Beta2,
    /// Kubernetes 1.23 to 1.35
    V1Beta3,
    /// Kubernetes 1.36 and newer; 1.37 knows no other
    V1Beta4,
}

impl ApiVersion {
    /// The one to use for a version of Kubernetes.
    #[must_use]
    pub fn of(version: &KubeVersion) -> Self {
        if !version.at_least(1, 23) {
            Self::V1Beta2
        } else if !version.at_least(1, 36) {
            Self::V1Beta3
        } else {
            Self::V1Beta4
        }
    }

    const fn group_version(self) -> &'static str {
        match self {
            Self::V1Beta2 => "kubeadm.k8s.io/v1beta2",
            Self::V1Beta3 => "kubeadm.k8s.io/v1beta3",
            Self::V1Beta4 => "kubeadm.k8s.io/v1beta4",
        }
    }
}

impl Input<'_> {
    /// The file.
    #[must_use]
    pub fn render(&self) -> String {
        let documents: Vec<String> = documents::all(self)
            .iter()
            .map(|document| {
                kindnet_api::yaml::to_string(document)
                    .expect("maps, lists and strings always serialise")
            })
            .collect();
        documents.join("---\n")
    }

    fn endpoint(&self) -> String {
        format!("{}:{}", names::control_plane(self.cluster), names::API_PORT)
    }

    fn node_ip(&self) -> String {
        let texts: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        texts.join(",")
    }
}

/// Arguments of `kubeadm` for a sub-command, without the program's name.
#[must_use]
pub fn arguments(command: &str, version: &KubeVersion) -> Vec<String> {
    let mut arguments = vec![command.to_owned(), format!("--config={PATH}")];
    if command == "init" {
        arguments.push("--skip-token-print".into());
    }
    // v1beta2 has no skipPhases. The node image is no machine the checks were written for: swap,
    // ports and modules are the host's.
    if ApiVersion::of(version) == ApiVersion::V1Beta2 {
        arguments.push("--skip-phases=preflight".into());
    }
    arguments
}

/// Addresses in the order the cluster wants them: the family of the first Service subnet first.
#[must_use]
pub fn node_addresses(
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
    family: IpFamily,
    services: &[IpNet],
) -> Vec<IpAddr> {
    match family {
        IpFamily::Ipv4 => v4.into_iter().collect(),
        IpFamily::Ipv6 => v6.into_iter().collect(),
        IpFamily::Dual if matches!(services.first(), Some(IpNet::V6(_))) => {
            v6.into_iter().chain(v4).collect()
        }
        IpFamily::Dual => v4.into_iter().chain(v6).collect(),
    }
}

#[cfg(test)]
mod tests;
