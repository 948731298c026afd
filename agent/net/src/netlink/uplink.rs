//! The link that carries the default route.

use futures_util::StreamExt as _;
use kindnet_api::node::Family;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::Netlink;
use super::routes::{Routes, priority};
use crate::{Error, Result};

/// A link pods' traffic leaves the node by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// MTU in bytes.
    pub mtu_bytes: u32,
}

impl Netlink {
    /// The link of the default route with the lowest metric: that of IPv4, or of IPv6 where IPv4 has
    /// none. `None` without any default route.
    ///
    /// # Errors
    /// The kernel refuses to list routes or links.
    pub async fn uplink(&self) -> Result<Option<Uplink>> {
        for family in Family::ALL {
            if let Some(uplink) = self.uplink_of(family).await? {
                return Ok(Some(uplink));
            }
        }
        Ok(None)
    }

    /// As [`Netlink::uplink`], of one family.
    ///
    /// # Errors
    /// The kernel refuses to list routes or links.
    pub async fn uplink_of(&self, family: Family) -> Result<Option<Uplink>> {
        let routes = Routes::new(self.clone()).dump_all(family).await?;
        let Some(index) = default_link(&routes) else {
            return Ok(None);
        };
        let what = || format!("look up link {index}");
        let mut links = Box::pin(self.handle.link().get().match_index(index).execute());
        let link = match links.next().await {
            Some(link) => link.map_err(|e| Error::netlink(what(), e))?,
            None => return Ok(None),
        };
        let name = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let mtu = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Ok(name.zip(mtu).map(|(name, mtu_bytes)| Uplink {
            index,
            name,
            mtu_bytes,
        }))
    }
}

/// Interface index of the default route with the lowest metric. Routes without a destination
/// attribute are the default ones; those bound to a source prefix serve only some.
fn default_link(routes: &[RouteMessage]) -> Option<u32> {
    routes
        .iter()
        .filter(|route| {
            route.header.destination_prefix_length == 0
                && route.header.source_prefix_length == 0
                && route.header.kind == RouteType::Unicast
        })
        .filter_map(|route| link(route).map(|index| (priority(route), index)))
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, index)| index)
}

/// Outgoing link of a route; of one with several next hops, that of the first.
fn link(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::AddressFamily;

    fn route(prefix_length: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.kind = RouteType::Unicast;
        route.header.destination_prefix_length = prefix_length;
        route.attributes = attributes;
        route
    }

    #[test]
    fn the_lowest_metric_wins_and_no_metric_is_the_lowest() {
        let far = route(
            0,
            vec![RouteAttribute::Priority(600), RouteAttribute::Oif(3)],
        );
        let near = route(
            0,
            vec![RouteAttribute::Priority(100), RouteAttribute::Oif(2)],
        );
        let plain = route(0, vec![RouteAttribute::Oif(4)]);
        let other = route(8, vec![RouteAttribute::Oif(9)]);
        assert_eq!(
            default_link(&[far.clone(), other.clone(), near.clone()]),
            Some(2)
        );
        assert_eq!(default_link(&[far, near, plain]), Some(4));
        assert_eq!(default_link(&[other]), None);
    }

    #[test]
    fn unreachable_and_source_bound_defaults_carry_nothing() {
        let mut refusing = route(0, vec![RouteAttribute::Oif(1)]);
        refusing.header.kind = RouteType::Unreachable;
        let mut bound = route(0, vec![RouteAttribute::Oif(2)]);
        bound.header.source_prefix_length = 64;
        assert_eq!(default_link(&[refusing, bound]), None);
    }
}
