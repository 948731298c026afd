//! A two-node dual-stack cluster for tests, and a network between its pods that can be broken.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use kindnet_api::conflist::Conflist;
use kindnet_api::names;
use kindnet_api::node::Family;
use kindnet_probe::wire::{
    Action, Answer, ConfFile, Echo, HostView, Link, Problem, ProblemKind, Route, Seen,
};

use crate::catalogue::{self, Spec};
use crate::diagnose;
use crate::evaluate::{Answers, Evaluated, evaluate};
use crate::plan::{Key, Plan, pod_name};
use crate::topology::{PodState, Role, Services, Source, TestNode, Topology};

fn ips(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

pub fn topology() -> Topology {
    let node = |n: usize, name: &str| TestNode {
        name: name.into(),
        addresses: ips(&[format!("172.18.0.{}", n + 2), format!("fc00::{}", n + 2)]),
        pod_cidrs: vec![
            format!("10.244.{n}.0/24").parse().unwrap(),
            format!("fd00:10:244:{n}::/64").parse().unwrap(),
        ],
        chosen: true,
        client: PodState::Running(ips(&[
            format!("10.244.{n}.2"),
            format!("fd00:10:244:{n}::2"),
        ])),
        server: PodState::Running(ips(&[
            format!("10.244.{n}.3"),
            format!("fd00:10:244:{n}::3"),
        ])),
        host: PodState::Running(ips(&[format!("172.18.0.{}", n + 2)])),
    };
    let services = |family, cluster_ip: &str| Services {
        family,
        cluster_ip: cluster_ip.parse().unwrap(),
        node_port: 30007,
        name: crate::objects::service_name(family),
        headless: crate::objects::headless_name(family),
    };
    Topology {
        namespace: "kindnet-verify-abc123".into(),
        families: Family::ALL.to_vec(),
        nodes: vec![node(0, "alpha"), node(1, "beta")],
        services: vec![
            services(Family::V4, "10.96.0.7"),
            services(Family::V6, "fd00:10:96::7"),
        ],
        pod_port: 7100,
        host_network_port: 21000,
        host_port: 21001,
        no_dns: None,
        dns_nodes: vec!["beta".into()],
        kubernetes: vec!["10.96.0.1".parse().unwrap()],
        outside: Ok(vec![
            "172.18.0.9:7100".parse().unwrap(),
            "[fc00::9]:7100".parse().unwrap(),
        ]),
        not_kindnet: None,
    }
}

/// How a host looks when all is well.
pub fn view(topology: &Topology, node: usize) -> HostView {
    let route = |dst: String, via: Option<IpAddr>, dev: &str| Route {
        dst: dst.parse().unwrap(),
        via,
        dev: dev.into(),
        metric: 0,
        rejects: false,
    };
    let link = |name: &str| Link {
        name: name.into(),
        mtu: 1500,
    };
    let mut routes = vec![
        route(
            "0.0.0.0/0".into(),
            Some("172.18.0.1".parse().unwrap()),
            "eth0",
        ),
        route("::/0".into(), Some("fc00::1".parse().unwrap()), "eth0"),
    ];
    let own = &topology.nodes[node];
    for (role, dev) in [(Role::Client, "veth-client"), (Role::Server, "veth-server")] {
        if let PodState::Running(ips) = own.pod(role) {
            for ip in ips {
                let bits = if ip.is_ipv4() { 32 } else { 128 };
                routes.push(route(format!("{ip}/{bits}"), None, dev));
            }
        }
    }
    for (index, peer) in topology.nodes.iter().enumerate() {
        for cidr in peer.pod_cidrs.iter().filter(|_| index != node) {
            let via = peer.address(Family::of_net(cidr));
            routes.push(route(cidr.to_string(), via, "eth0"));
        }
    }
    HostView {
        links: vec![link("eth0"), link("veth-client"), link("veth-server")],
        routes,
        forwarding_v4: true,
        forwarding_v6: true,
        conf_files: vec![ConfFile {
            name: names::CONFLIST_FILE.into(),
            content: Conflist::standard(&own.pod_cidrs, Some(1500)).to_json(),
        }],
    }
}

/// A packet on its way, as the rules of a broken network see it.
pub struct Packet<'a> {
    pub source: Source,
    pub action: &'a Action,
    /// Where it ends, when it ends at a check pod or a node.
    pub target: Option<Source>,
    pub family: Family,
}

impl Packet<'_> {
    pub fn crosses(&self) -> bool {
        self.target.is_some_and(|t| t.node != self.source.node)
    }

    /// Size of a packet that must not be fragmented, in bytes.
    pub fn size(&self) -> u32 {
        match self.action {
            Action::DontFragment { size, .. } => size.unwrap_or(1500),
            _ => 0,
        }
    }
}

/// What becomes of a packet.
pub enum Fate {
    Arrives,
    Lost(ProblemKind),
    /// Arrives with another source address.
    From(IpAddr),
}

/// Answers every probe as a network would whose packets meet these fates.
pub struct Network<'a> {
    pub topology: &'a Topology,
    pub views: Vec<HostView>,
    pub fate: &'a dyn Fn(&Packet<'_>) -> Fate,
}

impl Network<'_> {
    pub fn answers(&self, batches: BTreeMap<Source, Vec<Action>>) -> Answers {
        let mut answers = Answers::default();
        for (source, actions) in batches {
            for action in actions {
                let result = self.answer(source, &action);
                let answer = Answer {
                    id: 0,
                    attempts: 1,
                    micros: 1500,
                    result,
                };
                answers.answers.insert(Key { source, action }, answer);
            }
        }
        answers
    }

    fn answer(&self, source: Source, action: &Action) -> Result<Seen, Problem> {
        let to = match action {
            Action::Inspect { .. } => {
                return Ok(Seen::Host(Box::new(self.views[source.node].clone())));
            }
            Action::Dns { name, expect, .. } => {
                return Ok(Seen::Names {
                    addresses: expect.clone(),
                    name: name.clone(),
                    server: "10.96.0.10".parse().unwrap(),
                });
            }
            Action::Tcp { to, .. } | Action::Udp { to, .. } | Action::DontFragment { to, .. } => {
                *to
            }
            Action::Icmp { to } => SocketAddr::new(*to, 0),
        };
        let family = Family::of(to.ip());
        let packet = Packet {
            source,
            action,
            target: self.target(to),
            family,
        };
        let own = self.own_address(source, to, family);
        let peer = match (self.fate)(&packet) {
            Fate::Arrives => own,
            Fate::From(ip) => ip,
            Fate::Lost(kind) => return Err(Problem::new(kind, "no answer in time")),
        };
        if matches!(action, Action::Icmp { .. }) {
            return Ok(Seen::Nothing);
        }
        // Behind a Service any server may answer.
        let target = packet.target.unwrap_or(Source {
            node: 0,
            role: Role::Server,
        });
        Ok(Seen::Echo(Echo {
            peer: SocketAddr::new(peer, 40000),
            local: SocketAddr::new(own, 40000),
            pod: pod_name(target),
            node: self.topology.nodes[target.node].name.clone(),
            bytes: match action {
                Action::DontFragment { size, .. } => size.unwrap_or(1500),
                _ => 64,
            },
        }))
    }

    /// Whose address a packet that leaves the cluster has is that of the node.
    fn own_address(&self, source: Source, to: SocketAddr, family: Family) -> IpAddr {
        let node = &self.topology.nodes[source.node];
        let outside = self
            .topology
            .outside
            .as_ref()
            .is_ok_and(|o| o.contains(&to));
        let pod = node.pod(source.role).address(family);
        match (source.role, outside) {
            (Role::Host, _) | (_, true) => node.address(family).unwrap_or(node.addresses[0]),
            _ => pod.unwrap(),
        }
    }

    fn target(&self, to: SocketAddr) -> Option<Source> {
        let family = Family::of(to.ip());
        let nodes = self.topology.nodes.iter().enumerate();
        let mut found = nodes.filter_map(|(node, n)| {
            let of = |role| Some(Source { node, role });
            if n.server.address(family) == Some(to.ip()) {
                return of(Role::Server);
            }
            if n.address(family) != Some(to.ip()) {
                return None;
            }
            match to.port() {
                port if port == self.topology.host_port => of(Role::Server),
                30007 => None,
                _ => of(Role::Host),
            }
        });
        found.next()
    }
}

/// Runs the checks on a network, as a run does.
pub fn verify(network: &Network<'_>, only: &[&str]) -> Vec<Evaluated> {
    let only: Vec<String> = only.iter().map(|o| (*o).to_owned()).collect();
    let specs: Vec<&'static Spec> = catalogue::select(&only).unwrap();
    let topology = network.topology;
    let plan = Plan::new(topology, &specs);
    let mut answers = network.answers(plan.batches(topology));
    let mut evaluated = evaluate(topology, &plan, &answers);
    let more = network.answers(diagnose::hops(topology, &evaluated));
    for (key, answer) in more.answers {
        answers.answers.entry(key).or_insert(answer);
    }
    diagnose::explain(topology, &mut evaluated, &answers);
    evaluated
}

/// Identifier and family of every check that failed.
pub fn failed(evaluated: &[Evaluated]) -> Vec<(&'static str, Option<Family>)> {
    evaluated
        .iter()
        .filter(|e| !e.findings.is_empty())
        .map(|e| (e.instance.spec.id, e.instance.family))
        .collect()
}

/// Where packets of a check stopped.
pub fn stopped(evaluated: &[Evaluated], id: &str) -> Vec<String> {
    evaluated
        .iter()
        .filter(|e| e.instance.spec.id == id)
        .flat_map(|e| &e.findings)
        .filter_map(|f| f.failure.stopped_at.clone())
        .collect()
}
