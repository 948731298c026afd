//! Which probes decide about which check. Pure: a [`Topology`] in, a [`Plan`] out.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use kindnet_api::node::Family;
use kindnet_probe::wire::Action;

use crate::catalogue::{Spec, Traffic};
use crate::topology::{Role, Source, Topology};

mod planner;

use planner::Planner;

const SMALL: u32 = 64;
const DATAGRAM: u32 = 512;
const BODY: u32 = 64 << 10;

/// Where the CNI configuration of the host is mounted.
pub const CONF_MOUNT: &str = "/host/etc/cni/net.d";

/// A probe of the plan: who sends what. Equal probes are sent once and serve several checks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who probes.
    pub source: Source,
    /// What is sent.
    pub action: Action,
}

/// What a check wants to know from a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The probe.
    pub key: Key,
    /// Between which ends, for people.
    pub subject: String,
    /// What the answer must say, besides coming back.
    pub expect: Expect,
    /// Where the packet is meant to end.
    pub target: Target,
}

/// What an answer must say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expect {
    /// Pods one of which must answer; empty for any.
    pub pods: Vec<String>,
    /// Address the server must see the request come from.
    pub peer: Option<IpAddr>,
}

/// Where a packet is meant to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The server on a node.
    Pod(usize),
    /// The server on a node, through the node's hostPort.
    HostPort(usize),
    /// A node itself.
    Node(usize),
    /// A Service; whichever pod is behind it.
    Service,
    /// The name server.
    Dns,
    /// Outside of the cluster.
    Outside,
}

/// One check in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The check.
    pub spec: &'static Spec,
    /// The family; none where the check is about both.
    pub family: Option<Family>,
    /// What to do.
    pub work: Work,
}

/// What a check consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Probes.
    Probes(Vec<Use>),
    /// A look at the state of the pods.
    Pods,
    /// A look at what the hosts report.
    Hosts,
    /// Nothing: why it cannot be checked.
    Skip(String),
}

/// All checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the table.
    pub instances: Vec<Instance>,
}

impl Plan {
    /// Makes the plan.
    #[must_use]
    pub fn new(topology: &Topology, specs: &[&'static Spec]) -> Self {
        let mut instances = Vec::new();
        for spec in specs {
            if !spec.per_family() {
                instances.push(Instance {
                    spec,
                    family: None,
                    work: Work::Hosts,
                });
                continue;
            }
            for family in &topology.families {
                instances.push(Instance {
                    spec,
                    family: Some(*family),
                    work: Planner {
                        topology,
                        family: *family,
                    }
                    .work(spec.kind),
                });
            }
        }
        Self { instances }
    }

    /// What each pod has to be asked, without duplicates. Every host is asked how it is configured:
    /// what explains a failure is needed together with it.
    #[must_use]
    pub fn batches(&self, topology: &Topology) -> BTreeMap<Source, Vec<Action>> {
        let mut batches: BTreeMap<Source, Vec<Action>> = BTreeMap::new();
        for node in 0..topology.nodes.len() {
            let key = inspection(node);
            batches.entry(key.source).or_default().push(key.action);
        }
        for usage in self.uses() {
            let batch = batches.entry(usage.key.source).or_default();
            if !batch.contains(&usage.key.action) {
                batch.push(usage.key.action.clone());
            }
        }
        batches
    }

    fn uses(&self) -> impl Iterator<Item = &Use> {
        self.instances.iter().flat_map(|i| match &i.work {
            Work::Probes(uses) => uses.as_slice(),
            _ => &[],
        })
    }
}

/// The probe that reports how a host is configured.
#[must_use]
pub fn inspection(node: usize) -> Key {
    Key {
        source: Source {
            node,
            role: Role::Host,
        },
        action: Action::Inspect {
            conf_dir: CONF_MOUNT.to_owned(),
        },
    }
}

/// Name of a check pod. Nodes have dots in their names now and then, and long ones: the position is
/// enough.
#[must_use]
pub fn pod_name(source: Source) -> String {
    format!("{}-{}", source.role.name(), source.node)
}

/// The probe for a kind of traffic.
#[must_use]
pub fn action(traffic: Traffic, to: SocketAddr) -> Action {
    match traffic {
        Traffic::Tcp => Action::Tcp { to, bytes: SMALL },
        Traffic::Udp => Action::Udp {
            to,
            bytes: DATAGRAM,
        },
        Traffic::Icmp => Action::Icmp { to: to.ip() },
        Traffic::Body => Action::Tcp { to, bytes: BODY },
        Traffic::FullMtu => Action::DontFragment { to, size: None },
    }
}
