//! Making a link, in three steps: the pair, the host's end, the pod's end.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkMessage, State,
};
use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::route::{RouteAttribute, RouteType};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::events::Events;
use super::message::{self, End, Route, alone};
use super::{Netns, set_sysctl};
use crate::error::{Error, Result};
use crate::fault::step;
use crate::ipam::Address;
use crate::netlink::{Batch, Failure, Socket, route_message};

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// For what the kernel does within a millisecond, unless the host is overloaded.
const PATIENCE: Duration = Duration::from_secs(5);

/// A link to be made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Name of the host's end.
    pub(crate) host_name: String,
    /// Hardware address of the host's end.
    pub(crate) host_mac: [u8; 6],
    /// Name of the pod's end.
    pub(crate) pod_name: String,
    /// Hardware address of the pod's end.
    pub(crate) pod_mac: [u8; 6],
    /// MTU in bytes; the kernel's default where absent.
    pub(crate) mtu: Option<u32>,
    /// What the host's end is for.
    pub(crate) alias: String,
    /// Addresses of the pod.
    pub(crate) addresses: Vec<Address>,
    /// Routes of the pod: destination and next hop.
    pub(crate) routes: Vec<(IpNet, IpAddr)>,
    /// Whether 127.0.0.1 of the host leads to the pod.
    pub(crate) route_localnet: bool,
}

impl Plan {
    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|a| !a.gateway.is_ipv4())
    }
}

/// Whether the host has a route to this very address: some pod has it, whoever made its link.
///
/// # Errors
/// The kernel cannot be asked.
pub(crate) fn is_routed_to_a_pod(host: &mut Socket, ip: IpAddr) -> Result<bool> {
    let mut batch = Batch::default();
    batch.route("look up an address", 0, message::get_route_to(ip, true));
    // No route at all is an error, and not one of a pod.
    let replies = host.attempt(batch)?;
    Ok(replies
        .answers
        .iter()
        .any(|(_, answer)| match route_message(answer) {
            Some(RouteNetlinkMessage::NewRoute(route)) => {
                // Kernels before 4.13 answer with the address itself instead of the entry, but then name
                // the gateway that an address in nobody's hands would be sent to.
                let gateway = |a: &RouteAttribute| matches!(a, RouteAttribute::Gateway(_));
                route.header.destination_prefix_length == alone(ip).prefix_len()
                    && route.header.kind == RouteType::Unicast
                    && !route.attributes.iter().any(gateway)
            }
            _ => false,
        }))
}

/// Makes the pair and configures the host's end; its index.
///
/// # Errors
/// The kernel refused. The caller removes what there is.
pub(crate) fn create(host: &mut Socket, plan: &Plan, netns: &Netns) -> Result<u32> {
    let mut batch = Batch::default();
    let here = End {
        name: &plan.host_name,
        mac: plan.host_mac,
        mtu: plan.mtu,
    };
    let peer = End {
        name: &plan.pod_name,
        mac: plan.pod_mac,
        mtu: plan.mtu,
    };
    batch.route(
        "create the veth pair",
        CREATE,
        message::new_veth(&here, &peer, netns.raw_fd()),
    );
    host.run(batch)?;
    step!();
    let index = if_nametoindex(plan.host_name.as_str())
        .map_err(Error::kernel(format!("find link {}", plan.host_name)))?;
    let replies = host.attempt(host_batch(plan, index, CREATE))?;
    if needs_ipv6(&replies.failures) {
        set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", plan.host_name), "0")?;
        host.run(host_batch(plan, index, REPLACE))?;
    } else {
        replies.check()?;
    }
    step!();
    Ok(index)
}

/// `route` are the flags of the routes to the pod.
fn host_batch(plan: &Plan, index: u32, route: u16) -> Batch {
    let mut batch = Batch::default();
    // Addresses before the link is up: the kernel then finds its link-local address there and has
    // none to make and to probe.
    if plan.has_ipv6() {
        let address = message::link_local(plan.host_mac);
        batch.route(
            "add the host's link-local address",
            REPLACE,
            message::new_address(index, address),
        );
    }
    for address in &plan.addresses {
        let gateway = alone(address.gateway);
        batch.route(
            "add the gateway's address",
            REPLACE,
            message::new_address(index, gateway),
        );
    }
    batch.route(
        "name the host's link",
        0,
        message::link_alias(index, &plan.alias),
    );
    if plan.route_localnet {
        batch.route(
            "allow 127.0.0.1 to be forwarded",
            0,
            message::link_route_localnet(index),
        );
    }
    batch.route("bring the host's link up", 0, message::link_up(index));
    for Address {
        address, gateway, ..
    } in &plan.addresses
    {
        // Exclusive at first: should the address be in use in spite of everything, the pod that has
        // it keeps its traffic.
        batch.route(
            "add the host's route to the pod",
            route,
            message::new_route(&Route {
                dst: alone(address.addr()),
                index,
                gateway: None,
                source: Some(*gateway),
            }),
        );
        // Only to begin with: a pod may have reasons to change its hardware address.
        batch.route(
            "add the pod as neighbour",
            REPLACE,
            message::new_neighbour(
                index,
                address.addr(),
                plan.pod_mac,
                NeighbourState::Reachable,
            ),
        );
    }
    batch
}

/// Configures the pod's end. This thread is in the pod's namespace.
///
/// # Errors
/// The kernel refused.
pub(crate) fn configure(plan: &Plan) -> Result<()> {
    let mut pod = Socket::route()?;
    let index = if_nametoindex(plan.pod_name.as_str())
        .map_err(Error::kernel(format!("find link {}", plan.pod_name)))?;
    if plan.has_ipv6() {
        let conf = format!("ipv6/conf/{}", plan.pod_name);
        // There is no router on the link to listen to, and an address survives its link going down
        // and up again. A read-only /proc/sys leaves the defaults, which also work.
        drop(set_sysctl(&format!("{conf}/accept_ra"), "0"));
        drop(set_sysctl(&format!("{conf}/keep_addr_on_down"), "1"));
    }
    let replies = pod.attempt(pod_batch(plan, index))?;
    if needs_ipv6(&replies.failures) {
        set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", plan.pod_name), "0")?;
        pod.run(pod_batch(plan, index))?;
    } else {
        replies.check()?;
    }
    step!();
    let addresses: Vec<IpAddr> = plan.addresses.iter().map(|a| a.address.addr()).collect();
    wait_for_addresses(&mut pod, &addresses, || Ok(()))
}

fn pod_batch(plan: &Plan, index: u32) -> Batch {
    let mut batch = Batch::default();
    if plan.has_ipv6() {
        let address = message::link_local(plan.pod_mac);
        batch.route(
            "add the pod's link-local address",
            REPLACE,
            message::new_address(index, address),
        );
    }
    for address in &plan.addresses {
        batch.route(
            "add the pod's address",
            REPLACE,
            message::new_address(index, address.address),
        );
    }
    batch.route("bring the pod's link up", 0, message::link_up(index));
    for Address {
        address, gateway, ..
    } in &plan.addresses
    {
        batch.route(
            "add the pod's route to the gateway",
            REPLACE,
            message::new_route(&Route {
                dst: alone(*gateway),
                index,
                gateway: None,
                source: Some(address.addr()),
            }),
        );
        batch.route(
            "add the pod's route to its subnet",
            REPLACE,
            message::new_route(&Route {
                dst: address.trunc(),
                index,
                gateway: Some(*gateway),
                source: Some(address.addr()),
            }),
        );
        // The host's end is ours and keeps its hardware address as long as it lives.
        batch.route(
            "add the gateway as neighbour",
            REPLACE,
            message::new_neighbour(index, *gateway, plan.host_mac, NeighbourState::Permanent),
        );
    }
    for (dst, gateway) in &plan.routes {
        batch.route(
            "add a route to the pod",
            REPLACE,
            message::new_route(&Route {
                dst: *dst,
                index,
                gateway: Some(*gateway),
                source: None,
            }),
        );
    }
    // Not for the answer: since Linux 6.8 the question makes the kernel finish what a new carrier
    // sets off, and the link is running when the pod starts.
    batch.route("look at the pod's link", 0, message::get_link(index));
    batch
}

/// Makes sure that packets flow: the link has its carrier and the host forwards. This thread is in
/// any namespace; `own` is the host's.
///
/// # Errors
/// The link got no carrier, or the host cannot be made to forward.
pub(crate) fn settle(host: &mut Socket, plan: &Plan, index: u32, own: &Netns) -> Result<()> {
    // The question does for the host's end what it did for the pod's.
    let link = link_state(host, index)?;
    if !link.ready {
        wait_for_carrier(host, index, own)?;
    }
    let gateways: Vec<IpAddr> = plan.addresses.iter().map(|a| a.gateway).collect();
    wait_for_addresses(host, &gateways, || own.enter())?;
    for (ipv4, forwarding) in [(true, link.forwarding4), (false, link.forwarding6)] {
        let wanted = plan.addresses.iter().any(|a| a.gateway.is_ipv4() == ipv4);
        if wanted && !forwarding {
            own.enter()?;
            let name = if ipv4 {
                "ipv4/ip_forward"
            } else {
                "ipv6/conf/all/forwarding"
            };
            set_sysctl(name, "1")?;
        }
    }
    Ok(())
}

fn wait_for_carrier(host: &mut Socket, index: u32, own: &Netns) -> Result<()> {
    own.enter()?;
    wait_until(
        "wait for the carrier of the link",
        Events::of_links()?,
        || link_state(host, index).map(|state| state.ready),
    )
}

/// Waits until the namespace of the socket takes packets to these IPv6 addresses.
///
/// The kernel answers as soon as it has an address, and makes the route that lets packets to it in
/// when a worker gets round to it. That usually is before anybody could ask. `enter` moves this
/// thread into the namespace of the socket, should it come to waiting.
fn wait_for_addresses(
    socket: &mut Socket,
    addresses: &[IpAddr],
    enter: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let addresses: Vec<IpAddr> = addresses.iter().copied().filter(IpAddr::is_ipv6).collect();
    if are_local(socket, &addresses)? {
        return Ok(());
    }
    enter()?;
    wait_until("wait for the address", Events::of_ipv6_routes()?, || {
        are_local(socket, &addresses)
    })
}

fn are_local(socket: &mut Socket, addresses: &[IpAddr]) -> Result<bool> {
    let mut batch = Batch::default();
    for address in addresses {
        batch.route(
            "look up the address",
            0,
            message::get_route_to(*address, false),
        );
    }
    let replies = socket.attempt(batch)?;
    let local = replies.answers.iter().filter(|(_, answer)| {
        matches!(
            route_message(answer),
            Some(RouteNetlinkMessage::NewRoute(route)) if route.header.kind == RouteType::Local
        )
    });
    Ok(local.count() == addresses.len())
}

fn wait_until(what: &str, events: Events, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // It may have come before there was anybody to tell.
    while !done()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !events.wait(left)? {
            return Err(Error::kernel(what)(Errno::ETIMEDOUT));
        }
    }
    Ok(())
}

struct LinkState {
    ready: bool,
    forwarding4: bool,
    forwarding6: bool,
}

fn link_state(host: &mut Socket, index: u32) -> Result<LinkState> {
    let mut batch = Batch::default();
    batch.route("look at the host's link", 0, message::get_link(index));
    let answers = host.ask(batch)?;
    let link = answers
        .iter()
        .find_map(|answer| match route_message(answer) {
            Some(RouteNetlinkMessage::NewLink(link)) => Some(link),
            _ => None,
        });
    Ok(link.map_or(
        LinkState {
            ready: false,
            forwarding4: false,
            forwarding6: false,
        },
        |link| read_state(&link),
    ))
}

fn read_state(link: &LinkMessage) -> LinkState {
    let mut state = LinkState {
        ready: false,
        forwarding4: false,
        forwarding6: false,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::OperState(oper) => state.ready = *oper == State::Up,
            LinkAttribute::AfSpecUnspec(families) => {
                for family in families {
                    match family {
                        AfSpecUnspec::Inet(entries) => {
                            for entry in entries {
                                if let AfSpecInet::DevConf(conf) = entry {
                                    state.forwarding4 = conf.forwarding != 0;
                                }
                            }
                        }
                        AfSpecUnspec::Inet6(entries) => {
                            for entry in entries {
                                if let AfSpecInet6::DevConf(conf) = entry {
                                    state.forwarding6 = conf.forwarding != 0;
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    state
}

/// IPv6 is there but switched off on the link, and nothing else is wrong.
fn needs_ipv6(failures: &[Failure]) -> bool {
    let refused = |errno| failures.iter().any(|failure| failure.errno == errno);
    refused(Errno::EACCES) && !refused(Errno::EEXIST)
}
