//! A datagram, there and back.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::problem;
use crate::frame::{self, Header};
use crate::wire::{Echo, Problem, ProblemKind};

pub(super) fn echo(to: SocketAddr, bytes: u32, timeout: Duration) -> Result<Echo, Problem> {
    let socket = connect(to)?;
    let header = Header {
        nonce: super::nonce(),
        ..Header::default()
    };
    exchange(&socket, header, bytes as usize, timeout)
}

/// A socket that hears from `to` only, and of ICMP errors on the way there.
pub(super) fn connect(to: SocketAddr) -> Result<UdpSocket, Problem> {
    let any: SocketAddr = if to.is_ipv6() {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).map_err(|e| problem("UDP socket", &e))?;
    super::report_icmp_errors(&socket, to.is_ipv6())?;
    socket.connect(to).map_err(|e| problem("UDP connect", &e))?;
    Ok(socket)
}

/// Sends one datagram of `size` bytes of payload and waits for its answer.
pub(super) fn exchange(
    socket: &UdpSocket,
    header: Header,
    size: usize,
    timeout: Duration,
) -> Result<Echo, Problem> {
    let deadline = Instant::now() + timeout;
    let nonce = header.nonce;
    let request = frame::datagram(header, size);
    let what = format!("UDP datagram of {} bytes", request.len());
    socket.send(&request).map_err(|e| problem(&what, &e))?;
    let mut buffer = vec![0; 65536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Problem::new(
                ProblemKind::Timeout,
                format!("{what}: no answer in time"),
            ));
        }
        socket
            .set_read_timeout(Some(left))
            .map_err(|e| problem("UDP socket", &e))?;
        let received = socket.recv(&mut buffer).map_err(|e| problem(&what, &e))?;
        let answer = frame::open_datagram(&buffer[..received])
            .map_err(|text| Problem::new(ProblemKind::Corrupt, format!("UDP: {text}")))?;
        // A late answer to an earlier attempt has another nonce.
        let Some(from) = answer.from.filter(|_| answer.nonce == nonce) else {
            continue;
        };
        return Ok(Echo {
            peer: from.peer,
            pod: from.pod,
            node: from.node,
            local: socket.local_addr().map_err(|e| problem("UDP socket", &e))?,
            bytes: u32::try_from(received).unwrap_or(u32::MAX),
        });
    }
}
