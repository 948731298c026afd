//! Changes others make to routes, links and addresses.

use futures_util::{Stream, StreamExt as _};
use ipnet::IpNet;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage};

use super::routes::net;
use crate::{Error, Result};

/// Something changed. Events carry no state to act upon: they say that it is time to look.
///
/// IPv4 routes vanish without an event when their link goes down or loses its address, so link and
/// address events stand for them. The kernel drops events a reader is too slow for; a periodic
/// resync has to cover that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A route of the main table was added, replaced or removed.
    Route {
        /// Where it leads.
        destination: IpNet,
        /// Who made it (`rtm_protocol`).
        protocol: u8,
        /// Whether it is gone.
        removed: bool,
    },
    /// A link was added, changed or removed.
    Link {
        /// Interface index.
        index: u32,
    },
    /// An address was added, changed or removed.
    Address,
}

/// Watches the network namespace this process is in. The stream ends when the socket breaks.
///
/// # Errors
/// The kernel refuses the socket or the groups.
pub fn watch() -> Result<impl Stream<Item = Event> + Send + Unpin> {
    let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ])
    .map_err(|e| Error::io("watch routes, links and addresses", e))?;
    tokio::spawn(connection);
    Ok(messages.filter_map(move |(message, _)| {
        // The connection ends with its last handle.
        let _ = &handle;
        std::future::ready(match message.payload {
            NetlinkPayload::InnerMessage(inner) => event(&inner),
            _ => None,
        })
    }))
}

fn event(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewRoute(route) => route_event(route, false),
        RouteNetlinkMessage::DelRoute(route) => route_event(route, true),
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            Some(Event::Link {
                index: link.header.index,
            })
        }
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
            Some(Event::Address)
        }
        _ => None,
    }
}

fn route_event(route: &RouteMessage, removed: bool) -> Option<Event> {
    if route.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    Some(Event::Route {
        destination: net(route)?,
        protocol: route.header.protocol.into(),
        removed,
    })
}
