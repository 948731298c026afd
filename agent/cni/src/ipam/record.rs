//! What is remembered of an attachment: the truth about its addresses, one file each.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{HostPorts, PortMapping};

/// An attachment: one interface of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Name of the interface in the container.
    pub ifname: String,
    /// Path of the network namespace at the time of ADD.
    pub netns: String,
    /// `namespace/name` of the pod, where the runtime told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Name of the host's end of the link; empty when another plugin made the link.
    pub link: String,
    /// Addresses, one per range set.
    pub addresses: Vec<Address>,
    /// Host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// Addresses the host ports lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_targets: Vec<IpAddr>,
    /// How the host ports were made.
    #[serde(default)]
    pub host_ports: HostPorts,
}

/// An address of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address with the prefix length of its subnet.
    pub address: IpNet,
    /// The pod's next hop.
    pub gateway: IpAddr,
    /// [`super::Range::key`] of the range it is from.
    pub range: String,
    /// Its place in the range.
    pub index: u32,
}

impl Record {
    /// File name. Container IDs have no `@` in them.
    pub(super) fn file_name(container_id: &str, ifname: &str) -> String {
        format!("{container_id}@{ifname}")
    }
}
