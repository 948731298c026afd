//! Where a packet stopped. Failed checks are looked into hop by hop: [`hops`] lists the probes that
//! takes, [`explain`] draws conclusions from them and from what the hosts report. Pure.

mod path;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use kindnet_api::node::Family;
use kindnet_probe::wire::{Action, HostView, ProblemKind};

use crate::catalogue::{Kind, Traffic};
use crate::evaluate::{Answers, Evaluated};
use crate::hosts::{no_address, route_problem};
use crate::plan::{Key, Target, action};
use crate::topology::{Role, Source, Topology};
use path::{Hop, Path, SIZES};

/// The probes that look into the failures.
#[must_use]
pub fn hops(topology: &Topology, evaluated: &[Evaluated]) -> BTreeMap<Source, Vec<Action>> {
    let mut batches: BTreeMap<Source, Vec<Action>> = BTreeMap::new();
    for path in failed(topology, evaluated) {
        for (source, action) in path.hops() {
            let batch = batches.entry(source).or_default();
            if !batch.contains(&action) {
                batch.push(action);
            }
        }
    }
    for (key, target, family) in elsewhere_failed(evaluated) {
        let more = match target {
            Target::Service => direct(topology, family, key)
                .into_iter()
                .map(|action| (key.source, action))
                .collect(),
            _ => vec![from_host(key)],
        };
        for (source, action) in more {
            let batch = batches.entry(source).or_default();
            if !batch.contains(&action) {
                batch.push(action);
            }
        }
    }
    batches
}

/// The same packet from the host: does it get through without a pod?
fn from_host(key: &Key) -> (Source, Action) {
    let source = Source {
        role: Role::Host,
        ..key.source
    };
    (source, key.action.clone())
}

/// Failures of Services and of what is outside.
fn elsewhere_failed(evaluated: &[Evaluated]) -> impl Iterator<Item = (&Key, Target, Family)> {
    evaluated
        .iter()
        .filter_map(|check| Some((check, check.instance.family?)))
        .flat_map(|(check, family)| check.findings.iter().map(move |f| (f, family)))
        .filter_map(|(finding, family)| match &finding.probe {
            Some((key, target @ (Target::Service | Target::Outside), Some(_))) => {
                Some((key, *target, family))
            }
            _ => None,
        })
}

/// The probes of every server without a Service.
fn direct(topology: &Topology, family: Family, key: &Key) -> Vec<Action> {
    let traffic = match key.action {
        Action::Udp { .. } => Traffic::Udp,
        _ => Traffic::Tcp,
    };
    topology
        .chosen()
        .filter_map(|node| topology.nodes[node].server.address(family))
        .map(|ip| action(traffic, SocketAddr::new(ip, topology.pod_port)))
        .collect()
}

/// Says for each failure where the packet stopped, as far as that can be told.
pub fn explain(topology: &Topology, evaluated: &mut [Evaluated], answers: &Answers) {
    for check in evaluated {
        let Some(family) = check.instance.family else {
            continue;
        };
        let kind = check.instance.spec.kind;
        for finding in &mut check.findings {
            let Some((key, target, problem)) = &finding.probe else {
                continue;
            };
            finding.failure.stopped_at = match (Path::new(topology, family, key, *target), problem)
            {
                (Some(path), Some(problem)) => Some(Judge { path, answers }.verdict(*problem)),
                (_, None) if kind == Kind::PodSource => {
                    let owner = finding.seen_from.and_then(|ip| topology.owner(ip));
                    owner.map(|node| format!("node {} masquerades traffic between pods", node.name))
                }
                (_, None) if kind == Kind::Outside => Some(format!(
                    "node {} does not masquerade what its pods send out of the cluster",
                    topology.nodes[key.source.node].name
                )),
                (None, Some(problem)) => elsewhere(topology, answers, key, *target, *problem),
                _ => None,
            };
        }
    }
}

fn failed<'a>(
    topology: &'a Topology,
    evaluated: &'a [Evaluated],
) -> impl Iterator<Item = Path<'a>> {
    evaluated
        .iter()
        .filter_map(|check| Some((check, check.instance.family?)))
        .flat_map(|(check, family)| check.findings.iter().map(move |f| (f, family)))
        .filter_map(move |(finding, family)| {
            let (key, target, problem) = finding.probe.as_ref()?;
            problem.as_ref()?;
            Path::new(topology, family, key, *target)
        })
}

/// Looks at the hops of a path.
struct Judge<'a> {
    path: Path<'a>,
    answers: &'a Answers,
}

impl Judge<'_> {
    fn passed(&self, hop: Hop) -> Option<bool> {
        let (source, action) = hop?;
        self.answers.passed(source, &action)
    }

    /// Neither way got through.
    fn unreached(&self, hops: [Hop; 2]) -> bool {
        let results = hops.map(|hop| self.passed(hop));
        results.contains(&Some(false)) && !results.contains(&Some(true))
    }

    fn verdict(&self, problem: ProblemKind) -> String {
        let path = &self.path;
        let small_passes = self.passed(path.directly()) == Some(true);
        if path.is_big()
            && (small_passes || problem == ProblemKind::TooBig)
            && let Some(verdict) = self.size()
        {
            return verdict;
        }
        self.configuration()
            .unwrap_or_else(|| self.hop_by_hop(problem))
    }

    /// A route or a switch on either node that explains it.
    fn configuration(&self) -> Option<String> {
        let path = &self.path;
        if path.a != path.b {
            let unroutable = [(path.b, path.to_pod()), (path.a, path.from_pod)]
                .into_iter()
                .filter(|(_, pods)| *pods && path.topology.not_kindnet.is_none())
                .map(|(node, _)| &path.topology.nodes[node])
                .find_map(|node| Some((node, no_address(node, path.family)?)));
            if let Some((node, problem)) = unroutable {
                return Some(format!(
                    "no node has a route to the pods of node {}: it has {problem}",
                    node.name
                ));
            }
            let there = self.route(path.a, path.b, path.to_pod());
            if let Some(problem) = there {
                return Some(format!(
                    "between {} and {}: {} has {problem}",
                    path.a_name(),
                    path.b_name(),
                    path.a_name(),
                ));
            }
            let back = self.route(path.b, path.a, path.from_pod && path.to_pod());
            if let Some(problem) = back {
                return Some(format!(
                    "on the way back, between {} and {}: {} has {problem}",
                    path.b_name(),
                    path.a_name(),
                    path.b_name()
                ));
            }
        }
        for (node, name) in [(path.a, path.a_name()), (path.b, path.b_name())] {
            let forwards = self
                .answers
                .host(node)
                .is_none_or(|view| match path.family {
                    Family::V4 => view.forwarding_v4,
                    Family::V6 => view.forwarding_v6,
                });
            if !forwards {
                return Some(format!("on {name}: {} forwarding is off", path.family));
            }
        }
        None
    }

    /// What is wrong with the route to the pods of another node, where pods are meant.
    fn route(&self, from: usize, to: usize, pods: bool) -> Option<String> {
        if !pods || self.path.topology.not_kindnet.is_some() {
            return None;
        }
        let view = self.answers.host(from)?;
        let via = self.path.node_ip(to)?;
        self.path.topology.nodes[to]
            .pod_cidrs
            .iter()
            .filter(|c| Family::of_net(c) == self.path.family)
            .find_map(|cidr| route_problem(view, *cidr, via))
            .map(|problem| {
                if problem.starts_with("no ") || problem.starts_with("a ") {
                    problem
                } else {
                    format!("a wrong route: {problem}")
                }
            })
    }

    fn hop_by_hop(&self, problem: ProblemKind) -> String {
        let path = &self.path;
        let (a, b) = (path.a_name(), path.b_name());
        if path.from_pod && self.unreached(path.own_node()) {
            return format!("between the pod and its own {a}, which it does not reach");
        }
        if path.a != path.b && self.unreached(path.between_nodes()) {
            return format!("between {a} and {b}: the nodes do not reach each other");
        }
        if path.a != path.b && path.from_pod && self.unreached(path.other_node()) {
            return format!("on {a}: it reaches {b} itself but does not forward its pod's packets");
        }
        match path.target {
            Target::HostPort(_) if self.passed(path.directly()) == Some(true) => {
                format!(
                    "on {b}: it does not forward the hostPort to its pod, which is reached directly"
                )
            }
            Target::Node(_) if problem == ProblemKind::Refused => {
                format!("on {b}: nothing listens")
            }
            Target::Node(_) => format!("on {b}: it is reached, but drops this traffic"),
            _ => {
                let verdict = self.within(
                    self.passed(path.start_at_b()),
                    self.passed(path.start_at_a()),
                );
                match self.passed(path.other_traffic()) {
                    Some(true) => format!("{verdict}; other traffic passes, this is filtered"),
                    _ => verdict,
                }
            }
        }
    }

    /// Nodes reach each other: what is left are the nodes' own insides.
    fn within(&self, from_b: Option<bool>, from_a: Option<bool>) -> String {
        let path = &self.path;
        let (a, b) = (path.a_name(), path.b_name());
        match (from_b, from_a) {
            (Some(false), _) => format!("between {b} and its own pod, which it does not reach"),
            (Some(true), Some(true)) if path.from_pod => {
                format!("on {a}: it reaches the pod itself but does not forward its pod's packets")
            }
            (Some(true), Some(false)) if path.a != path.b => {
                format!("on {b}: it reaches its pod itself but does not forward packets to it")
            }
            _ => format!("somewhere between {a} and the pod on {b}"),
        }
    }

    /// The first link that is too small, or what the path carries.
    fn size(&self) -> Option<String> {
        let path = &self.path;
        let to = path.pod()?;
        let carried = SIZES
            .iter()
            .copied()
            .find(|size| self.passed(path.sized(*size)) == Some(true))?;
        let small = |node: usize, toward: IpAddr, what: &str| {
            let view: &HostView = self.answers.host(node)?;
            let link = view.link(&view.route_to(toward)?.dev)?;
            let name = &path.topology.nodes[node].name;
            // A link is not to blame for what is lost below its own MTU.
            let next = SIZES.iter().rev().copied().find(|s| *s > carried)?;
            (link.mtu < next).then(|| {
                format!(
                    "link {} of node {name} {what}, whose MTU is {}",
                    link.name, link.mtu
                )
            })
        };
        let client = path.topology.nodes[path.a].client.address(path.family);
        let place = client
            .and_then(|ip| small(path.a, ip, "to the pod"))
            .or_else(|| small(path.a, to.ip(), "to the other node"))
            .or_else(|| small(path.b, client?, "to the other node"))
            .or_else(|| small(path.b, to.ip(), "to the pod"));
        Some(match place {
            Some(place) => format!("at {place}"),
            None => format!("on the way: packets of {carried} bytes get through"),
        })
    }
}

/// Failures whose way cannot be followed from node to node.
fn elsewhere(
    topology: &Topology,
    answers: &Answers,
    key: &Key,
    target: Target,
    problem: ProblemKind,
) -> Option<String> {
    let node = &topology.nodes[key.source.node].name;
    match target {
        Target::Service => Some(match servers_reached(topology, answers, key) {
            Some(false) => {
                "on the way to the pods behind it, which are not reached directly either".to_owned()
            }
            _ => match node_asked(topology, key) {
                Some(asked) => format!(
                    "on node {asked}: its NodePort does not lead to the pods behind it, which are \
                     reached directly"
                ),
                None => format!(
                    "at node {node}'s Service rules (kube-proxy): the pods behind it are reached \
                     directly"
                ),
            },
        }),
        Target::Dns => match problem {
            ProblemKind::Timeout | ProblemKind::Unreachable | ProblemKind::Refused => {
                Some(match topology.dns_nodes.as_slice() {
                    [] => "at the Service kube-dns: no ready pod is known behind it".to_owned(),
                    nodes => format!("on the way to the name server on {}", nodes.join(", ")),
                })
            }
            _ => None,
        },
        Target::Outside => {
            let (host, action) = from_host(key);
            Some(match answers.passed(host, &action) {
                Some(false) => format!("between node {node} and the outside host"),
                _ => format!(
                    "node {node} itself reaches the outside host: its pods' packets are not \
                     forwarded, or leave with an address nobody outside can answer to"
                ),
            })
        }
        Target::Pod(_) | Target::HostPort(_) | Target::Node(_) => None,
    }
}

/// The node a NodePort was asked of; none for a ClusterIP.
fn node_asked<'a>(topology: &'a Topology, key: &Key) -> Option<&'a str> {
    let (Action::Tcp { to, .. } | Action::Udp { to, .. }) = &key.action else {
        return None;
    };
    let node = topology
        .nodes
        .iter()
        .find(|n| n.addresses.contains(&to.ip()))?;
    Some(&node.name)
}

/// Whether the source reaches all servers without a Service.
fn servers_reached(topology: &Topology, answers: &Answers, key: &Key) -> Option<bool> {
    let family = match &key.action {
        Action::Tcp { to, .. } | Action::Udp { to, .. } => Family::of(to.ip()),
        _ => return None,
    };
    let results: Vec<bool> = direct(topology, family, key)
        .iter()
        .filter_map(|action| answers.passed(key.source, action))
        .collect();
    (!results.is_empty()).then(|| results.iter().all(|passed| *passed))
}

#[cfg(test)]
mod tests;
