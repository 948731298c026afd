//! Forgetting UDP flows.
//!
//! A flow keeps the destination its first packet got. A UDP client that goes on sending from one port
//! would talk to the old pod, or to nobody, until the flow times out.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NLM_F_DUMP;
use nix::errno::Errno;

use super::Forward;
use crate::config::Protocol;
use crate::error::{Error, Result};
use crate::fault::step;
use crate::netlink::{Attributes, Batch, Socket, find, payload};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const TUPLE_ORIG: u16 = 1;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_DST: u16 = 2;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_DST_PORT: u32 = 1 << 5;

/// Forgets the flows to UDP host ports.
///
/// # Errors
/// The kernel refused. A kernel without connection tracking has nothing to forget.
pub(super) fn flush_udp(socket: Option<&mut Socket>, forwards: &[Forward]) -> Result<()> {
    let Some(socket) = socket else {
        return Ok(());
    };
    let ports: BTreeSet<(bool, u16)> = forwards
        .iter()
        .filter(|forward| forward.protocol == Protocol::Udp)
        .map(|forward| (forward.pod_ip.is_ipv4(), forward.host_port))
        .collect();
    for (ipv4, port) in ports {
        let specific: Vec<Option<IpAddr>> = forwards
            .iter()
            .filter(|f| f.host_port == port && f.pod_ip.is_ipv4() == ipv4)
            .filter(|f| f.protocol == Protocol::Udp)
            .map(|f| f.host_ip)
            .collect();
        match flush(socket, ipv4, port, &specific) {
            Err(Error::Kernel {
                errno: Errno::EOPNOTSUPP | Errno::EINVAL,
                ..
            }) => return Ok(()),
            other => other?,
        }
        step!();
    }
    Ok(())
}

fn flush(socket: &mut Socket, ipv4: bool, port: u16, host_ips: &[Option<IpAddr>]) -> Result<()> {
    let family = if ipv4 { AF_INET } else { AF_INET6 };
    for flow in list(socket, family, port)? {
        let attributes = payload(&flow).get(4..).unwrap_or_default();
        let Some(tuple) = find(attributes, TUPLE_ORIG) else {
            continue;
        };
        let meant = |ip: &Option<IpAddr>| ip.is_none() || *ip == destination(tuple);
        // Kernels before 5.8 do not filter.
        if !is_udp_to(tuple, port) || !host_ips.iter().any(meant) {
            continue;
        }
        let mut key = Attributes::new().nest(TUPLE_ORIG, raw(tuple));
        for kind in [ID, ZONE] {
            if let Some(value) = find(attributes, kind) {
                key = key.bytes(kind, value);
            }
        }
        let mut batch = Batch::default();
        batch.netfilter("forget a UDP flow", DELETE, 0, family, 0, key.as_ref());
        match socket.run(batch) {
            // It ended on its own.
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

fn list(socket: &mut Socket, family: u8, port: u16) -> Result<Vec<Vec<u8>>> {
    let udp = Protocol::Udp.number();
    let protocol = Attributes::new()
        .bytes(PROTO_NUM, &[udp])
        .bytes(PROTO_DST_PORT, &port.to_be_bytes());
    let flags = FILTER_PROTO_NUM | FILTER_DST_PORT;
    let filter = Attributes::new()
        .nest(TUPLE_ORIG, Attributes::new().nest(TUPLE_PROTO, protocol))
        .nest(
            FILTER,
            Attributes::new().bytes(FILTER_ORIG_FLAGS, &flags.to_ne_bytes()),
        );
    let ask = |socket: &mut Socket, filter: &[u8]| {
        let mut batch = Batch::default();
        batch.netfilter("list UDP flows", GET, NLM_F_DUMP, family, 0, filter);
        socket.dump(batch)
    };
    match ask(socket, filter.as_ref()) {
        Err(Error::Kernel {
            errno: Errno::EINVAL | Errno::EOPNOTSUPP,
            ..
        }) => ask(socket, &[]),
        other => other,
    }
}

/// The attributes of a tuple, to be sent back as they came.
fn raw(tuple: &[u8]) -> Attributes {
    crate::netlink::attributes(tuple).fold(Attributes::new(), |all, (kind, value)| {
        all.nest(
            kind,
            crate::netlink::attributes(value).fold(Attributes::new(), |inner, (kind, value)| {
                inner.bytes(kind, value)
            }),
        )
    })
}

fn is_udp_to(tuple: &[u8], port: u16) -> bool {
    let Some(protocol) = find(tuple, TUPLE_PROTO) else {
        return false;
    };
    find(protocol, PROTO_NUM) == Some(&[Protocol::Udp.number()])
        && find(protocol, PROTO_DST_PORT) == Some(&port.to_be_bytes())
}

fn destination(tuple: &[u8]) -> Option<IpAddr> {
    let ip = find(tuple, TUPLE_IP)?;
    if let Some(v4) = find(ip, IP_V4_DST) {
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(v4).ok()?).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(find(ip, IP_V6_DST)?).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_recognised_and_sent_back_as_it_came() {
        let tuple = Attributes::new()
            .nest(
                TUPLE_IP,
                Attributes::new().bytes(IP_V4_DST, &[192, 0, 2, 1]),
            )
            .nest(
                TUPLE_PROTO,
                Attributes::new()
                    .bytes(PROTO_NUM, &[17])
                    .bytes(PROTO_DST_PORT, &53u16.to_be_bytes()),
            );
        assert!(is_udp_to(tuple.as_ref(), 53));
        assert!(!is_udp_to(tuple.as_ref(), 54));
        assert_eq!(
            destination(tuple.as_ref()),
            Some("192.0.2.1".parse().unwrap())
        );
        assert_eq!(raw(tuple.as_ref()).as_ref(), tuple.as_ref());
    }
}
