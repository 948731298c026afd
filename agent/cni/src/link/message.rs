//! The messages of rtnetlink this plugin sends.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

/// Protocol of the routes on the host: `kernel` would hide them from people, `boot` is for what an
/// administrator adds by hand.
pub(super) const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Static;

const fn family(ipv4: bool) -> AddressFamily {
    if ipv4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// One end of a veth pair.
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: [u8; 6],
    pub(super) mtu: Option<u32>,
}

impl End<'_> {
    fn attributes(&self) -> Vec<LinkAttribute> {
        let mut attributes = vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Address(self.mac.to_vec()),
            // By default a veth has a queue per possible CPU, each with its folders in sysfs. They
            // are of no use without NAPI and cost milliseconds on large hosts.
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
        ];
        attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        attributes
    }
}

/// Makes a pair with one end here and the other one, `peer`, in another network namespace.
pub(super) fn new_veth(here: &End<'_>, peer: &End<'_>, peer_netns: RawFd) -> RouteNetlinkMessage {
    let mut other = LinkMessage::default();
    other.attributes = peer.attributes();
    other.attributes.push(LinkAttribute::NetNsFd(peer_netns));
    let mut message = LinkMessage::default();
    message.attributes = here.attributes();
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

/// Brings a link up.
pub(super) fn link_up(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

/// Says what a link is for.
pub(super) fn link_alias(index: u32, alias: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    // IFALIASZ
    let alias = alias.chars().take(255).collect();
    message.attributes.push(LinkAttribute::IfAlias(alias));
    RouteNetlinkMessage::SetLink(message)
}

/// Lets 127.0.0.0/8 be routed over a link.
pub(super) fn link_route_localnet(index: u32) -> RouteNetlinkMessage {
    let mut conf = InetDevConf::default();
    conf.route_localnet = 1;
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![
            AfSpecInet::DevConfRequest(conf),
        ])]));
    RouteNetlinkMessage::SetLink(message)
}

/// Asks for a link.
pub(super) fn get_link(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for all links.
pub(super) fn get_links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// Removes a link.
pub(super) fn delete_link(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::DelLink(message)
}

/// Gives a link an address that is good at once and brings no route with it.
pub(super) fn new_address(index: u32, address: IpNet) -> RouteNetlinkMessage {
    let ip = address.addr();
    let mut message = AddressMessage::default();
    message.header.family = family(ip.is_ipv4());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    if is_link_local(ip) {
        // This one brings its route: it is how the link's own prefix is reached.
        message.header.scope = AddressScope::Link;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    } else if ip.is_ipv4() {
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    } else {
        message.attributes.push(AddressAttribute::Flags(
            AddressFlags::Nodad | AddressFlags::Noprefixroute,
        ));
    }
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    RouteNetlinkMessage::NewAddress(message)
}

/// A route of one link.
pub(super) struct Route {
    pub(super) dst: IpNet,
    pub(super) index: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
}

pub(super) fn new_route(route: &Route) -> RouteNetlinkMessage {
    let ipv4 = route.dst.addr().is_ipv4();
    let mut message = RouteMessage::default();
    message.header.address_family = family(ipv4);
    message.header.destination_prefix_length = route.dst.prefix_len();
    message.header.table = 254;
    message.header.protocol = ROUTE_PROTOCOL;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match route.gateway {
        // IPv6 routes have no scope.
        None if ipv4 => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    message
        .attributes
        .push(RouteAttribute::Destination(route.dst.network().into()));
    message.attributes.push(RouteAttribute::Oif(route.index));
    message
        .attributes
        .extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    message
        .attributes
        .extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    RouteNetlinkMessage::NewRoute(message)
}

/// Asks for the routes of a family.
pub(super) fn get_routes(ipv4: bool) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(ipv4);
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks what becomes of packets to an address; with `entry` the answer is the entry of the table that
/// says so.
pub(super) fn get_route_to(ip: IpAddr, entry: bool) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(ip.is_ipv4());
    message.header.destination_prefix_length = alone(ip).prefix_len();
    if entry {
        message.header.flags = RouteFlags::FibMatch;
    }
    message
        .attributes
        .push(RouteAttribute::Destination(ip.into()));
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks for the addresses of both families.
pub(super) fn get_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// Tells a link the hardware address of its neighbour.
pub(super) fn new_neighbour(
    index: u32,
    ip: IpAddr,
    mac: [u8; 6],
    state: NeighbourState,
) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip.is_ipv4());
    message.header.ifindex = index;
    message.header.state = state;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(NeighbourAttribute::Destination(ip.into()));
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// The link-local address of a hardware address (RFC 4291, appendix A).
pub(super) fn link_local(mac: [u8; 6]) -> IpNet {
    let [a, b, c, d, e, f] = mac;
    let ip = Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ]);
    IpNet::new_assert(ip.into(), 64)
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The address alone, `/32` or `/128`.
pub(super) fn alone(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_follow_the_hardware_address() {
        let ip = link_local([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]);
        assert_eq!(ip.to_string(), "fe80::42:acff:fe11:2/64");
        assert!(is_link_local(ip.addr()));
    }
}
