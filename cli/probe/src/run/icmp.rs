//! Echo requests over a raw socket, or over a ping socket where raw ones are not allowed.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::problem;
use crate::frame;
use crate::wire::{Problem, ProblemKind};

const PAYLOAD: usize = 56;

pub(super) fn echo(to: IpAddr, timeout: Duration) -> Result<(), Problem> {
    let deadline = Instant::now() + timeout;
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let raw = Socket::new(domain, Type::from(nix::libc::SOCK_RAW), Some(protocol));
    let is_raw = raw.is_ok();
    let socket = raw
        .or_else(|_| Socket::new(domain, Type::DGRAM, Some(protocol)))
        .map_err(|e| Problem::new(ProblemKind::Permission, format!("ICMP socket: {e}")))?;
    super::report_icmp_errors(&socket, to.is_ipv6())?;
    // A raw socket hears every ICMP packet of this network namespace unless it is connected.
    socket
        .connect(&SocketAddr::new(to, 0).into())
        .map_err(|e| problem("ICMP", &e))?;

    let nonce = super::nonce();
    let request = request(to.is_ipv6(), nonce);
    socket.send(&request).map_err(|e| problem("ICMP", &e))?;
    let mut buffer = vec![0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Problem::new(
                ProblemKind::Timeout,
                "ICMP echo: no answer in time",
            ));
        }
        socket
            .set_read_timeout(Some(left))
            .map_err(|e| problem("ICMP socket", &e))?;
        let received = (&socket)
            .read(&mut buffer)
            .map_err(|e| problem("ICMP echo", &e))?;
        let packet = &buffer[..received];
        let message = if is_raw && to.is_ipv4() {
            without_ip_header(packet)
        } else {
            packet
        };
        if is_reply(message, to.is_ipv6(), nonce) {
            return Ok(());
        }
    }
}

/// Type, code, checksum, identifier, sequence number, payload. The kernel fills in the checksum of
/// ICMPv6 and, on ping sockets, the identifier.
fn request(v6: bool, nonce: u64) -> Vec<u8> {
    let id = nonce.to_be_bytes();
    let mut packet = vec![if v6 { 128 } else { 8 }, 0, 0, 0, id[0], id[1], 0, 1];
    packet.extend(frame::body(nonce, PAYLOAD));
    if !v6 {
        let sum = internet_checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// The payload identifies the reply: a ping socket has an identifier of its own.
fn is_reply(message: &[u8], v6: bool, nonce: u64) -> bool {
    let reply = if v6 { 129 } else { 0 };
    message.len() >= 8 && message[0] == reply && message[8..] == frame::body(nonce, PAYLOAD)
}

fn without_ip_header(packet: &[u8]) -> &[u8] {
    let length = packet.first().map_or(0, |b| usize::from(b & 0x0f) * 4);
    packet.get(length..).unwrap_or_default()
}

/// RFC 1071
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        assert_eq!(internet_checksum(&request(false, 0x0123_4567_89ab_cdef)), 0);
    }

    #[test]
    fn only_the_own_reply_counts() {
        let mut reply = request(true, 7);
        assert!(!is_reply(&reply, true, 7), "a request is no reply");
        reply[0] = 129;
        assert!(is_reply(&reply, true, 7));
        assert!(!is_reply(&reply, true, 8));
        assert!(!is_reply(&reply[..4], true, 7));
    }
}
