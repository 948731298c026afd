//! What kindnet reads from a Kubernetes `Node`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both, in the order Kubernetes lists them by default.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Family of a prefix.
    #[must_use]
    pub const fn of_net(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// The default route, `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub fn default_route(self) -> IpNet {
        match self {
            Self::V4 => IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Self::V6 => IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The part of a `Node` the network needs. Whatever the API server holds that is not a valid
/// address or prefix lands in [`NodeInfo::rejected`] and is otherwise ignored: one broken Node never
/// stops the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Name of the Node.
    pub name: String,
    /// InternalIPs, in the order of the API; ExternalIPs only where there is no InternalIP.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or `spec.podCIDR` where that list is empty; truncated to the prefix.
    pub pod_cidrs: Vec<IpNet>,
    /// Values that are no address or prefix.
    pub rejected: Vec<String>,
    /// When the Node was created, in seconds since 1970: of two Nodes that claim the same thing the
    /// older one has it.
    pub created_secs: Option<i64>,
}

impl NodeInfo {
    /// Reads a Node.
    #[must_use]
    pub fn from_node(node: &Node) -> Self {
        let mut info = Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            created_secs: node
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0.as_second()),
            ..Self::default()
        };
        let listed = node
            .status
            .as_ref()
            .and_then(|s| s.addresses.as_deref())
            .unwrap_or_default();
        for kind in ["InternalIP", "ExternalIP"] {
            for entry in listed.iter().filter(|a| a.type_ == kind) {
                match entry.address.parse::<IpAddr>() {
                    Ok(ip) if usable(ip) => info.addresses.push(ip),
                    _ => info.rejected.push(entry.address.clone()),
                }
            }
            if !info.addresses.is_empty() {
                break;
            }
        }
        let Some(spec) = &node.spec else { return info };
        let mut texts: Vec<&str> = spec
            .pod_cidrs
            .iter()
            .flatten()
            .map(String::as_str)
            .filter(|c| !c.is_empty())
            .collect();
        if texts.is_empty() {
            texts.extend(spec.pod_cidr.as_deref().filter(|c| !c.is_empty()));
        }
        for text in texts {
            match text.parse::<IpNet>() {
                Ok(net) if net.prefix_len() > 0 && usable(net.network()) => {
                    let net = net.trunc();
                    if !info.pod_cidrs.contains(&net) {
                        info.pod_cidrs.push(net);
                    }
                }
                _ => info.rejected.push(text.to_owned()),
            }
        }
        info
    }

    /// First address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == family)
    }

    /// Pod subnets of a family.
    pub fn pod_cidrs_of(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        self.pod_cidrs
            .iter()
            .copied()
            .filter(move |c| Family::of_net(c) == family)
    }
}

/// An address another host could be reached at: not unspecified, loopback, multicast or IPv4
/// broadcast.
fn usable(ip: IpAddr) -> bool {
    !(ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn node(value: serde_json::Value) -> NodeInfo {
        NodeInfo::from_node(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn internal_addresses_win_over_external_ones() {
        let info = node(serde_json::json!({
            "metadata": {"name": "a"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
            "status": {"addresses": [
                {"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "Hostname", "address": "a"},
                {"type": "InternalIP", "address": "172.18.0.2"},
                {"type": "InternalIP", "address": "fc00::2"},
            ]},
        }));
        assert_eq!(
            info.address(Family::V4),
            Some("172.18.0.2".parse().unwrap())
        );
        assert_eq!(info.address(Family::V6), Some("fc00::2".parse().unwrap()));
        assert_eq!(info.pod_cidrs.len(), 2);
        assert!(info.rejected.is_empty());
    }

    #[test]
    fn a_single_pod_cidr_is_enough() {
        let info = node(serde_json::json!({
            "metadata": {"name": "a"}, "spec": {"podCIDR": "10.244.1.7/24"}}));
        assert_eq!(info.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
    }

    #[rstest]
    #[case("garbage")]
    #[case("0.0.0.0/0")]
    #[case("::/0")]
    #[case("127.0.0.0/8")]
    #[case("10.244.0.0/33")]
    #[case("224.0.0.0/4")]
    fn a_broken_pod_cidr_is_set_aside(#[case] cidr: &str) {
        let info = node(serde_json::json!({
            "metadata": {"name": "a"}, "spec": {"podCIDRs": [cidr, "10.244.1.0/24"]}}));
        assert_eq!(info.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
        assert_eq!(info.rejected, [cidr]);
    }
}
