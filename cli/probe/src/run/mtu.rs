//! A packet as big as the link allows that nobody may fragment, there and back.
//!
//! `IP_PMTUDISC_PROBE` (see `ip(7)`) sets DF and ignores what the kernel believes about the path, so
//! that an old entry in its cache neither hides nor invents a problem.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

use super::udp;
use crate::frame::Header;
use crate::wire::{Echo, Problem, ProblemKind};

/// IPv4 and UDP headers (RFC 791 without options, RFC 768).
const V4_HEADERS: u32 = 20 + 8;
/// IPv6 and UDP headers (RFC 8200).
const V6_HEADERS: u32 = 40 + 8;
/// The largest packet either family allows without jumbograms.
const MAX_PACKET: u32 = 65535;

pub(super) fn echo(to: SocketAddr, size: Option<u32>, timeout: Duration) -> Result<Echo, Problem> {
    let socket = udp::connect(to)?;
    let local = socket
        .local_addr()
        .map_err(|e| super::problem("UDP socket", &e))?;
    let size = match size {
        Some(size) => size,
        None => link_mtu(local.ip())?,
    }
    .min(MAX_PACKET);
    let headers = if to.is_ipv6() { V6_HEADERS } else { V4_HEADERS };
    dont_fragment(&socket, to.is_ipv6()).map_err(|e| super::problem("UDP socket", &e))?;
    let header = Header {
        nonce: super::nonce(),
        dont_fragment: true,
        ..Header::default()
    };
    let payload = size.saturating_sub(headers) as usize;
    match udp::exchange(&socket, header, payload, timeout) {
        Ok(echo) => Ok(Echo {
            bytes: echo.bytes + headers,
            ..echo
        }),
        Err(problem) => Err(explain(&socket, to.is_ipv6(), size, problem)),
    }
}

fn dont_fragment(socket: &UdpSocket, v6: bool) -> std::io::Result<()> {
    if v6 {
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)?;
        setsockopt(socket, sockopt::Ipv6DontFrag, &true)?;
    } else {
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?;
    }
    Ok(())
}

/// Adds the size of the packet and, where an ICMP error told it, the MTU of the path.
fn explain(socket: &UdpSocket, v6: bool, size: u32, problem: Problem) -> Problem {
    let known = if v6 {
        None
    } else {
        getsockopt(socket, sockopt::IpMtu)
            .ok()
            .and_then(|mtu| u32::try_from(mtu).ok())
            .filter(|mtu| *mtu < size)
    };
    match problem.kind {
        ProblemKind::TooBig => Problem {
            text: match known {
                Some(mtu) => format!(
                    "a packet of {size} bytes that must not be fragmented is too big: the path \
                     carries {mtu}"
                ),
                None => format!(
                    "a packet of {size} bytes that must not be fragmented is too big for the path"
                ),
            },
            mtu: known,
            ..problem
        },
        ProblemKind::Timeout => Problem {
            text: format!(
                "a packet of {size} bytes that must not be fragmented got no answer in time"
            ),
            mtu: known,
            ..problem
        },
        _ => problem,
    }
}

/// MTU of the link that has an address, in bytes.
fn link_mtu(address: IpAddr) -> Result<u32, Problem> {
    let other = |text: String| Problem::new(ProblemKind::Other, text);
    let name = nix::ifaddrs::getifaddrs()
        .map_err(|e| super::problem("list addresses", &e.into()))?
        .find(|entry| {
            entry
                .address
                .as_ref()
                .is_some_and(|a| super::inspect::ip_of(a) == Some(address))
        })
        .map(|entry| entry.interface_name)
        .ok_or_else(|| other(format!("no link has the address {address}")))?;
    super::inspect::mtu_of(&name).ok_or_else(|| other(format!("the MTU of {name} is not readable")))
}
