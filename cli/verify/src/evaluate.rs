//! What the answers mean. Pure: a plan and the answers in, the outcome of each check out.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kindnet_api::node::Family;
use kindnet_probe::wire::{Action, Answer, HostView, ProblemKind, Seen};

use crate::catalogue::Kind;
use crate::hosts;
use crate::plan::{self, Instance, Key, Plan, Target, Use, Work};
use crate::report::{Check, Failure, Outcome};
use crate::topology::{PodState, Role, Source, Topology};

/// Everything the probes brought back.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Answers by probe.
    pub answers: HashMap<Key, Answer>,
    /// Pods that could not be asked, and why.
    pub unreachable: HashMap<Source, String>,
}

impl Answers {
    /// How a host is configured, where it could be asked.
    #[must_use]
    pub fn host(&self, node: usize) -> Option<&HostView> {
        match &self.answers.get(&plan::inspection(node))?.result {
            Ok(Seen::Host(view)) => Some(view),
            _ => None,
        }
    }

    /// Whether a probe succeeded; none where it was not sent.
    #[must_use]
    pub fn passed(&self, source: Source, action: &Action) -> Option<bool> {
        let key = Key {
            source,
            action: action.clone(),
        };
        Some(self.answers.get(&key)?.result.is_ok())
    }
}

/// A failure together with the probe behind it, so that it can be looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What the report says.
    pub failure: Failure,
    /// The probe, and where it should have ended; none for checks without probes.
    pub probe: Option<(Key, Target, Option<ProblemKind>)>,
    /// Address the server saw, where it is not the expected one.
    pub seen_from: Option<IpAddr>,
}

/// A check with its findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// The check.
    pub instance: Instance,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Why it could not be checked.
    pub skipped: Option<String>,
    /// The longest of its probes.
    pub duration: Duration,
    /// Attempts beyond the first of the probe that took most.
    pub retries: u32,
}

impl Evaluated {
    /// The line of the report.
    #[must_use]
    pub fn into_check(self) -> Check {
        let outcome = match self.skipped {
            Some(reason) => Outcome::Skipped { reason },
            None if self.findings.is_empty() => Outcome::Pass,
            None => Outcome::Fail {
                failures: self.findings.into_iter().map(|f| f.failure).collect(),
            },
        };
        Check {
            id: self.instance.spec.id.to_owned(),
            group: self.instance.spec.group.to_owned(),
            title: self.instance.spec.title.to_owned(),
            family: self.instance.family,
            outcome,
            duration: self.duration,
            retries: self.retries,
        }
    }
}

/// Evaluates every check of the plan.
#[must_use]
pub fn evaluate(topology: &Topology, plan: &Plan, answers: &Answers) -> Vec<Evaluated> {
    plan.instances
        .iter()
        .map(|instance| one(topology, instance, answers))
        .collect()
}

fn one(topology: &Topology, instance: &Instance, answers: &Answers) -> Evaluated {
    let mut result = Evaluated {
        instance: instance.clone(),
        findings: Vec::new(),
        skipped: None,
        duration: Duration::ZERO,
        retries: 0,
    };
    match &instance.work {
        Work::Skip(reason) => result.skipped = Some(reason.clone()),
        Work::Pods => result.findings = pod_states(topology, instance.family),
        Work::Hosts if topology.not_kindnet.is_some() => {
            result.skipped = topology.not_kindnet.clone();
        }
        Work::Hosts => {
            for node in 0..topology.nodes.len() {
                if let Some(answer) = answers.answers.get(&plan::inspection(node)) {
                    result.duration = result.duration.max(answer.duration());
                }
            }
            result.findings = hosts::findings(topology, instance, answers);
        }
        Work::Probes(uses) => probes(topology, uses, answers, &mut result),
    }
    result
}

fn probes(topology: &Topology, uses: &[Use], answers: &Answers, result: &mut Evaluated) {
    for usage in uses {
        let source = usage.key.source;
        let Some(answer) = answers.answers.get(&usage.key) else {
            let why = answers.unreachable.get(&source);
            result.findings.push(Finding {
                failure: Failure {
                    subject: usage.subject.clone(),
                    saw: why.map_or_else(
                        || "the check pod did not answer in time".to_owned(),
                        |why| format!("the check pod cannot be asked: {why}"),
                    ),
                    expected: "an answer of the check pod".to_owned(),
                    stopped_at: None,
                },
                probe: None,
                seen_from: None,
            });
            continue;
        };
        result.duration = result.duration.max(answer.duration());
        if answer.result.is_ok() {
            result.retries = result.retries.max(answer.attempts.saturating_sub(1));
        }
        if let Some(saw) = complaint(topology, usage, answer, answers) {
            let kind = answer.result.as_ref().err().map(|p| p.kind);
            result.findings.push(Finding {
                failure: Failure {
                    subject: usage.subject.clone(),
                    saw,
                    expected: expected(usage),
                    stopped_at: None,
                },
                probe: Some((usage.key.clone(), usage.target, kind)),
                seen_from: match &answer.result {
                    Ok(Seen::Echo(echo)) => Some(echo.peer.ip()),
                    _ => None,
                },
            });
        }
    }
    if result.instance.spec.kind == Kind::PodSource {
        // An address that nobody saw was not changed: the checks of the traffic itself report that.
        result.findings.retain(|f| {
            f.probe
                .as_ref()
                .is_none_or(|(_, _, problem)| problem.is_none())
        });
        if result.findings.is_empty() && uses.iter().all(|u| !came_back(u, answers)) {
            result.skipped = Some("no packet arrived whose source could be looked at".to_owned());
        }
    }
    if result.instance.spec.kind == Kind::DnsOutside {
        names_outside(topology, uses, answers, result);
    }
}

fn came_back(usage: &Use, answers: &Answers) -> bool {
    answers
        .passed(usage.key.source, &usage.key.action)
        .unwrap_or(false)
}

/// Failures of pods count only where their node resolves the name, by a name server that pods could
/// reach as well: in an IPv6-only cluster on a host whose name server has IPv4 only they cannot.
fn names_outside(topology: &Topology, uses: &[Use], answers: &Answers, result: &mut Evaluated) {
    let server_of = |node: usize| {
        let of_host = |u: &&Use| u.key.source.node == node && u.key.source.role == Role::Host;
        let usage = uses.iter().find(of_host)?;
        match &answers.answers.get(&usage.key)?.result {
            Ok(Seen::Names { server, .. }) => Some(*server),
            _ => None,
        }
    };
    let out_of_reach = |node: usize| {
        server_of(node).filter(|server| {
            let pod = &topology.nodes[node].client;
            matches!(pod, PodState::Running(_)) && pod.address(Family::of(*server)).is_none()
        })
    };
    let failed_on_host: Vec<usize> = result
        .findings
        .iter()
        .filter_map(|f| f.probe.as_ref().map(|(key, ..)| key.source))
        .filter(|source| source.role == Role::Host)
        .map(|source| source.node)
        .collect();
    let mut excuse = None;
    result.findings.retain(|f| {
        let Some((key, ..)) = &f.probe else {
            return true;
        };
        let source = key.source;
        if source.role == Role::Host {
            return false;
        }
        if failed_on_host.contains(&source.node) {
            excuse =
                Some("names outside the cluster do not resolve on the nodes either".to_owned());
            return false;
        }
        let Some(server) = out_of_reach(source.node) else {
            return true;
        };
        excuse = Some(format!(
            "the nodes ask name server {server}, and pods have no {} address to ask it from; \
             CoreDNS needs one of their family to forward to",
            Family::of(server)
        ));
        false
    });
    if result.findings.is_empty() {
        result.skipped = excuse;
    }
}

/// What is wrong with an answer, if anything.
fn complaint(
    topology: &Topology,
    usage: &Use,
    answer: &Answer,
    answers: &Answers,
) -> Option<String> {
    let seen = match &answer.result {
        Ok(seen) => seen,
        Err(problem) if answer.attempts > 1 => {
            return Some(format!("{} ({} attempts)", problem.text, answer.attempts));
        }
        Err(problem) => return Some(problem.text.clone()),
    };
    let Seen::Echo(echo) = seen else { return None };
    if !usage.expect.pods.is_empty() && !usage.expect.pods.contains(&echo.pod) {
        return Some(match echo.pod.as_str() {
            "" => "an answer of something that is no check pod".to_owned(),
            pod => format!("an answer of pod {pod} on node {}", echo.node),
        });
    }
    let from = echo.peer.ip();
    // A node may have several addresses; which one its packets leave with is up to its routes.
    let of_node = usage.target == Target::Outside
        && topology.nodes[usage.key.source.node]
            .addresses
            .contains(&from);
    if let Some(peer) = usage.expect.peer
        && from != peer
        && !of_node
    {
        return Some(format!(
            "the packets arrive from {}",
            describe(topology, echo.peer)
        ));
    }
    if let (Action::DontFragment { size: None, .. }, Target::Pod(_)) =
        (&usage.key.action, usage.target)
        && let Some(wanted) = answers
            .host(usage.key.source.node)
            .and_then(|view| hosts::pod_mtu(view, topology, usage.key.source.node))
        && echo.bytes != wanted
    {
        return Some(format!(
            "the pod's link has an MTU of {}, its node's configuration gives {wanted}",
            echo.bytes
        ));
    }
    None
}

/// An address with what it belongs to.
fn describe(topology: &Topology, peer: SocketAddr) -> String {
    let ip = peer.ip();
    let mut text = ip.to_string();
    for node in &topology.nodes {
        if node.addresses.contains(&ip) {
            let _ = write!(text, " (node {})", node.name);
        } else if let Some(cidr) = node.pod_cidrs.iter().find(|c| c.contains(&ip)) {
            let _ = write!(text, " (in {cidr}, pods of node {})", node.name);
        }
    }
    text
}

fn expected(usage: &Use) -> String {
    if let Some(peer) = usage.expect.peer {
        return match usage.target {
            Target::Outside => format!("{peer}, the address of the pod's node"),
            _ => format!("{peer}, the pod's own address"),
        };
    }
    match &usage.key.action {
        Action::Tcp { to, bytes } => format!("{bytes} bytes to {to} over TCP and back"),
        Action::Udp { to, .. } => format!("a datagram to {to} and back"),
        Action::DontFragment { to, .. } => {
            format!("a packet as big as the link's MTU to {to} and back, not fragmented")
        }
        Action::Icmp { to } => format!("an echo reply of {to}"),
        Action::Dns {
            name, v6, expect, ..
        } => {
            let record = if *v6 { "AAAA" } else { "A" };
            let list: Vec<_> = expect.iter().map(ToString::to_string).collect();
            match list.is_empty() {
                true => format!("an {record} record of {name}"),
                false => format!("{record} of {name}: {}", list.join(", ")),
            }
        }
        Action::Inspect { .. } => "the configuration of the host".to_owned(),
    }
}

fn pod_states(topology: &Topology, family: Option<Family>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(family) = family else {
        return findings;
    };
    for node in &topology.nodes {
        for role in [Role::Client, Role::Server] {
            let saw = match node.pod(role) {
                PodState::Absent => continue,
                PodState::Broken(why) => why.clone(),
                PodState::Running(ips) => match node.pod(role).address(family) {
                    None => {
                        let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
                        format!("addresses {}", ips.join(", "))
                    }
                    Some(ip) if in_range(node, family, ip) => continue,
                    Some(ip) => ip.to_string(),
                },
            };
            let cidrs: Vec<_> = node
                .pod_cidrs
                .iter()
                .filter(|c| Family::of_net(c) == family)
                .map(ToString::to_string)
                .collect();
            findings.push(Finding {
                failure: Failure {
                    subject: format!("{} pod on {}", role.name(), node.name),
                    saw,
                    expected: match cidrs.is_empty() {
                        true => format!("a running pod with an {family} address"),
                        false => format!("a running pod with an address in {}", cidrs.join(", ")),
                    },
                    stopped_at: None,
                },
                probe: None,
                seen_from: None,
            });
        }
    }
    findings
}

/// Some networks do not use podCIDRs at all; those nodes have none.
fn in_range(node: &crate::topology::TestNode, family: Family, ip: std::net::IpAddr) -> bool {
    let mut cidrs = node
        .pod_cidrs
        .iter()
        .filter(|c| Family::of_net(c) == family)
        .peekable();
    cidrs.peek().is_none() || cidrs.any(|c| c.contains(&ip))
}

#[cfg(test)]
mod tests;
