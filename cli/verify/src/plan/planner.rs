//! The probes of each kind of check, for one family.

use std::net::{IpAddr, SocketAddr};

use kindnet_api::node::Family;
use kindnet_probe::wire::Action;

use super::{Expect, Key, Target, Use, Work, action, pod_name};
use crate::catalogue::{Kind, Traffic};
use crate::topology::{PodState, Role, Source, Topology};

/// A name that exists wherever names outside of a cluster resolve (RFC 2606, RFC 6761), in both
/// families.
const OUTSIDE_NAME: &str = "example.com.";

/// Decides for one family.
pub(super) struct Planner<'a> {
    pub(super) topology: &'a Topology,
    pub(super) family: Family,
}

impl Planner<'_> {
    /// What a check consists of.
    pub(super) fn work(&self, kind: Kind) -> Work {
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
            Role::Host => matches!(self.topology.nodes[source.node].host, PodState::Running(_)),
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
            .filter(|_| self.any_server_runs())
            .collect();
        self.finish(uses, false)
    }

    /// A Service without pods behind it answers nobody, which is no fault of the Service.
    fn any_server_runs(&self) -> bool {
        self.topology
            .chosen()
            .any(|node| self.server(node).is_some())
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
        for a in self.topology.chosen().filter(|_| self.any_server_runs()) {
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
                Target::HostPort(b),
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
