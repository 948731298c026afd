//! The network configuration on standard input.
//!
//! Fields besides the well-known ones of the specification:
//!
//! | Field | Meaning | Default |
//! |---|---|---|
//! | `ranges` | as host-local has them: one address per outer entry, from any of its inner ranges | none: only port mappings, for a chain |
//! | `routes` | routes of the pod, `{dst, gw}` | the default route of every family that has an address |
//! | `mtu` | MTU of the pod's link, bytes | the kernel's |
//! | `dataDir` | folder of the state | `/run/kindnet-cni` |
//! | `hostPorts` | `auto`, `nftables` or `iptables` | `auto` |

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::ipam::{Range, RangeSet};
use crate::version::Version;

/// Where the state is kept unless the configuration says otherwise: on tmpfs, because no pod outlives
/// a boot and so none of its addresses may stay reserved.
pub const DEFAULT_DATA_DIR: &str = "/run/kindnet-cni";

/// A network configuration that can be used.
#[derive(Debug, Clone)]
pub struct Config {
    /// Version of the specification results are written in.
    pub version: Version,
    /// Name of the network.
    pub name: String,
    /// Folder of the state of all networks.
    pub data_dir: PathBuf,
    /// MTU of the pod's link in bytes; the kernel's default where absent.
    pub mtu: Option<u32>,
    /// A pod gets one address of each.
    pub sets: Vec<RangeSet>,
    /// Routes of the pod; `None` means the default routes.
    pub routes: Option<Vec<Route>>,
    /// `dns` of the result.
    pub dns: Option<Value>,
    /// Host ports of the pod.
    pub ports: Vec<PortMapping>,
    /// Addresses asked for with `IP=` in `CNI_ARGS`, `args.cni.ips` or `runtimeConfig.ips`.
    pub requested: Vec<IpAddr>,
    /// How host ports are made.
    pub host_ports: HostPorts,
    /// Result of the plugin before this one, or of ADD.
    pub prev_result: Option<Value>,
    /// GC: what to keep.
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// How host ports are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPorts {
    /// nftables if the kernel has it, otherwise iptables.
    #[default]
    Auto,
    /// nftables maps
    Nftables,
    /// iptables rules
    Iptables,
}

/// A route of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; the gateway of the family's range where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Transport protocol of a host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// Its number at IANA.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Its name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|p| p.name().eq_ignore_ascii_case(&text))
            .ok_or_else(|| {
                serde::de::Error::custom(format!("protocol {text:?} is not tcp, udp or sctp"))
            })
    }
}

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port of the host.
    pub host_port: u16,
    /// Port of the pod.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address of the host; all of them where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// Whether connections to an address of this family are meant: an unspecified address stands for
    /// all addresses of its family, none at all for both families.
    #[must_use]
    pub fn serves(&self, ipv4: bool) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_ipv4() == ipv4)
    }

    /// The one address of the host it is limited to.
    #[must_use]
    pub fn specific_host_ip(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }
}

/// An attachment GC must keep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// Container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Name of the interface.
    pub ifname: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    name: String,
    data_dir: Option<PathBuf>,
    mtu: Option<u32>,
    #[serde(default)]
    ranges: Vec<Vec<RawRange>>,
    routes: Option<Vec<Route>>,
    dns: Option<Value>,
    #[serde(default)]
    host_ports: HostPorts,
    #[serde(default)]
    runtime_config: RawRuntime,
    #[serde(default)]
    args: RawArgs,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
    // The older name, which some runtimes still send.
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<Attachment>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRange {
    subnet: IpNet,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRuntime {
    port_mappings: Option<Vec<RawPort>>,
    ips: Option<Vec<String>>,
}

// containerd sends the field names as Go has them, upper case first.
#[derive(Deserialize)]
struct RawPort {
    #[serde(alias = "hostPort", alias = "HostPort", default)]
    host_port: i64,
    #[serde(alias = "containerPort", alias = "ContainerPort", default)]
    container_port: i64,
    #[serde(alias = "Protocol")]
    protocol: Option<Protocol>,
    #[serde(alias = "hostIP", alias = "HostIP", alias = "hostIp", default)]
    host_ip: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawArgs {
    cni: RawCniArgs,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawCniArgs {
    ips: Option<Vec<String>>,
}

/// How much of a configuration has to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Everything: the command uses the ranges.
    Full,
    /// Name and folder: what a command that takes things away needs. A configuration that has become
    /// invalid must not keep pods from being deleted.
    Identity,
}

impl Config {
    /// Reads a configuration; `cni_args` is the value of `CNI_ARGS`.
    ///
    /// # Errors
    /// It is not JSON, its version is unknown, or a field is invalid.
    pub fn parse(json: &[u8], cni_args: &CniArgs, strictness: Strictness) -> Result<Self> {
        let raw: Raw = serde_json::from_slice(json)?;
        let version = Version::parse(&raw.cni_version)?;
        if !is_name(&raw.name) {
            return Err(Error::InvalidConfig(format!(
                "name {:?} must be letters, digits, `_`, `.` and `-`, starting with a letter or digit",
                raw.name
            )));
        }
        let data_dir = raw.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        if !data_dir.is_absolute() {
            return Err(Error::InvalidConfig(format!(
                "dataDir {} is not an absolute path",
                data_dir.display()
            )));
        }
        let mut config = Self {
            version,
            name: raw.name,
            data_dir,
            mtu: raw.mtu.filter(|mtu| *mtu > 0),
            sets: Vec::new(),
            routes: raw.routes,
            dns: raw.dns.filter(|dns| !dns.is_null()),
            ports: Vec::new(),
            requested: Vec::new(),
            host_ports: raw.host_ports,
            prev_result: raw.prev_result.filter(|result| !result.is_null()),
            valid_attachments: raw.valid_attachments.or(raw.attachments),
        };
        if strictness == Strictness::Identity {
            return Ok(config);
        }
        // 68 is the least IPv4 can do with (RFC 791), 65535 the most a veth takes.
        if let Some(mtu) = config.mtu.filter(|mtu| !(68..=65535).contains(mtu)) {
            return Err(Error::InvalidConfig(format!(
                "mtu {mtu} is not between 68 and 65535"
            )));
        }
        config.sets = range_sets(raw.ranges)?;
        if config.sets.is_empty() && config.prev_result.is_none() {
            return Err(Error::InvalidConfig(
                "ranges is empty and there is no result of a plugin before this one".to_owned(),
            ));
        }
        let has_ipv6 = config
            .sets
            .iter()
            .flat_map(RangeSet::ranges)
            .any(|r| r.gateway().is_ipv6());
        // RFC 8200, section 5; the kernel takes IPv6 away from a link below that.
        if let Some(mtu) = config.mtu.filter(|mtu| has_ipv6 && *mtu < 1280) {
            return Err(Error::InvalidConfig(format!(
                "mtu {mtu} is too small for IPv6, which needs 1280"
            )));
        }
        for route in config.routes.iter_mut().flatten() {
            route.dst = route.dst.trunc();
            if route
                .gw
                .is_some_and(|gw| gw.is_ipv4() != route.dst.addr().is_ipv4())
            {
                return Err(Error::InvalidConfig(format!(
                    "route {} has a gateway of the other family",
                    route.dst
                )));
            }
        }
        for port in raw.runtime_config.port_mappings.unwrap_or_default() {
            config.ports.extend(port_mapping(port)?);
        }
        let ips = raw.runtime_config.ips.into_iter().chain(raw.args.cni.ips);
        for ip in ips.flatten().chain(cni_args.ip.iter().cloned()) {
            let ip = requested_address(&ip)?;
            if !config.requested.contains(&ip) {
                config.requested.push(ip);
            }
        }
        Ok(config)
    }

    /// Folder of this network's state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.data_dir.join(&self.name)
    }
}

fn range_sets(raw: Vec<Vec<RawRange>>) -> Result<Vec<RangeSet>> {
    let mut sets = Vec::with_capacity(raw.len());
    for ranges in raw {
        let mut set = Vec::with_capacity(ranges.len());
        for range in ranges {
            set.push(Range::new(
                range.subnet,
                range.range_start,
                range.range_end,
                range.gateway,
            )?);
        }
        sets.push(RangeSet::new(set)?);
    }
    let all: Vec<&Range> = sets.iter().flat_map(RangeSet::ranges).collect();
    for (index, range) in all.iter().enumerate() {
        if let Some(other) = all[..index].iter().find(|other| other.overlaps(range)) {
            return Err(Error::InvalidConfig(format!(
                "ranges {other} and {range} overlap"
            )));
        }
    }
    Ok(sets)
}

/// `None` where no port of the host is asked for.
fn port_mapping(raw: RawPort) -> Result<Option<PortMapping>> {
    let port = |name: &str, value: i64| {
        u16::try_from(value)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| Error::InvalidConfig(format!("{name} {value} is no port number")))
    };
    if raw.host_port == 0 {
        return Ok(None);
    }
    let host_ip = match raw.host_ip.as_deref() {
        None | Some("") => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| Error::InvalidConfig(format!("hostIP {text:?} is no IP address")))?,
        ),
    };
    Ok(Some(PortMapping {
        host_port: port("hostPort", raw.host_port)?,
        container_port: port("containerPort", raw.container_port)?,
        protocol: raw.protocol.unwrap_or(Protocol::Tcp),
        host_ip,
    }))
}

/// An address, with or without a prefix length.
fn requested_address(text: &str) -> Result<IpAddr> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<IpNet>().map(|net| net.addr()))
        .map_err(|_| Error::InvalidConfig(format!("requested address {text:?} is no IP address")))
}

/// The rule for the name of a network and for container IDs.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// What is of interest in `CNI_ARGS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// `IP`: addresses asked for.
    pub ip: Vec<String>,
    /// `K8S_POD_NAMESPACE/K8S_POD_NAME`, for people who look at the state.
    pub pod: Option<String>,
}

impl CniArgs {
    /// Reads `KEY=VALUE;KEY=VALUE`. What is not known is ignored, as `IgnoreUnknown` asks for.
    ///
    /// # Errors
    /// A pair has no `=`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut args = Self::default();
        let (mut namespace, mut name) = (None, None);
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Error::Environment {
                    name: "CNI_ARGS",
                    problem: format!("{pair:?} is not KEY=VALUE"),
                });
            };
            match key {
                "IP" => args.ip.extend(
                    value
                        .split(',')
                        .filter(|ip| !ip.is_empty())
                        .map(str::to_owned),
                ),
                "K8S_POD_NAMESPACE" => namespace = Some(value),
                "K8S_POD_NAME" => name = Some(value),
                _ => {}
            }
        }
        if let (Some(namespace), Some(name)) = (namespace, name) {
            args.pod = Some(format!("{namespace}/{name}"));
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests;
