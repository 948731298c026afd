//! What is known about the cluster and the check pods before the first probe.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use kindnet_api::node::Family;

/// Which pod of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// On the pod network; probes from here.
    Client,
    /// On the pod network; behind the Services and the hostPort.
    Server,
    /// On the host's network.
    Host,
}

impl Role {
    /// Prefix of the pod's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Host => "host",
        }
    }
}

/// A pod that probes: its node, by position in [`Topology::nodes`], and its role there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Position of the node.
    pub node: usize,
    /// Role of the pod.
    pub role: Role,
}

/// A pod on the pod network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodState {
    /// Not wanted on this node.
    Absent,
    /// Runs and has these addresses.
    Running(Vec<IpAddr>),
    /// Did not start.
    Broken(String),
}

impl PodState {
    /// Address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match self {
            Self::Running(ips) => ips.iter().copied().find(|ip| Family::of(*ip) == family),
            _ => None,
        }
    }
}

/// A node and its check pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestNode {
    /// Name.
    pub name: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Pod subnets.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether pods on the pod network run here; the host is looked at on every node.
    pub chosen: bool,
    /// See [`Role::Client`].
    pub client: PodState,
    /// See [`Role::Server`].
    pub server: PodState,
    /// See [`Role::Host`].
    pub host: PodState,
}

impl TestNode {
    /// First address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|ip| Family::of(*ip) == family)
    }

    /// State of a pod.
    #[must_use]
    pub fn pod(&self, role: Role) -> &PodState {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
            Role::Host => &self.host,
        }
    }
}

/// The Services of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// Family.
    pub family: Family,
    /// ClusterIP of the NodePort Service.
    pub cluster_ip: IpAddr,
    /// Its TCP NodePort.
    pub node_port: u16,
    /// Its name.
    pub name: String,
    /// Name of the headless Service.
    pub headless: String,
}

/// Everything the plan is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Namespace of the check pods.
    pub namespace: String,
    /// Families to check.
    pub families: Vec<Family>,
    /// The nodes; the chosen ones first.
    pub nodes: Vec<TestNode>,
    /// Services, one entry per family that has them.
    pub services: Vec<Services>,
    /// Port of the servers on the pod network.
    pub pod_port: u16,
    /// Port of the servers on the host network.
    pub host_network_port: u16,
    /// hostPort of the servers on the pod network.
    pub host_port: u16,
    /// Why there is no cluster DNS; none where there is.
    pub no_dns: Option<String>,
    /// Nodes with a name server, where they are known.
    pub dns_nodes: Vec<String>,
    /// Addresses of the API server's Service.
    pub kubernetes: Vec<IpAddr>,
    /// A server outside of the cluster, or why there is none.
    pub outside: Result<Vec<SocketAddr>, String>,
    /// Why there need be no conflist and no route of kindnet; none where there must.
    pub not_kindnet: Option<String>,
}

impl Topology {
    /// Positions of the chosen nodes.
    pub fn chosen(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].chosen)
    }

    /// The node an address belongs to, itself or as one of its pods.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&TestNode> {
        self.nodes
            .iter()
            .find(|n| n.addresses.contains(&ip) || n.pod_cidrs.iter().any(|c| c.contains(&ip)))
    }

    /// Services of a family.
    #[must_use]
    pub fn services(&self, family: Family) -> Option<&Services> {
        self.services.iter().find(|s| s.family == family)
    }
}

/// `-v4` or `-v6`, behind names of objects of one family.
#[must_use]
pub const fn suffix(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}
