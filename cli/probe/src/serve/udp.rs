//! UDP: one datagram, one answer of the same size, from the address the request was sent to.
//!
//! On a host with several addresses the kernel picks the source of an answer by the route to the
//! peer. That is not always the address the peer asked (`ptp` routes to pods name the pod gateway as
//! source), so the answer carries the address explicitly.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike,
    SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

use super::Identity;
use crate::frame::{self, Header, Server};

/// Options of the socket.
pub(super) fn prepare(socket: &impl std::os::fd::AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

pub(super) fn serve(socket: &UdpSocket, identity: &Identity) {
    let mut buffer = vec![0; 65536];
    loop {
        // Errors are about single datagrams, such as an ICMP answer to an earlier one.
        let Ok(request) = receive(socket, &mut buffer) else {
            continue;
        };
        let Some(answer) = answer(&buffer[..request.bytes], request.peer, identity) else {
            continue;
        };
        let _ = respond(socket, &request, &answer);
    }
}

struct Request {
    bytes: usize,
    peer: SocketAddr,
    to: Option<ControlMessageOwned>,
}

struct Answer {
    datagram: Vec<u8>,
    dont_fragment: bool,
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> nix::Result<Request> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let to = message.cmsgs()?.find(|c| {
        matches!(
            c,
            ControlMessageOwned::Ipv4PacketInfo(_) | ControlMessageOwned::Ipv6PacketInfo(_)
        )
    });
    let peer = message
        .address
        .as_ref()
        .and_then(peer_of)
        .ok_or(nix::Error::EAFNOSUPPORT)?;
    Ok(Request {
        bytes: message.bytes,
        peer,
        to,
    })
}

fn peer_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::V6(std::net::SocketAddrV6::new(
        v6.ip(),
        v6.port(),
        0,
        v6.scope_id(),
    )))
}

fn answer(request: &[u8], peer: SocketAddr, identity: &Identity) -> Option<Answer> {
    let header = frame::open_datagram(request).ok()?;
    let answer = Header {
        nonce: header.nonce,
        dont_fragment: header.dont_fragment,
        from: Some(Server {
            peer,
            pod: identity.pod.clone(),
            node: identity.node.clone(),
        }),
        ..Header::default()
    };
    Some(Answer {
        datagram: frame::datagram(answer, request.len()),
        dont_fragment: header.dont_fragment,
    })
}

fn respond(socket: &UdpSocket, request: &Request, answer: &Answer) -> io::Result<()> {
    let slices = [IoSlice::new(&answer.datagram)];
    match request.peer {
        SocketAddr::V4(peer) => {
            // One thread owns the socket: the option holds for this answer only.
            set_ip_mtu_discover(
                socket,
                if answer.dont_fragment {
                    Ipv4PathMtuDiscovery::PROBE
                } else {
                    Ipv4PathMtuDiscovery::WANT
                },
            )?;
            let source = match &request.to {
                Some(ControlMessageOwned::Ipv4PacketInfo(info)) => Some(libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: info.ipi_addr,
                    ipi_addr: libc::in_addr { s_addr: 0 },
                }),
                _ => None,
            };
            let control = source.as_ref().map(ControlMessage::Ipv4PacketInfo);
            send(socket, &slices, control, &SockaddrIn::from(peer))
        }
        SocketAddr::V6(peer) => {
            set_ipv6_mtu_discover(
                socket,
                if answer.dont_fragment {
                    Ipv6PathMtuDiscovery::PROBE
                } else {
                    Ipv6PathMtuDiscovery::WANT
                },
            )?;
            setsockopt(socket, sockopt::Ipv6DontFrag, &answer.dont_fragment)?;
            let source = match &request.to {
                // A link-local address means nothing without its link.
                Some(ControlMessageOwned::Ipv6PacketInfo(info)) => Some(libc::in6_pktinfo {
                    ipi6_addr: info.ipi6_addr,
                    ipi6_ifindex: if peer.scope_id() == 0 {
                        0
                    } else {
                        info.ipi6_ifindex
                    },
                }),
                _ => None,
            };
            let control = source.as_ref().map(ControlMessage::Ipv6PacketInfo);
            send(socket, &slices, control, &SockaddrIn6::from(peer))
        }
    }
}

fn send<S: SockaddrLike>(
    socket: &UdpSocket,
    slices: &[IoSlice<'_>],
    control: Option<ControlMessage<'_>>,
    to: &S,
) -> io::Result<()> {
    let control: Vec<_> = control.into_iter().collect();
    sendmsg(
        socket.as_raw_fd(),
        slices,
        &control,
        MsgFlags::empty(),
        Some(to),
    )?;
    Ok(())
}
