//! Routes to the pods of other nodes.
//!
//! All of them are in the main table and carry [`names::ROUTE_PROTOCOL`]; that number alone decides
//! what is ours. A route of somebody else to one of our destinations stays, unless it sits at the
//! very same metric: the kernel holds one route per destination and metric, so there ours takes its
//! place as with `ip route replace`, and the outcome says so. The exception is a route the kernel
//! made for an address of this node: taking its place would cut the node off a network it is on, so
//! the peer is refused instead.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{StreamExt as _, stream};
use ipnet::IpNet;
use kindnet_api::names;
use kindnet_api::node::Family;
use kindnet_core::routes::{Changes, Observed, diff, metric};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::{Error, ErrorKind, Result};

/// Requests on their way to the kernel at the same time.
const IN_FLIGHT: usize = 64;

/// What the kernel needs to remove a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteKey(RouteMessage);

/// How an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Directly, on a network this node is on.
    OnLink,
    /// Through this router.
    Via(IpAddr),
    /// It is an address of this node.
    Local,
    /// There is no route, or one that refuses.
    Nowhere,
}

/// What came of applying changes.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Routes added or replaced.
    pub set: Vec<(IpNet, IpAddr)>,
    /// Those of them that took the place of a route that was not ours.
    pub taken_over: Vec<IpNet>,
    /// Number of routes removed.
    pub removed: usize,
    /// Routes that could not be set, with the gateway they were to have.
    pub failed: Vec<(IpNet, IpAddr, Error)>,
    /// Routes that could not be removed.
    pub not_removed: Vec<Error>,
}

impl Outcome {
    /// Whether anything changed in the kernel.
    #[must_use]
    pub fn changed(&self) -> bool {
        !self.set.is_empty() || self.removed > 0
    }
}

/// Our routes in the kernel.
#[derive(Debug, Clone)]
pub struct Routes {
    netlink: Netlink,
}

impl Routes {
    /// Works through `netlink`.
    #[must_use]
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }

    /// Every route that is ours, in both families. A kernel without IPv6 has none of that family.
    ///
    /// # Errors
    /// The kernel refuses the dump.
    pub async fn observe(&self) -> Result<Vec<Observed<RouteKey>>> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let routes = self
                .dump(family, RouteProtocol::Other(names::ROUTE_PROTOCOL))
                .await?;
            found.extend(routes.into_iter().filter_map(observed));
        }
        Ok(found)
    }

    /// Makes the changes. One route that fails does not keep the others from being made.
    pub async fn apply(&self, changes: &Changes<RouteKey>) -> Outcome {
        let mut outcome = Outcome::default();
        let sets: Vec<_> = changes
            .set
            .iter()
            .map(|(destination, gateway)| async move {
                let wrong = changes.wrong.contains(destination);
                let result = self.set(*destination, *gateway, wrong).await;
                (*destination, *gateway, result)
            })
            .collect();
        let mut sets = stream::iter(sets).buffer_unordered(IN_FLIGHT);
        while let Some((destination, gateway, result)) = sets.next().await {
            match result {
                Ok(foreign) => {
                    outcome.set.push((destination, gateway));
                    if foreign {
                        outcome.taken_over.push(destination);
                    }
                }
                Err(error) => outcome.failed.push((destination, gateway, error)),
            }
        }
        let removals: Vec<_> = changes.remove.iter().map(|key| self.remove(key)).collect();
        let mut removals = stream::iter(removals).buffer_unordered(IN_FLIGHT);
        while let Some(result) = removals.next().await {
            match result {
                Ok(()) => outcome.removed += 1,
                Err(error) => outcome.not_removed.push(error),
            }
        }
        outcome
    }

    /// Removes every route that is ours; returns how many there were.
    ///
    /// # Errors
    /// The first route that could not be removed, after all were tried.
    pub async fn cleanup(&self) -> Result<usize> {
        let changes = diff(&BTreeMap::new(), self.observe().await?);
        let outcome = self.apply(&changes).await;
        match outcome.not_removed.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(outcome.removed),
        }
    }

    /// Asks the kernel how it would reach an address (`ip route get`).
    ///
    /// # Errors
    /// The kernel refuses the question, which is not the same as having no route.
    pub async fn reach(&self, address: IpAddr) -> Result<Reach> {
        let what = format!("look up the route to {address}");
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(Family::of(address));
        request.header.destination_prefix_length = IpNet::from(address).prefix_len();
        request
            .attributes
            .push(RouteAttribute::Destination(address.into()));
        let mut answers = Box::pin(self.netlink.handle.route().get(request).execute());
        let route = match answers.next().await {
            Some(Ok(route)) => route,
            None => return Ok(Reach::Nowhere),
            Some(Err(error)) => {
                let error = Error::netlink(what, error);
                return match error.kind() {
                    ErrorKind::Unreachable => Ok(Reach::Nowhere),
                    _ => Err(error),
                };
            }
        };
        Ok(match route.header.kind {
            RouteType::Local => Reach::Local,
            RouteType::Unicast => gateway(&route).map_or(Reach::OnLink, Reach::Via),
            _ => Reach::Nowhere,
        })
    }

    /// Routes of the main table, those of one protocol unless it is `Unspec`.
    async fn dump(&self, family: Family, protocol: RouteProtocol) -> Result<Vec<RouteMessage>> {
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(family);
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        request.header.protocol = protocol;
        request.header.scope = RouteScope::Universe;
        request.header.kind = RouteType::Unspec;
        let what = format!("list {family} routes");
        let answers = self
            .netlink
            .dump(&what, &RouteNetlinkMessage::GetRoute(request))
            .await;
        let answers = match answers {
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(Vec::new()),
            other => other?,
        };
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            })
            .filter(|route| is_asked_for(route, family, protocol))
            .collect())
    }

    /// All routes of the main table.
    pub(super) async fn dump_all(&self, family: Family) -> Result<Vec<RouteMessage>> {
        self.dump(family, RouteProtocol::Unspec).await
    }

    /// Sets one route; says whether it took the place of somebody else's.
    async fn set(&self, destination: IpNet, gateway: IpAddr, replace: bool) -> Result<bool> {
        let what = || format!("add route {destination} via {gateway}");
        let route = message(destination, gateway)
            .ok_or_else(|| Error::new(what(), ErrorKind::Unsupported, "the families differ"))?;
        let add = self.netlink.handle.route().add(route);
        if replace {
            return match add.replace().execute().await {
                Ok(()) => Ok(false),
                Err(error) => Err(Error::netlink(what(), error)),
            };
        }
        match add.clone().execute().await {
            Ok(()) => return Ok(false),
            Err(error) => {
                let error = Error::netlink(what(), error);
                if error.kind() != ErrorKind::Exists {
                    return Err(error);
                }
            }
        }
        let family = Family::of_net(&destination);
        let in_the_way = self
            .dump_all(family)
            .await?
            .into_iter()
            .find(|route| net(route) == Some(destination) && priority(route) == metric(family));
        let protocol = in_the_way.map(|route| route.header.protocol);
        if protocol == Some(RouteProtocol::Kernel) {
            return Err(Error::new(
                what(),
                ErrorKind::Exists,
                "this node is on that network itself",
            ));
        }
        add.replace()
            .execute()
            .await
            .map_err(|error| Error::netlink(what(), error))?;
        let ours = RouteProtocol::Other(names::ROUTE_PROTOCOL);
        Ok(protocol.is_some_and(|protocol| protocol != ours))
    }

    async fn remove(&self, key: &RouteKey) -> Result<()> {
        let result = self
            .netlink
            .handle
            .route()
            .del(key.0.clone())
            .execute()
            .await;
        match result.map_err(|error| {
            let destination = net(&key.0).map_or_else(|| "?".to_owned(), |n| n.to_string());
            Error::netlink(format!("remove route {destination}"), error)
        }) {
            Err(error) if error.kind() == ErrorKind::Missing => Ok(()),
            other => other,
        }
    }
}

/// Whether a route is one of those a dump was to list. A kernel too old for strict checking ignores
/// the filter, and one that was booted with `ipv6.disable=1` lists the routes of every family it has
/// when it is asked for those of IPv6.
fn is_asked_for(route: &RouteMessage, family: Family, protocol: RouteProtocol) -> bool {
    route.header.address_family == address_family(family)
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && (protocol == RouteProtocol::Unspec || route.header.protocol == protocol)
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn message(destination: IpNet, gateway: IpAddr) -> Option<RouteMessage> {
    let protocol = RouteProtocol::Other(names::ROUTE_PROTOCOL);
    match (destination, gateway) {
        (IpNet::V4(net), IpAddr::V4(gateway)) => Some(
            RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .gateway(gateway)
                .protocol(protocol)
                .build(),
        ),
        (IpNet::V6(net), IpAddr::V6(gateway)) => Some(
            RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .gateway(gateway)
                .priority(metric(Family::V6))
                .protocol(protocol)
                .build(),
        ),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// Destination of a route; the default routes carry no such attribute.
pub(super) fn net(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let unspecified: IpAddr = match route.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    IpNet::new(
        address.unwrap_or(unspecified),
        route.header.destination_prefix_length,
    )
    .ok()
}

fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })
}

pub(super) fn priority(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|a| match a {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        })
        .unwrap_or(0)
}

fn observed(route: RouteMessage) -> Option<Observed<RouteKey>> {
    let plain = route.header.kind == RouteType::Unicast && route.header.tos == 0;
    Some(Observed {
        destination: net(&route)?,
        metric: priority(&route),
        gateway: gateway(&route).filter(|_| plain),
        key: RouteKey(route),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_another_family_or_table_are_not_asked_for() {
        let ours = RouteProtocol::Other(names::ROUTE_PROTOCOL);
        let route = |family, table, protocol| {
            let mut route = RouteMessage::default();
            route.header.address_family = family;
            route.header.table = table;
            route.header.protocol = protocol;
            route
        };
        let main = RouteHeader::RT_TABLE_MAIN;
        let v4 = route(AddressFamily::Inet, main, ours);
        assert!(is_asked_for(&v4, Family::V4, ours));
        assert!(is_asked_for(&v4, Family::V4, RouteProtocol::Unspec));
        assert!(!is_asked_for(&v4, Family::V6, ours));
        assert!(!is_asked_for(&v4, Family::V4, RouteProtocol::Static));
        let elsewhere = route(AddressFamily::Inet, main - 1, ours);
        assert!(!is_asked_for(&elsewhere, Family::V4, ours));
    }
}
