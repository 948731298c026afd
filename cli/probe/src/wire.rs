//! What `kindnetctl` asks of a check pod and what the pod answers: one JSON [`Batch`] on a line of
//! standard input, one JSON [`Answer`] per line of standard output, and [`Answer::end`] last.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything one check pod is asked at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Hosts that have to answer to ICMP before the probes begin, or [`Batch::settle_ms`] to have
    /// passed: a new link has its IPv6 address after a second or so of duplicate address detection.
    #[serde(default)]
    pub settle: Vec<IpAddr>,
    /// Longest wait for [`Batch::settle`], in milliseconds.
    #[serde(default)]
    pub settle_ms: u32,
    /// The probes; they run side by side.
    pub probes: Vec<Probe>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Number the answer carries.
    pub id: u32,
    /// Milliseconds a single attempt may take.
    pub attempt_ms: u32,
    /// Milliseconds after which a probe that keeps failing is given up.
    pub deadline_ms: u32,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Action {
    /// Sends a body over TCP and gets one of the same size back.
    Tcp {
        /// The server.
        to: SocketAddr,
        /// Size of the body, in bytes.
        bytes: u32,
    },
    /// Sends a datagram and gets one of the same size back.
    Udp {
        /// The server.
        to: SocketAddr,
        /// Size of the UDP payload, in bytes.
        bytes: u32,
    },
    /// Sends a packet that must not be fragmented and gets one of the same size back.
    DontFragment {
        /// The server.
        to: SocketAddr,
        /// Size of the IP packet in bytes; the MTU of the sending link where absent.
        size: Option<u32>,
    },
    /// Sends an echo request (RFC 792, RFC 4443).
    Icmp {
        /// The host.
        to: IpAddr,
    },
    /// Looks a name up the way a pod does: the search list and the first name server of
    /// `/etc/resolv.conf`.
    Dns {
        /// The name; with a trailing dot it is not looked for in the search list.
        name: String,
        /// Whether AAAA is asked for, or A.
        v6: bool,
        /// Addresses the answer must consist of; empty for any.
        expect: Vec<IpAddr>,
    },
    /// Reports how the network of this pod, or of its host, is configured.
    Inspect {
        /// Folder of the CNI configuration.
        conf_dir: String,
    },
}

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the probe.
    pub id: u32,
    /// Attempts it took; the last one counts.
    pub attempts: u32,
    /// Microseconds the last attempt took.
    pub micros: u64,
    /// What came of it.
    pub result: Result<Seen, Problem>,
}

impl Answer {
    /// The line after the last answer: without it something was lost on the way.
    pub const END: u32 = u32::MAX;

    /// See [`Answer::END`].
    #[must_use]
    pub fn end() -> Self {
        Self {
            id: Self::END,
            attempts: 0,
            micros: 0,
            result: Ok(Seen::Nothing),
        }
    }

    /// Duration of the last attempt.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

/// What a successful probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "saw", rename_all = "kebab-case")]
pub enum Seen {
    /// An answer without content, such as an echo reply.
    Nothing,
    /// An answer of a server.
    Echo(Echo),
    /// An answer of a name server.
    Names {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// The name that had them, with the entry of the search list.
        name: String,
        /// The name server.
        server: IpAddr,
    },
    /// The configuration.
    Host(Box<HostView>),
}

/// What a server saw of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Where the request came from.
    pub peer: SocketAddr,
    /// Name of the server's pod.
    pub pod: String,
    /// Name of the server's node.
    pub node: String,
    /// Where the request left from, as the client sees it.
    pub local: SocketAddr,
    /// Bytes that arrived: the body, or the whole IP packet where it must not be fragmented.
    pub bytes: u32,
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Problem {
    /// For programs.
    pub kind: ProblemKind,
    /// For people.
    pub text: String,
    /// MTU of the path in bytes, where a router or the kernel said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl Problem {
    /// A problem without further detail.
    #[must_use]
    pub fn new(kind: ProblemKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            mtu: None,
        }
    }
}

/// Kinds of [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// Nothing came back in time.
    Timeout,
    /// The port is closed, or something says so.
    Refused,
    /// No route, or a router says so.
    Unreachable,
    /// Bigger than the path, or the link, allows.
    TooBig,
    /// The connection broke.
    Reset,
    /// What came back is not what was sent.
    Corrupt,
    /// The name does not exist, or has no such record.
    NoName,
    /// The name server answered with an error.
    ServerFailure,
    /// The name has other addresses.
    OtherAddresses,
    /// Not allowed to.
    Permission,
    /// Anything else.
    Other,
}

/// How the network of a host is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Links.
    pub links: Vec<Link>,
    /// Routes of the main table, IPv4 and IPv6, without the local ones.
    pub routes: Vec<Route>,
    /// Whether IPv4 packets are forwarded.
    pub forwarding_v4: bool,
    /// Whether IPv6 packets are forwarded.
    pub forwarding_v6: bool,
    /// Files of the CNI configuration folder that a runtime reads, in the order it reads them.
    pub conf_files: Vec<ConfFile>,
}

impl HostView {
    /// The route a packet takes: longest prefix, then smallest metric.
    #[must_use]
    pub fn route_to(&self, address: IpAddr) -> Option<&Route> {
        self.routes
            .iter()
            .filter(|route| route.dst.contains(&address))
            .min_by_key(|route| (std::cmp::Reverse(route.dst.prefix_len()), route.metric))
    }

    /// MTU of the link that carries the default route of the address family of `like`.
    #[must_use]
    pub fn default_link(&self, v6: bool) -> Option<&Link> {
        let route = self
            .routes
            .iter()
            .filter(|r| r.dst.prefix_len() == 0 && matches!(r.dst, IpNet::V6(_)) == v6)
            .min_by_key(|r| r.metric)?;
        self.link(&route.dev)
    }

    /// A link by its name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Gateway.
    pub via: Option<IpAddr>,
    /// Link.
    pub dev: String,
    /// Metric.
    pub metric: u32,
    /// Whether it rejects packets: blackhole, unreachable, prohibit.
    #[serde(default)]
    pub rejects: bool,
}

/// A file of the CNI configuration folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfFile {
    /// File name.
    pub name: String,
    /// Content, at most 64 KiB of it.
    pub content: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_survives_the_wire() {
        let batch = Batch {
            settle: vec!["fd00::1".parse().unwrap()],
            settle_ms: 2000,
            probes: vec![
                Probe {
                    id: 1,
                    attempt_ms: 1000,
                    deadline_ms: 3000,
                    action: Action::Tcp {
                        to: "[fd00::1]:80".parse().unwrap(),
                        bytes: 7,
                    },
                },
                Probe {
                    id: 2,
                    attempt_ms: 1000,
                    deadline_ms: 3000,
                    action: Action::Dns {
                        name: "a.b.svc".into(),
                        v6: true,
                        expect: vec!["fd00::1".parse().unwrap()],
                    },
                },
            ],
        };
        let text = serde_json::to_string(&batch).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<Batch>(&text).unwrap(), batch);
        let old = serde_json::from_str::<Batch>(r#"{"probes": []}"#).unwrap();
        assert_eq!(old, Batch::default());
    }

    #[test]
    fn the_longest_prefix_wins_and_then_the_metric() {
        let route = |dst: &str, dev: &str, metric| Route {
            dst: dst.parse().unwrap(),
            via: None,
            dev: dev.into(),
            metric,
            rejects: false,
        };
        let view = HostView {
            routes: vec![
                route("0.0.0.0/0", "eth0", 0),
                route("10.244.1.0/24", "a", 20),
                route("10.244.1.0/24", "b", 10),
                route("::/0", "eth1", 0),
            ],
            ..HostView::default()
        };
        let dev = |ip: &str| view.route_to(ip.parse().unwrap()).map(|r| r.dev.as_str());
        assert_eq!(dev("10.244.1.9"), Some("b"));
        assert_eq!(dev("10.0.0.1"), Some("eth0"));
        assert_eq!(dev("fd00::1"), Some("eth1"));
    }
}
