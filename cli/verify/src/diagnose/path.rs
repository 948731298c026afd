//! The way of a packet from node to node, and the probes along it.

use std::net::{IpAddr, SocketAddr};

use kindnet_api::node::Family;
use kindnet_probe::wire::Action;

use crate::catalogue::Traffic;
use crate::plan::{Key, Target, action};
use crate::topology::{Role, Source, Topology};

/// Sizes of packets in bytes that are tried where a full one does not get through: the MTUs of
/// common tunnels and clouds.
pub(super) const SIZES: &[u32] = &[
    8900, 1500, 1492, 1480, 1476, 1462, 1460, 1450, 1440, 1430, 1420, 1412, 1400, 1380, 1360, 1300,
    1280,
];

/// The way from one node to a pod on another, or on the same, or to a node itself.
pub(super) struct Path<'a> {
    pub(super) topology: &'a Topology,
    pub(super) family: Family,
    pub(super) key: &'a Key,
    pub(super) a: usize,
    pub(super) b: usize,
    /// Whether the packet starts in a pod.
    pub(super) from_pod: bool,
    pub(super) target: Target,
}

/// A probe along the way; none where there is no address to send it to.
pub(super) type Hop = Option<(Source, Action)>;

impl<'a> Path<'a> {
    /// The path of a probe that goes from node to node.
    pub(super) fn new(
        topology: &'a Topology,
        family: Family,
        key: &'a Key,
        target: Target,
    ) -> Option<Self> {
        let b = match target {
            Target::Pod(b) | Target::HostPort(b) | Target::Node(b) => b,
            Target::Service | Target::Dns | Target::Outside => return None,
        };
        Some(Self {
            topology,
            family,
            key,
            a: key.source.node,
            b,
            from_pod: key.source.role != Role::Host,
            target,
        })
    }

    /// Whether it ends in a pod.
    pub(super) fn to_pod(&self) -> bool {
        !matches!(self.target, Target::Node(_))
    }

    /// The sending node, for people.
    pub(super) fn a_name(&self) -> String {
        format!("node {}", self.topology.nodes[self.a].name)
    }

    /// The receiving node, for people.
    pub(super) fn b_name(&self) -> String {
        format!("node {}", self.topology.nodes[self.b].name)
    }

    fn host(node: usize) -> Source {
        Source {
            node,
            role: Role::Host,
        }
    }

    pub(super) fn node_ip(&self, node: usize) -> Option<IpAddr> {
        self.topology.nodes[node].address(self.family)
    }

    pub(super) fn pod(&self) -> Option<SocketAddr> {
        let ip = self.topology.nodes[self.b].server.address(self.family)?;
        Some(SocketAddr::new(ip, self.topology.pod_port))
    }

    /// Two ways to find out whether a node is reached: either is enough.
    fn to_node(&self, source: Source, node: usize) -> [Hop; 2] {
        let ip = self.node_ip(node);
        let tcp = ip.map(|ip| SocketAddr::new(ip, self.topology.host_network_port));
        [
            ip.map(|to| (source, Action::Icmp { to })),
            tcp.map(|to| (source, action(Traffic::Tcp, to))),
        ]
    }

    /// From the start to the own node.
    pub(super) fn own_node(&self) -> [Hop; 2] {
        self.to_node(self.key.source, self.a)
    }

    /// From the start to the other node.
    pub(super) fn other_node(&self) -> [Hop; 2] {
        self.to_node(self.key.source, self.b)
    }

    /// From node to node.
    pub(super) fn between_nodes(&self) -> [Hop; 2] {
        self.to_node(Self::host(self.a), self.b)
    }

    /// What was sent, straight to the pod. A packet that must not be fragmented becomes a small
    /// datagram: its size is looked into apart.
    fn same(&self, source: Source) -> Hop {
        let to = self.pod()?;
        let same = match &self.key.action {
            Action::Icmp { .. } => action(Traffic::Icmp, to),
            Action::Udp { .. } | Action::DontFragment { .. } => action(Traffic::Udp, to),
            _ => action(Traffic::Tcp, to),
        };
        Some((source, same))
    }

    /// The same traffic from the start, straight to the pod.
    pub(super) fn directly(&self) -> Hop {
        self.same(self.key.source)
    }

    /// The same traffic from the sending node itself.
    pub(super) fn start_at_a(&self) -> Hop {
        self.same(Self::host(self.a))
    }

    /// The same traffic from the pod's own node itself.
    pub(super) fn start_at_b(&self) -> Hop {
        self.same(Self::host(self.b))
    }

    /// Other traffic from the start: ICMP, or TCP where ICMP was sent.
    pub(super) fn other_traffic(&self) -> Hop {
        let to = self.pod()?;
        let other = match &self.key.action {
            Action::Icmp { .. } => Traffic::Tcp,
            _ => Traffic::Icmp,
        };
        Some((self.key.source, action(other, to)))
    }

    /// A packet of this size that must not be fragmented.
    pub(super) fn sized(&self, size: u32) -> Hop {
        let to = self.pod()?;
        let size = Some(size);
        Some((self.key.source, Action::DontFragment { to, size }))
    }

    /// Whether the size of packets may be to blame.
    pub(super) fn is_big(&self) -> bool {
        match &self.key.action {
            Action::DontFragment { .. } => true,
            Action::Tcp { to, .. } => self.key.action == action(Traffic::Body, *to),
            _ => false,
        }
    }

    /// All of them.
    pub(super) fn hops(&self) -> Vec<(Source, Action)> {
        let mut hops: Vec<Hop> = Vec::new();
        hops.extend(self.own_node());
        hops.extend(self.other_node());
        hops.extend(self.between_nodes());
        if self.to_pod() {
            hops.extend([
                self.directly(),
                self.start_at_a(),
                self.start_at_b(),
                self.other_traffic(),
            ]);
            if self.is_big() {
                hops.extend(SIZES.iter().map(|size| self.sized(*size)));
            }
        }
        hops.into_iter().flatten().collect()
    }
}
