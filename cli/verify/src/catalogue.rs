//! The checks there are, in the order of the table.

/// What a check is about; the order is that of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Pods start and have an address of the node's podCIDR.
    PodStart,
    /// Client to server on the same node.
    SameNode(Traffic),
    /// Client to server on another node.
    CrossNode(Traffic),
    /// The server sees the client's own address.
    PodSource,
    /// Through a ClusterIP.
    ClusterIp(Traffic),
    /// Through a NodePort, on every node's address.
    NodePort,
    /// Name of a headless Service, then the pods behind it.
    Headless,
    /// Host network to a pod on the same node.
    NodeToOwnPod,
    /// Host network to a pod on another node.
    NodeToRemotePod,
    /// Pod to the address of its own node.
    OwnPodToNode,
    /// Pod to the address of another node.
    RemotePodToNode,
    /// hostPort, asked by a pod.
    HostPortFromPod,
    /// hostPort, asked by another node.
    HostPortFromNode,
    /// Name of a Service.
    DnsService,
    /// Short name, through the search list.
    DnsSearch,
    /// Name of the API server's Service.
    DnsKubernetes,
    /// Name outside of the cluster.
    DnsOutside,
    /// A host outside of the cluster sees the node's address.
    Outside,
    /// The CNI configuration of every node.
    Conflist,
    /// The routes of every node.
    Routes,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// A few bytes over TCP.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Icmp,
    /// 64 KiB over TCP.
    Body,
    /// A packet as big as the link allows, with DF.
    FullMtu,
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Stable identifier.
    pub id: &'static str,
    /// Heading in the table.
    pub group: &'static str,
    /// Line in the table.
    pub title: &'static str,
    /// What it is about.
    pub kind: Kind,
}

impl Spec {
    /// Whether there is one result per family.
    #[must_use]
    pub fn per_family(&self) -> bool {
        self.kind != Kind::Conflist
    }
}

const fn spec(id: &'static str, group: &'static str, title: &'static str, kind: Kind) -> Spec {
    Spec {
        id,
        group,
        title,
        kind,
    }
}

const PODS: &str = "Pods";
const SERVICES: &str = "Services";
const NODES: &str = "Nodes and pods";
const DNS: &str = "DNS";
const OUTSIDE: &str = "Outside";
const CONFIGURATION: &str = "Configuration";

/// All checks.
pub const CHECKS: &[Spec] = &[
    spec(
        "pod.start",
        PODS,
        "pods start with their address",
        Kind::PodStart,
    ),
    spec(
        "pod.same-node.tcp",
        PODS,
        "same node, TCP",
        Kind::SameNode(Traffic::Tcp),
    ),
    spec(
        "pod.same-node.udp",
        PODS,
        "same node, UDP",
        Kind::SameNode(Traffic::Udp),
    ),
    spec(
        "pod.same-node.icmp",
        PODS,
        "same node, ICMP",
        Kind::SameNode(Traffic::Icmp),
    ),
    spec(
        "pod.same-node.body",
        PODS,
        "same node, 64 KiB",
        Kind::SameNode(Traffic::Body),
    ),
    spec(
        "pod.same-node.mtu",
        PODS,
        "same node, full MTU",
        Kind::SameNode(Traffic::FullMtu),
    ),
    spec(
        "pod.cross-node.tcp",
        PODS,
        "across nodes, TCP",
        Kind::CrossNode(Traffic::Tcp),
    ),
    spec(
        "pod.cross-node.udp",
        PODS,
        "across nodes, UDP",
        Kind::CrossNode(Traffic::Udp),
    ),
    spec(
        "pod.cross-node.icmp",
        PODS,
        "across nodes, ICMP",
        Kind::CrossNode(Traffic::Icmp),
    ),
    spec(
        "pod.cross-node.body",
        PODS,
        "across nodes, 64 KiB",
        Kind::CrossNode(Traffic::Body),
    ),
    spec(
        "pod.cross-node.mtu",
        PODS,
        "across nodes, full MTU",
        Kind::CrossNode(Traffic::FullMtu),
    ),
    spec(
        "pod.source",
        PODS,
        "source address preserved",
        Kind::PodSource,
    ),
    spec(
        "service.cluster-ip.tcp",
        SERVICES,
        "ClusterIP, TCP",
        Kind::ClusterIp(Traffic::Tcp),
    ),
    spec(
        "service.cluster-ip.udp",
        SERVICES,
        "ClusterIP, UDP",
        Kind::ClusterIp(Traffic::Udp),
    ),
    spec(
        "service.node-port",
        SERVICES,
        "NodePort of every node",
        Kind::NodePort,
    ),
    spec("service.headless", SERVICES, "headless", Kind::Headless),
    spec(
        "node.to-own-pod",
        NODES,
        "node to its own pod",
        Kind::NodeToOwnPod,
    ),
    spec(
        "node.to-remote-pod",
        NODES,
        "node to a pod elsewhere",
        Kind::NodeToRemotePod,
    ),
    spec(
        "node.from-own-pod",
        NODES,
        "pod to its own node",
        Kind::OwnPodToNode,
    ),
    spec(
        "node.from-remote-pod",
        NODES,
        "pod to another node",
        Kind::RemotePodToNode,
    ),
    spec(
        "host-port.from-pod",
        NODES,
        "hostPort, from a pod",
        Kind::HostPortFromPod,
    ),
    spec(
        "host-port.from-node",
        NODES,
        "hostPort, from another node",
        Kind::HostPortFromNode,
    ),
    spec("dns.service", DNS, "name of a Service", Kind::DnsService),
    spec("dns.search", DNS, "short name", Kind::DnsSearch),
    spec(
        "dns.kubernetes",
        DNS,
        "kubernetes.default",
        Kind::DnsKubernetes,
    ),
    spec(
        "dns.outside",
        DNS,
        "name outside the cluster",
        Kind::DnsOutside,
    ),
    spec(
        "outside.source",
        OUTSIDE,
        "sees the node's address",
        Kind::Outside,
    ),
    spec(
        "node.routes",
        CONFIGURATION,
        "routes on every node",
        Kind::Routes,
    ),
    spec(
        "node.conflist",
        CONFIGURATION,
        "conflist on every node",
        Kind::Conflist,
    ),
];

/// The checks whose identifier matches one of the patterns; all when there is none.
///
/// # Errors
/// The patterns that match nothing.
pub fn select(patterns: &[String]) -> Result<Vec<&'static Spec>, Vec<String>> {
    let lost: Vec<String> = patterns
        .iter()
        .filter(|pattern| !CHECKS.iter().any(|c| matches(pattern, c.id)))
        .cloned()
        .collect();
    if !lost.is_empty() {
        return Err(lost);
    }
    Ok(CHECKS
        .iter()
        .filter(|c| patterns.is_empty() || patterns.iter().any(|p| matches(p, c.id)))
        .collect())
}

/// `*` stands for any characters and `?` for one. A pattern also matches what lies below it: `pod`
/// and `pod.same-node` mean `pod.*` and `pod.same-node.*`.
fn matches(pattern: &str, id: &str) -> bool {
    glob(pattern.as_bytes(), id.as_bytes())
        || glob(format!("{pattern}.*").as_bytes(), id.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text) || text.split_first().is_some_and(|(_, t)| glob(pattern, t))
        }
        (Some((b'?', rest)), Some((_, t))) => glob(rest, t),
        (Some((p, rest)), Some((c, t))) if p == c => glob(rest, t),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::collections::HashSet;

    #[rstest]
    #[case(&[], CHECKS.len())]
    #[case(&["pod"], 12)]
    #[case(&["pod.same-node"], 5)]
    #[case(&["*.mtu"], 2)]
    #[case(&["dns.*", "node.routes"], 5)]
    #[case(&["pod.?????node.tcp"], 1)]
    fn which_checks(#[case] patterns: &[&str], #[case] count: usize) {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        assert_eq!(select(&patterns).unwrap().len(), count);
    }

    #[test]
    fn a_pattern_without_a_check_is_an_error() {
        let patterns = ["pod".to_owned(), "pods".to_owned()];
        assert_eq!(select(&patterns).unwrap_err(), ["pods"]);
    }

    #[test]
    fn identifiers_are_unique_and_groups_are_together() {
        let ids: HashSet<_> = CHECKS.iter().map(|c| c.id).collect();
        assert_eq!(ids.len(), CHECKS.len());
        let mut groups: Vec<_> = CHECKS.iter().map(|c| c.group).collect();
        groups.dedup();
        let distinct: HashSet<_> = groups.iter().collect();
        assert_eq!(distinct.len(), groups.len());
    }
}
