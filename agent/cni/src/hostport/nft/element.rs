//! Elements of the maps and sets.

use std::net::IpAddr;

use super::super::Forward;
use super::TABLE;
use crate::netlink::{Attributes, attributes, find};

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// An element: which set, key, and for a map what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) set: &'static str,
    pub(super) key: Vec<u8>,
    /// Empty in a set.
    pub(super) data: Vec<u8>,
}

impl Element {
    /// A port and where it leads.
    pub(super) fn forward(forward: &Forward) -> Self {
        let mut key = Vec::with_capacity(24);
        key.extend(forward.host_ip.map(octets).into_iter().flatten());
        key.extend([forward.protocol.number(), 0, 0, 0]);
        push_port(&mut key, forward.host_port);
        let mut data = octets(forward.pod_ip);
        push_port(&mut data, forward.pod_port);
        let set = match (forward.host_ip.is_some(), forward.pod_ip.is_ipv4()) {
            (false, true) => "ports4",
            (false, false) => "ports6",
            (true, true) => "ip-ports4",
            (true, false) => "ip-ports6",
        };
        Self { set, key, data }
    }

    /// A pod that talks to itself by way of the host.
    pub(super) fn hairpin(pod: IpAddr) -> Self {
        Self {
            set: if pod.is_ipv4() {
                "hairpin4"
            } else {
                "hairpin6"
            },
            key: octets(pod).repeat(2),
            data: Vec::new(),
        }
    }

    /// For a message that adds it.
    pub(super) fn whole(&self) -> Attributes {
        self.list(self.key_attribute().extend(if self.data.is_empty() {
            Attributes::new()
        } else {
            Attributes::new().nest(
                ELEMENT_DATA,
                Attributes::new().bytes(DATA_VALUE, &self.data),
            )
        }))
    }

    /// For a message that removes or looks for it.
    pub(super) fn key_only(&self) -> Attributes {
        self.list(self.key_attribute())
    }

    fn key_attribute(&self) -> Attributes {
        Attributes::new().nest(ELEMENT_KEY, Attributes::new().bytes(DATA_VALUE, &self.key))
    }

    fn list(&self, element: Attributes) -> Attributes {
        Attributes::new()
            .string(LIST_TABLE, TABLE)
            .string(LIST_SET, self.set)
            .nest(LIST_ELEMENTS, Attributes::new().nest(LIST_ELEMENT, element))
    }
}

/// What the first element of an answer leads to; empty in a set.
pub(super) fn data_of(answer: &[u8]) -> Option<Vec<u8>> {
    let elements = find(answer, LIST_ELEMENTS)?;
    let (_, element) = attributes(elements).next()?;
    let data = find(element, ELEMENT_DATA).and_then(|data| find(data, DATA_VALUE));
    Some(data.unwrap_or_default().to_vec())
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// In a concatenation every part is padded to four bytes.
fn push_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;

    #[test]
    fn keys_are_what_the_rules_put_together() {
        let forward = Forward {
            protocol: Protocol::Udp,
            host_ip: Some("192.0.2.1".parse().unwrap()),
            host_port: 0x1234,
            pod_ip: "10.1.2.3".parse().unwrap(),
            pod_port: 0x5678,
        };
        let element = Element::forward(&forward);
        assert_eq!(element.set, "ip-ports4");
        assert_eq!(element.key, [192, 0, 2, 1, 17, 0, 0, 0, 0x12, 0x34, 0, 0]);
        assert_eq!(element.data, [10, 1, 2, 3, 0x56, 0x78, 0, 0]);
        assert_eq!(data_of(element.whole().as_ref()).unwrap(), element.data);
        assert_eq!(data_of(element.key_only().as_ref()).unwrap(), [0; 0]);
    }
}
