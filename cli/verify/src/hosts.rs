//! Whether what the hosts report is as kindnet leaves it: the conflist and the routes.

use std::net::IpAddr;

use kindnet_api::conflist::{Conflist, Plugin};
use kindnet_api::names;
use kindnet_api::node::Family;
use kindnet_probe::wire::HostView;

use crate::catalogue::Kind;
use crate::evaluate::{Answers, Finding};
use crate::plan::{Instance, inspection};
use crate::report::Failure;
use crate::topology::{PodState, TestNode, Topology};

/// What an Ethernet link has when nobody says otherwise, in bytes.
const DEFAULT_MTU: u32 = 1500;

/// What is not as it should be on any node.
#[must_use]
pub fn findings(topology: &Topology, instance: &Instance, answers: &Answers) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, node) in topology.nodes.iter().enumerate() {
        let failures = match (answers.host(index), instance.family) {
            (None, _) => vec![unasked(index, node, answers)],
            (Some(view), Some(family)) if instance.spec.kind == Kind::Routes => {
                routes(topology, index, view, family)
            }
            (Some(view), _) => conflist(node, view),
        };
        findings.extend(failures.into_iter().map(|failure| Finding {
            failure,
            probe: None,
            seen_from: None,
        }));
    }
    findings
}

/// Whether any host has a conflist of kindnet.
#[must_use]
pub fn any_conflist(topology: &Topology, answers: &Answers) -> bool {
    (0..topology.nodes.len())
        .filter_map(|node| answers.host(node))
        .flat_map(|view| &view.conf_files)
        .any(|file| file.name == names::CONFLIST_FILE)
}

fn unasked(index: usize, node: &TestNode, answers: &Answers) -> Failure {
    let saw = match (
        &node.host,
        answers.unreachable.get(&inspection(index).source),
    ) {
        (PodState::Broken(why), _) => format!("the check pod does not start: {why}"),
        (_, Some(why)) => format!("the check pod cannot be asked: {why}"),
        _ => "the check pod did not answer in time".to_owned(),
    };
    Failure {
        subject: format!("node {}", node.name),
        saw,
        expected: "the configuration of the host".to_owned(),
        stopped_at: None,
    }
}

/// The MTU kindnet gives the links of pods on a node, in bytes.
#[must_use]
pub fn pod_mtu(view: &HostView, topology: &Topology, node: usize) -> Option<u32> {
    if topology.not_kindnet.is_some() {
        return None;
    }
    let conflist = parse(view).ok()?;
    Some(mtu(&conflist).unwrap_or_else(|| {
        let node = &topology.nodes[node];
        uplink_mtu(node, view).unwrap_or(DEFAULT_MTU)
    }))
}

fn mtu(conflist: &Conflist) -> Option<u32> {
    conflist.plugins.iter().find_map(|plugin| match plugin {
        Plugin::Ptp { mtu, .. } | Plugin::Kindnet { mtu, .. } => *mtu,
        Plugin::Portmap { .. } => None,
    })
}

/// MTU of the link with the default route, IPv4 first; of the link to the other nodes where there
/// is no default route.
fn uplink_mtu(node: &TestNode, view: &HostView) -> Option<u32> {
    [false, true]
        .into_iter()
        .find_map(|v6| view.default_link(v6))
        .or_else(|| {
            let address = node.addresses.first()?;
            let route = view.routes.iter().find(|r| r.dst.contains(address))?;
            view.link(&route.dev)
        })
        .map(|link| link.mtu)
}

fn parse(view: &HostView) -> Result<Conflist, String> {
    let file = view
        .conf_files
        .iter()
        .find(|f| f.name == names::CONFLIST_FILE)
        .ok_or_else(|| format!("there is no {}", names::CONFLIST_FILE))?;
    serde_json::from_str(&file.content).map_err(|e| format!("{} is broken: {e}", file.name))
}

fn conflist(node: &TestNode, view: &HostView) -> Vec<Failure> {
    let failure = |saw: String, expected: String| Failure {
        subject: format!("node {}", node.name),
        saw,
        expected,
        stopped_at: None,
    };
    let conflist = match parse(view) {
        Ok(conflist) => conflist,
        Err(saw) => {
            return vec![failure(
                saw,
                format!("{} in {}", names::CONFLIST_FILE, names::CNI_CONF_DIR),
            )];
        }
    };
    let mut failures = Vec::new();
    if let Some(first) = view.conf_files.first()
        && first.name != names::CONFLIST_FILE
    {
        failures.push(failure(
            format!("{} comes first and is used instead", first.name),
            format!("{} is the first of its folder", names::CONFLIST_FILE),
        ));
    }
    // With our own plugin, or with the reference plugins: whichever the agent found on the node.
    let wanted = [
        Conflist::kindnet(&node.pod_cidrs, mtu(&conflist)),
        Conflist::standard(&node.pod_cidrs, mtu(&conflist)),
    ];
    let list = |nets: &mut dyn Iterator<Item = ipnet::IpNet>| {
        let texts: Vec<_> = nets.map(|n| n.to_string()).collect();
        if texts.is_empty() {
            "none".to_owned()
        } else {
            texts.join(", ")
        }
    };
    if !conflist.subnets().eq(node.pod_cidrs.iter().copied()) {
        failures.push(failure(
            format!("pod subnets {}", list(&mut conflist.subnets())),
            format!(
                "the podCIDRs of the Node: {}",
                list(&mut node.pod_cidrs.iter().copied())
            ),
        ));
    } else if wanted.iter().all(|w| w.plugins != conflist.plugins) {
        failures.push(failure(
            "a chain of plugins that kindnet does not write".to_owned(),
            "kindnet-cni, or ptp with host-local and then portmap".to_owned(),
        ));
    }
    if let (Some(have), Some(uplink)) =
        (mtu(&conflist).or(Some(DEFAULT_MTU)), uplink_mtu(node, view))
        && have != uplink
    {
        failures.push(failure(
            format!("an MTU of {have} for pods"),
            format!("{uplink}, that of the link with the default route"),
        ));
    }
    failures
}

/// One route per subnet of each other node, over that node's address.
fn routes(topology: &Topology, own: usize, view: &HostView, family: Family) -> Vec<Failure> {
    let mut failures = Vec::new();
    let node = &topology.nodes[own];
    if let Some(saw) = no_address(node, family) {
        failures.push(Failure {
            subject: format!("node {}", node.name),
            saw,
            expected: "an InternalIP of each family: the kubelet's --node-ip=IPV4,IPV6".to_owned(),
            stopped_at: None,
        });
    }
    for (index, peer) in topology.nodes.iter().enumerate() {
        let Some(via) = peer.address(family).filter(|_| index != own) else {
            continue;
        };
        for cidr in peer
            .pod_cidrs
            .iter()
            .filter(|c| Family::of_net(c) == family)
        {
            let Some(saw) = route_problem(view, *cidr, via) else {
                continue;
            };
            failures.push(Failure {
                subject: format!("node {}", node.name),
                saw,
                expected: format!("{cidr} via {via}, node {}", peer.name),
                stopped_at: None,
            });
        }
    }
    let forwards = match family {
        Family::V4 => view.forwarding_v4,
        Family::V6 => view.forwarding_v6,
    };
    if !forwards {
        failures.push(Failure {
            subject: format!("node {}", node.name),
            saw: format!("{family} forwarding is off"),
            expected: match family {
                Family::V4 => "net.ipv4.ip_forward=1",
                Family::V6 => "net.ipv6.conf.all.forwarding=1",
            }
            .to_owned(),
            stopped_at: None,
        });
    }
    failures
}

/// Whether a node has a pod subnet of a family that no other node can route to.
#[must_use]
pub fn no_address(node: &TestNode, family: Family) -> Option<String> {
    let cidr = node
        .pod_cidrs
        .iter()
        .find(|c| Family::of_net(c) == family)?;
    node.address(family)
        .is_none()
        .then(|| format!("podCIDR {cidr}, but no {family} address"))
}

/// What is wrong with the route to a subnet.
#[must_use]
pub fn route_problem(view: &HostView, cidr: ipnet::IpNet, via: IpAddr) -> Option<String> {
    // Any address of the subnet: what counts is the route its packets take.
    let inside = cidr.hosts().nth(1).unwrap_or(cidr.network());
    let own = view.routes.iter().any(|r| r.dst == cidr);
    match view.route_to(inside) {
        None => Some(format!("no route to {cidr}")),
        Some(route) if route.rejects => Some(format!("a route that rejects {cidr}")),
        Some(route) if route.via == Some(via) => None,
        Some(route) if !own && route.dst.prefix_len() == 0 => Some(format!(
            "no route to {cidr}: its packets take the default route"
        )),
        Some(route) => Some(match route.via {
            Some(gateway) => format!("{cidr} goes via {gateway}"),
            None => format!("{cidr} goes to the link {}", route.dev),
        }),
    }
}

#[cfg(test)]
mod tests;
