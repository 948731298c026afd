//! The CNI network configuration list the agent writes.
//!
//! Follows the [CNI specification](https://www.cni.dev/docs/spec/) and the documentation of the
//! plugins `ptp`, `host-local` and `portmap`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::names;
use crate::node::Family;

/// A network configuration list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflist {
    /// Version of the CNI specification.
    pub cni_version: String,
    /// Name of the network.
    pub name: String,
    /// Plugins in the order they run.
    pub plugins: Vec<Plugin>,
}

/// One plugin of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Plugin {
    /// A veth pair per pod.
    #[serde(rename_all = "camelCase")]
    Ptp {
        /// Always false: the agent masquerades.
        ip_masq: bool,
        /// MTU of the pod's link, in bytes; the kernel's default where absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        mtu: Option<u32>,
        /// Address management.
        ipam: Ipam,
    },
    /// hostPort forwarding.
    Portmap {
        /// What the runtime may hand over.
        capabilities: Capabilities,
    },
}

/// Address management by `host-local`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Ipam {
    /// Addresses are handed out from files on this host.
    #[serde(rename_all = "camelCase")]
    HostLocal {
        /// Folder of the state.
        data_dir: String,
        /// Routes of the pod.
        routes: Vec<Route>,
        /// One set of ranges per address a pod gets.
        ranges: Vec<Vec<Range>>,
    },
}

/// A route of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
}

/// A range of pod addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The subnet addresses come from.
    pub subnet: IpNet,
}

/// Capabilities a plugin declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// The runtime passes the pod's port mappings.
    pub port_mappings: bool,
}

impl Conflist {
    /// The standard chain: ptp with host-local, then portmap.
    ///
    /// `pod_cidrs` are the subnets of this node in the order of its `spec.podCIDRs`; a pod gets an
    /// address from each. A default route is given per family that has a subnet and for no other: a
    /// `::/0` on a host without IPv6 breaks every pod.
    #[must_use]
    pub fn standard(pod_cidrs: &[IpNet], mtu: Option<u32>) -> Self {
        let routes = Family::ALL
            .into_iter()
            .filter(|family| pod_cidrs.iter().any(|c| Family::of_net(c) == *family))
            .map(|family| Route {
                dst: family.default_route(),
            })
            .collect();
        Self {
            // The newest version that the plugins of every supported node image know.
            cni_version: "0.3.1".to_owned(),
            name: names::CNI_NETWORK.to_owned(),
            plugins: vec![
                Plugin::Ptp {
                    ip_masq: false,
                    mtu,
                    ipam: Ipam::HostLocal {
                        data_dir: names::IPAM_STATE_DIR.to_owned(),
                        routes,
                        ranges: pod_cidrs
                            .iter()
                            .map(|c| vec![Range { subnet: *c }])
                            .collect(),
                    },
                },
                Plugin::Portmap {
                    capabilities: Capabilities {
                        port_mappings: true,
                    },
                },
            ],
        }
    }

    /// The file's content, with a final newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("strings, numbers and lists always serialise");
        text.push('\n');
        text
    }

    /// Every pod subnet the list names.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.plugins
            .iter()
            .filter_map(|plugin| match plugin {
                Plugin::Ptp {
                    ipam: Ipam::HostLocal { ranges, .. },
                    ..
                } => Some(ranges),
                Plugin::Portmap { .. } => None,
            })
            .flatten()
            .flatten()
            .map(|range| range.subnet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("ipv4", &["10.244.1.0/24"], Some(1500))]
    #[case("ipv6", &["fd00:10:244:1::/64"], None)]
    #[case("dual", &["10.244.1.0/24", "fd00:10:244:1::/64"], Some(1450))]
    fn standard_conflist(#[case] name: &str, #[case] cidrs: &[&str], #[case] mtu: Option<u32>) {
        let cidrs: Vec<IpNet> = cidrs.iter().map(|c| c.parse().unwrap()).collect();
        let conflist = Conflist::standard(&cidrs, mtu);
        insta::assert_snapshot!(name, conflist.to_json());
        assert_eq!(
            serde_json::from_str::<Conflist>(&conflist.to_json()).unwrap(),
            conflist
        );
        assert_eq!(conflist.subnets().collect::<Vec<_>>(), cidrs);
    }
}
