//! Which probes decide about which check. Pure: a [`Topology`] in, a [`Plan`] out.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use kindnet_api::node::Family;
use kindnet_probe::wire::Action;

use crate::catalogue::{Kind, Spec, Traffic};
use crate::topology::{Role, Source, Topology};

const SMALL: u32 = 64;
const DATAGRAM: u32 = 512;
const BODY: u32 = 64 << 10;

/// A name that exists wherever names outside of a cluster resolve (RFC 2606, RFC 6761), in both
/// families.
const OUTSIDE_NAME: &str = "example.com.";

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

struct Planner<'a> {
    topology: &'a Topology,
    family: Family,
}

impl Planner<'_> {
    fn work(&self, kind: Kind) -> Work {
        match kind {
            Kind::PodStart => Work::Pods,
            Kind::Conflist | Kind::Routes => Work::Hosts,
            Kind::SameNode(traffic) => self.pod_to_pod(true, traffic),
            Kind::CrossNode(traffic) => self.pod_to_pod(false, traffic),
            Kind::PodSource => self.pod_source(),
            Kind::ClusterIp(traffic) => self.cluster_ip(traffic),
            Kind::NodePort => self.node_port(),
            Kind::Headless => self.headless(),
            Kind::NodeToOwnPod => self.node_to_pod(true),
            Kind::NodeToRemotePod => self.node_to_pod(false),
            Kind::OwnPodToNode => self.pod_to_node(true),
            Kind::RemotePodToNode => self.pod_to_node(false),
            Kind::HostPortFromPod => self.host_port(Role::Client),
            Kind::HostPortFromNode => self.host_port(Role::Host),
            Kind::DnsService | Kind::DnsSearch | Kind::DnsKubernetes | Kind::DnsOutside => {
                self.dns(kind)
            }
            Kind::Outside => self.outside(),
        }
    }

    /// Pairs of chosen nodes: each with itself, or each with each other one.
    fn pairs(&self, same: bool) -> Vec<(usize, usize)> {
        let chosen: Vec<usize> = self.topology.chosen().collect();
        chosen
            .iter()
            .flat_map(|a| chosen.iter().map(move |b| (*a, *b)))
            .filter(|(a, b)| (a == b) == same)
            .collect()
    }

    fn name(&self, node: usize) -> &str {
        &self.topology.nodes[node].name
    }

    /// A probe, where its source runs.
    fn usage(
        &self,
        source: Source,
        action: Action,
        subject: String,
        expect: Expect,
        target: Target,
    ) -> Option<Use> {
        let runs = match source.role {
            Role::Host => matches!(
                self.topology.nodes[source.node].host,
                crate::topology::PodState::Running(_)
            ),
            role => self.topology.nodes[source.node]
                .pod(role)
                .address(self.family)
                .is_some(),
        };
        runs.then_some(Use {
            key: Key { source, action },
            subject,
            expect,
            target,
        })
    }

    fn finish(&self, uses: Vec<Use>, across: bool) -> Work {
        if !uses.is_empty() {
            return Work::Probes(uses);
        }
        Work::Skip(if across && self.topology.chosen().count() < 2 {
            "needs a second node".to_owned()
        } else {
            format!("no check pod has an {} address", self.family)
        })
    }

    fn server(&self, node: usize) -> Option<SocketAddr> {
        let ip = self.topology.nodes[node].server.address(self.family)?;
        Some(SocketAddr::new(ip, self.topology.pod_port))
    }

    fn server_expected(&self, node: usize) -> Expect {
        Expect {
            pods: vec![pod_name(Source {
                node,
                role: Role::Server,
            })],
            peer: None,
        }
    }

    fn any_server(&self) -> Expect {
        Expect {
            pods: self
                .topology
                .chosen()
                .map(|node| {
                    pod_name(Source {
                        node,
                        role: Role::Server,
                    })
                })
                .collect(),
            peer: None,
        }
    }

    fn pod_to_pod(&self, same: bool, traffic: Traffic) -> Work {
        let mut uses = Vec::new();
        for (a, b) in self.pairs(same) {
            let Some(to) = self.server(b) else { continue };
            let source = Source {
                node: a,
                role: Role::Client,
            };
            uses.extend(self.usage(
                source,
                action(traffic, to),
                self.between(a, b),
                self.server_expected(b),
                Target::Pod(b),
            ));
        }
        self.finish(uses, !same)
    }

    fn between(&self, a: usize, b: usize) -> String {
        if a == b {
            format!("pods on {}", self.name(a))
        } else {
            format!("pod on {} to pod on {}", self.name(a), self.name(b))
        }
    }

    fn pod_source(&self) -> Work {
        let mut uses = Vec::new();
        for (a, b) in [self.pairs(true), self.pairs(false)].concat() {
            let Some(to) = self.server(b) else { continue };
            let source = Source {
                node: a,
                role: Role::Client,
            };
            let own = self.topology.nodes[a].client.address(self.family);
            // The same probes as those of the TCP checks: they are not sent twice.
            uses.extend(self.usage(
                source,
                action(Traffic::Tcp, to),
                self.between(a, b),
                Expect {
                    peer: own,
                    ..Expect::default()
                },
                Target::Pod(b),
            ));
        }
        self.finish(uses, false)
    }

    fn cluster_ip(&self, traffic: Traffic) -> Work {
        let Some(services) = self.topology.services(self.family) else {
            return self.no_service();
        };
        let to = SocketAddr::new(services.cluster_ip, self.topology.pod_port);
        let uses = self
            .topology
            .chosen()
            .flat_map(|node| [(node, Role::Client), (node, Role::Host)])
            .filter_map(|(node, role)| {
                self.usage(
                    Source { node, role },
                    action(traffic, to),
                    format!("{} to {}", self.who(node, role), to.ip()),
                    self.any_server(),
                    Target::Service,
                )
            })
            .collect();
        self.finish(uses, false)
    }

    fn no_service(&self) -> Work {
        Work::Skip(format!(
            "the cluster gives Services no {} address",
            self.family
        ))
    }

    fn who(&self, node: usize, role: Role) -> String {
        match role {
            Role::Host => format!("node {}", self.name(node)),
            _ => format!("pod on {}", self.name(node)),
        }
    }

    fn node_port(&self) -> Work {
        let Some(services) = self.topology.services(self.family) else {
            return self.no_service();
        };
        let mut uses = Vec::new();
        for a in self.topology.chosen() {
            for b in self.topology.chosen() {
                let Some(ip) = self.topology.nodes[b].address(self.family) else {
                    continue;
                };
                let to = SocketAddr::new(ip, services.node_port);
                for role in [Role::Client, Role::Host] {
                    uses.extend(self.usage(
                        Source { node: a, role },
                        action(Traffic::Tcp, to),
                        format!("{} to node {}", self.who(a, role), self.name(b)),
                        self.any_server(),
                        Target::Service,
                    ));
                }
            }
        }
        self.finish(uses, false)
    }

    /// The name must stand for exactly the pods behind it; that those answer is checked elsewhere.
    fn headless(&self) -> Work {
        if let Some(reason) = &self.topology.no_dns {
            return Work::Skip(reason.clone());
        }
        let Some(services) = self.topology.services(self.family) else {
            return self.no_service();
        };
        let pods = self
            .topology
            .chosen()
            .filter_map(|node| self.topology.nodes[node].server.address(self.family))
            .collect();
        let name = format!("{}.{}.svc", services.headless, self.topology.namespace);
        self.names(name, pods)
    }

    fn names(&self, name: String, expect: Vec<IpAddr>) -> Work {
        let uses = self
            .topology
            .chosen()
            .filter_map(|node| {
                let source = Source {
                    node,
                    role: Role::Client,
                };
                self.usage(
                    source,
                    Action::Dns {
                        name: name.clone(),
                        v6: self.family == Family::V6,
                        expect: expect.clone(),
                    },
                    format!("pod on {}", self.name(node)),
                    Expect::default(),
                    Target::Dns,
                )
            })
            .collect();
        self.finish(uses, false)
    }

    fn node_to_pod(&self, same: bool) -> Work {
        let mut uses = Vec::new();
        for (a, b) in self.pairs(same) {
            let Some(to) = self.server(b) else { continue };
            for traffic in [Traffic::Tcp, Traffic::Icmp] {
                uses.extend(self.usage(
                    Source {
                        node: a,
                        role: Role::Host,
                    },
                    action(traffic, to),
                    format!("node {} to pod on {}", self.name(a), self.name(b)),
                    self.server_expected(b),
                    Target::Pod(b),
                ));
            }
        }
        self.finish(uses, !same)
    }

    fn pod_to_node(&self, same: bool) -> Work {
        let mut uses = Vec::new();
        for (a, b) in self.pairs(same) {
            let Some(ip) = self.topology.nodes[b].address(self.family) else {
                continue;
            };
            let to = SocketAddr::new(ip, self.topology.host_network_port);
            for traffic in [Traffic::Tcp, Traffic::Icmp] {
                uses.extend(self.usage(
                    Source {
                        node: a,
                        role: Role::Client,
                    },
                    action(traffic, to),
                    format!("pod on {} to node {}", self.name(a), self.name(b)),
                    Expect {
                        pods: vec![pod_name(Source {
                            node: b,
                            role: Role::Host,
                        })],
                        peer: None,
                    },
                    Target::Node(b),
                ));
            }
        }
        self.finish(uses, !same)
    }

    fn host_port(&self, role: Role) -> Work {
        let mut uses = Vec::new();
        let pairs = match role {
            // Locally generated packets take another path through netfilter; `portmap` covers them
            // only where the address is that of a link, so only other nodes are asked here.
            Role::Host => self.pairs(false),
            _ => [self.pairs(true), self.pairs(false)].concat(),
        };
        for (a, b) in pairs {
            let (Some(ip), Some(_)) = (self.topology.nodes[b].address(self.family), self.server(b))
            else {
                continue;
            };
            let to = SocketAddr::new(ip, self.topology.host_port);
            uses.extend(self.usage(
                Source { node: a, role },
                action(Traffic::Tcp, to),
                format!("{} to node {}", self.who(a, role), self.name(b)),
                self.server_expected(b),
                Target::Pod(b),
            ));
        }
        self.finish(uses, role == Role::Host)
    }

    fn dns(&self, kind: Kind) -> Work {
        if let Some(reason) = &self.topology.no_dns {
            return Work::Skip(reason.clone());
        }
        let kubernetes: Vec<IpAddr> = self
            .topology
            .kubernetes
            .iter()
            .copied()
            .filter(|ip| Family::of(*ip) == self.family)
            .collect();
        match kind {
            Kind::DnsKubernetes if kubernetes.is_empty() => Work::Skip(format!(
                "the Service kubernetes has no {} address",
                self.family
            )),
            Kind::DnsKubernetes => self.names("kubernetes.default.svc".to_owned(), kubernetes),
            Kind::DnsOutside => self.outside_name(),
            _ => {
                let Some(services) = self.topology.services(self.family) else {
                    return self.no_service();
                };
                let name = match kind {
                    Kind::DnsSearch => services.name.clone(),
                    _ => format!("{}.{}.svc", services.name, self.topology.namespace),
                };
                self.names(name, vec![services.cluster_ip])
            }
        }
    }

    /// Nodes ask their own resolver: where they cannot resolve names either, pods need not.
    fn outside_name(&self) -> Work {
        let mut work = self.names(OUTSIDE_NAME.to_owned(), Vec::new());
        if let Work::Probes(uses) = &mut work {
            let of_hosts: Vec<Use> = uses
                .iter()
                .filter_map(|usage| {
                    let node = usage.key.source.node;
                    self.usage(
                        Source {
                            node,
                            role: Role::Host,
                        },
                        usage.key.action.clone(),
                        self.who(node, Role::Host),
                        Expect::default(),
                        Target::Dns,
                    )
                })
                .collect();
            uses.extend(of_hosts);
        }
        work
    }

    fn outside(&self) -> Work {
        let outside = match &self.topology.outside {
            Ok(addresses) => addresses,
            Err(reason) => return Work::Skip(reason.clone()),
        };
        let Some(to) = outside
            .iter()
            .copied()
            .find(|a| Family::of(a.ip()) == self.family)
        else {
            return Work::Skip(format!("the outside host has no {} address", self.family));
        };
        let mut uses = Vec::new();
        for node in self.topology.chosen() {
            for traffic in [Traffic::Tcp, Traffic::Udp] {
                uses.extend(self.usage(
                    Source {
                        node,
                        role: Role::Client,
                    },
                    action(traffic, to),
                    format!("pod on {} to {}", self.name(node), to),
                    Expect {
                        pods: Vec::new(),
                        peer: self.topology.nodes[node].address(self.family),
                    },
                    Target::Outside,
                ));
            }
        }
        self.finish(uses, false)
    }
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
