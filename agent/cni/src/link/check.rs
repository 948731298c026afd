//! Comparing a link with what ADD made.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteType};
use nix::net::if_::if_nametoindex;

use super::Netns;
use super::attach::Plan;
use super::message::{self, alone};
use crate::error::{Error, Result};
use crate::netlink::{Batch, Socket, route_message};

/// What the kernel knows of one link.
struct Observed {
    up: bool,
    addresses: Vec<IpNet>,
    routes: Vec<(IpNet, Option<IpAddr>)>,
}

/// Compares both ends with the plan. This thread ends up in the pod's namespace.
///
/// # Errors
/// [`Error::Check`] says what is missing.
pub(crate) fn check(plan: &Plan, netns: &Netns) -> Result<()> {
    let host = observe(&plan.host_name, "the host")?;
    for address in &plan.addresses {
        let pod = alone(address.address.addr());
        if !host.routes.iter().any(|(dst, _)| *dst == pod) {
            return Err(missing(
                "the host",
                &format!("route to {pod} over {}", plan.host_name),
            ));
        }
        let gateway = alone(address.gateway);
        if !host.addresses.contains(&gateway) {
            return Err(missing(
                "the host",
                &format!("{gateway} on {}", plan.host_name),
            ));
        }
    }
    netns.enter()?;
    let pod = observe(&plan.pod_name, "the pod")?;
    for address in &plan.addresses {
        if !pod.addresses.contains(&address.address) {
            return Err(missing(
                "the pod",
                &format!("{} on {}", address.address, plan.pod_name),
            ));
        }
    }
    for (dst, gateway) in &plan.routes {
        if !pod.routes.contains(&(*dst, Some(*gateway))) {
            return Err(missing("the pod", &format!("route to {dst} via {gateway}")));
        }
    }
    for (side, observed) in [("the host", host), ("the pod", pod)] {
        if !observed.up {
            return Err(Error::Check(format!("{side}'s end of the link is down")));
        }
    }
    Ok(())
}

fn missing(side: &str, what: &str) -> Error {
    Error::Check(format!("{side} has no {what}"))
}

fn observe(name: &str, side: &str) -> Result<Observed> {
    let index = if_nametoindex(name).map_err(|_| missing(side, &format!("link {name}")))?;
    let mut socket = Socket::route()?;
    let mut observed = Observed {
        up: false,
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    let mut batch = Batch::default();
    batch.route("look at a link", 0, message::get_link(index));
    let mut answers = socket.ask(batch)?;
    for (operation, question) in [
        ("list addresses", message::get_addresses()),
        ("list IPv4 routes", message::get_routes(true)),
        ("list IPv6 routes", message::get_routes(false)),
    ] {
        let mut batch = Batch::default();
        batch.route(operation, NLM_F_DUMP, question);
        answers.extend(socket.dump(batch)?);
    }
    for answer in answers {
        match route_message(&answer) {
            Some(RouteNetlinkMessage::NewLink(link)) => {
                observed.up = link.header.flags.contains(LinkFlags::Up);
            }
            Some(RouteNetlinkMessage::NewAddress(address)) if address.header.index == index => {
                let ip = address
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        AddressAttribute::Local(ip) => Some(*ip),
                        _ => None,
                    });
                // IPv6 has the one attribute only.
                let ip = ip.or_else(|| {
                    address
                        .attributes
                        .iter()
                        .find_map(|attribute| match attribute {
                            AddressAttribute::Address(ip) => Some(*ip),
                            _ => None,
                        })
                });
                let net = ip.and_then(|ip| IpNet::new(ip, address.header.prefix_len).ok());
                observed.addresses.extend(net);
            }
            Some(RouteNetlinkMessage::NewRoute(route)) => {
                observed.routes.extend(route_of(&route, index));
            }
            _ => {}
        }
    }
    Ok(observed)
}

/// Destination and next hop of a unicast route over a link.
fn route_of(
    route: &netlink_packet_route::route::RouteMessage,
    index: u32,
) -> Option<(IpNet, Option<IpAddr>)> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let (mut dst, mut gateway, mut over) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(oif) => over = Some(*oif),
            _ => {}
        }
    }
    if over != Some(index) || route.header.kind != RouteType::Unicast {
        return None;
    }
    // A default route has no destination.
    let dst = dst.unwrap_or_else(|| {
        if route.header.address_family == netlink_packet_route::AddressFamily::Inet {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        }
    });
    IpNet::new(dst, route.header.destination_prefix_length)
        .ok()
        .map(|net| (net, gateway))
}
