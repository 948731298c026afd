//! Ranges of addresses: pure arithmetic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::error::{Error, Result};

/// A range hands out its first million addresses at most. More pods do not fit on a host, and the
/// bitmap of a range stays at 128 KiB, whatever the prefix.
pub(crate) const MAX_SIZE: u32 = 1 << 20;

/// A range of addresses of one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    subnet: IpNet,
    start: u128,
    size: u32,
    gateway: IpAddr,
}

impl Range {
    /// Without `start` and `end` the range is the subnet without its network address and, for IPv4,
    /// its broadcast address. Without `gateway` that is the first address of the subnet. The gateway
    /// is never handed out.
    ///
    /// # Errors
    /// The subnet has no room for a pod, or an address is outside of it.
    pub fn new(
        subnet: IpNet,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self> {
        let invalid =
            |problem: &str| Err(Error::InvalidConfig(format!("range {subnet}: {problem}")));
        let subnet = subnet.trunc();
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return invalid("too small to hand out addresses");
        }
        if subnet.network().is_multicast() {
            return invalid("multicast addresses are no addresses of pods");
        }
        let network = bits(subnet.network());
        let last = bits(subnet.broadcast());
        // IPv6 has no broadcast.
        let usable_end = if matches!(subnet, IpNet::V4(_)) {
            last - 1
        } else {
            last
        };
        let place = |address: Option<IpAddr>, default: u128| match address {
            None => Some(default),
            Some(address) if subnet.contains(&address) => Some(bits(address)),
            Some(_) => None,
        };
        let Some(start) = place(start, network + 1) else {
            return invalid("rangeStart is outside");
        };
        let Some(end) = place(end, usable_end) else {
            return invalid("rangeEnd is outside");
        };
        let (start, end) = (start.max(network + 1), end.min(usable_end));
        if end < start {
            return invalid("it ends before it starts");
        }
        let gateway = match gateway {
            None => address_of(subnet, network + 1),
            Some(gateway) if gateway.is_ipv4() == subnet.addr().is_ipv4() => gateway,
            Some(_) => return invalid("the gateway is of the other family"),
        };
        let size = u32::try_from(end - start + 1).map_or(MAX_SIZE, |size| size.min(MAX_SIZE));
        let range = Self {
            subnet,
            start,
            size,
            gateway,
        };
        if range.usable() == 0 {
            return invalid("it holds nothing but the gateway");
        }
        Ok(range)
    }

    /// The subnet; its length is the prefix length of pod addresses.
    #[must_use]
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The next hop of pods.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// How many addresses it spans, the gateway included.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How many addresses it hands out.
    #[must_use]
    pub fn usable(&self) -> u32 {
        self.size - u32::from(self.index(self.gateway).is_some())
    }

    /// An address by its place in the range.
    #[must_use]
    pub fn address(&self, index: u32) -> IpAddr {
        address_of(self.subnet, self.start + u128::from(index))
    }

    /// The place of an address in the range.
    #[must_use]
    pub fn index(&self, address: IpAddr) -> Option<u32> {
        if address.is_ipv4() != self.subnet.addr().is_ipv4() {
            return None;
        }
        let offset = bits(address).checked_sub(self.start)?;
        u32::try_from(offset)
            .ok()
            .filter(|index| *index < self.size)
    }

    /// Whether two ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.subnet.addr().is_ipv4() == other.subnet.addr().is_ipv4()
            && self.start < other.start + u128::from(other.size)
            && other.start < self.start + u128::from(self.size)
    }

    /// Names the range; stays the same as long as its bitmap does.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}-{}", self.address(0), self.address(self.size - 1))
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.subnet)
    }
}

/// Ranges of one family, of which a pod gets one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// A set.
    ///
    /// # Errors
    /// It is empty or mixes families.
    pub fn new(ranges: Vec<Range>) -> Result<Self> {
        let Some(first) = ranges.first() else {
            return Err(Error::InvalidConfig("a set of ranges is empty".to_owned()));
        };
        let ipv4 = first.gateway.is_ipv4();
        if ranges.iter().any(|range| range.gateway.is_ipv4() != ipv4) {
            return Err(Error::InvalidConfig(
                "a set of ranges has both IPv4 and IPv6 in it".to_owned(),
            ));
        }
        Ok(Self(ranges))
    }

    /// The ranges in the order they are tried.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.0.iter()
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address_of(subnet: IpNet, bits: u128) -> IpAddr {
    match subnet {
        // The range lies in the subnet, so the upper bits are zero.
        IpNet::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn range(subnet: &str) -> Range {
        Range::new(subnet.parse().unwrap(), None, None, None).unwrap()
    }

    #[rstest]
    #[case("10.1.2.0/24", "10.1.2.1", "10.1.2.254", 253)]
    #[case("10.1.2.0/30", "10.1.2.1", "10.1.2.2", 1)]
    #[case("fd00::/126", "fd00::1", "fd00::3", 2)]
    #[case("fd00::/64", "fd00::1", "fd00::10:0", MAX_SIZE - 1)]
    #[case("10.0.0.0/8", "10.0.0.1", "10.16.0.0", MAX_SIZE - 1)]
    fn spans(#[case] subnet: &str, #[case] first: &str, #[case] last: &str, #[case] usable: u32) {
        let range = range(subnet);
        assert_eq!(range.key(), format!("{first}-{last}"));
        assert_eq!(range.usable(), usable);
        assert_eq!(range.index(range.gateway()), Some(0));
    }

    #[test]
    fn a_gateway_outside_costs_no_address() {
        let subnet = "10.1.2.0/24".parse().unwrap();
        let gateway = "169.254.1.1".parse().unwrap();
        let range = Range::new(subnet, None, None, Some(gateway)).unwrap();
        assert_eq!(range.usable(), 254);
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!range("10.1.2.0/25").overlaps(&range("10.1.2.128/25")));
        assert!(range("10.1.2.0/24").overlaps(&range("10.1.2.128/25")));
        assert!(!range("10.1.2.0/24").overlaps(&range("fd00::/64")));
    }
}
