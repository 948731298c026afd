//! The CNI network configuration list the agent writes.
//!
//! Follows the [CNI specification](https://www.cni.dev/docs/spec/) and the documentation of the
//! plugins `ptp`, `host-local` and `portmap`, or of `kindnet-cni`, which does the work of all three.

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
    /// Versions that will do as well: a runtime that knows this field takes the newest one it speaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cni_versions: Vec<String>,
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
    /// Link, addresses and host ports in one.
    #[serde(rename = "kindnet-cni", rename_all = "camelCase")]
    Kindnet {
        /// MTU of the pod's link, in bytes; the kernel's default where absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        mtu: Option<u32>,
        /// One set of ranges per address a pod gets.
        ranges: Vec<Vec<Range>>,
        /// What the runtime may hand over.
        capabilities: Capabilities,
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
            cni_versions: Vec::new(),
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

    /// The one plugin of ours. Addresses as in [`Self::standard`]; the plugin gives the pod the
    /// default routes of its families by itself.
    #[must_use]
    pub fn kindnet(pod_cidrs: &[IpNet], mtu: Option<u32>) -> Self {
        Self {
            // For runtimes that know one version only; the others see the list.
            cni_version: "0.4.0".to_owned(),
            cni_versions: ["0.4.0", "1.0.0", "1.1.0"].map(str::to_owned).into(),
            name: names::CNI_NETWORK.to_owned(),
            plugins: vec![Plugin::Kindnet {
                mtu,
                ranges: pod_cidrs
                    .iter()
                    .map(|c| vec![Range { subnet: *c }])
                    .collect(),
                capabilities: Capabilities {
                    port_mappings: true,
                },
            }],
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
                }
                | Plugin::Kindnet { ranges, .. } => Some(ranges),
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

    #[test]
    fn kindnet_conflist() {
        let cidrs: Vec<IpNet> = ["10.244.1.0/24", "fd00:10:244:1::/64"]
            .map(|c| c.parse().unwrap())
            .into();
        let conflist = Conflist::kindnet(&cidrs, Some(1450));
        insta::assert_snapshot!("kindnet", conflist.to_json());
        let read = serde_json::from_str::<Conflist>(&conflist.to_json()).unwrap();
        assert_eq!(read, conflist);
        assert_eq!(conflist.subnets().collect::<Vec<_>>(), cidrs);
    }
}
