//! The table: maps, sets, chains and rules. They stay the same whatever the pods do.

use std::net::Ipv6Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::expression::{Base, Meta, Rule, register};
use super::{DELETE_TABLE, NEW_CHAIN, NEW_RULE, NEW_SET, NEW_TABLE, NFPROTO_INET, TABLE};
use crate::link;
use crate::netlink::{Attributes, Batch};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

// Data types of `nft`, for whoever lists the table.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;

/// What differs between the families.
struct Family {
    number: u8,
    address_type: u32,
    /// Length of an address, bytes.
    length: u32,
    /// Offset of the source address in the header.
    source: u32,
    /// Offset of the destination address in the header.
    destination: u32,
    suffix: char,
}

const FAMILIES: [Family; 2] = [
    Family {
        number: NFPROTO_IPV4,
        address_type: IPV4_ADDR,
        length: 4,
        source: 12,
        destination: 16,
        suffix: '4',
    },
    Family {
        number: NFPROTO_IPV6,
        address_type: IPV6_ADDR,
        length: 16,
        source: 8,
        destination: 24,
        suffix: '6',
    },
];

/// Removes the table whether it is there or not: adding it first makes sure that it is.
pub(super) fn ensure_no_table(batch: &mut Batch) {
    table(batch, "make the table", NEW_TABLE, NLM_F_CREATE);
    table(batch, "remove the table", DELETE_TABLE, 0);
}

/// Makes the table with everything in it but the elements.
pub(super) fn add_table(batch: &mut Batch) {
    table(batch, "make the table", NEW_TABLE, NLM_F_CREATE);
    let mut id = 0;
    for family in &FAMILIES {
        let address = [family.address_type];
        let port = [INET_PROTO, INET_SERVICE];
        let target = [family.address_type, INET_SERVICE];
        for (name, key, data) in [
            ("ports", &port[..], Some(&target[..])),
            (
                "ip-ports",
                &[address[0], port[0], port[1]],
                Some(&target[..]),
            ),
            ("hairpin", &[address[0], address[0]], None),
        ] {
            id += 1;
            set(
                batch,
                id,
                &format!("{name}{}", family.suffix),
                family,
                key,
                data,
            );
        }
    }
    chain(batch, "hostports", None);
    // Before kube-proxy, which has -100 and 100: only one of the chains of a hook decides about the
    // addresses of a flow.
    chain(batch, "prerouting", Some((PREROUTING, -101, "nat")));
    chain(batch, "output", Some((OUTPUT, -101, "nat")));
    chain(batch, "postrouting", Some((POSTROUTING, 99, "nat")));
    chain(batch, "martians", Some((PREROUTING, -300, "filter")));
    // IPv6 has no route_localnet: answers to ::1 would be unreachable. So the port is closed there,
    // and who tries `localhost` goes on to 127.0.0.1 at once.
    let localhost = of_family(&FAMILIES[1])
        .payload(
            Base::Network,
            FAMILIES[1].destination,
            FAMILIES[1].length,
            register(0),
        )
        .equals(register(0), &Ipv6Addr::LOCALHOST.octets())
        .leave();
    rule(batch, "output", localhost);
    for hook in ["prerouting", "output"] {
        rule(batch, hook, Rule::new().for_this_host().jump("hostports"));
    }
    for family in &FAMILIES {
        forwarding(batch, family);
        sources(batch, family);
    }
    // Flows from 127.0.0.1 need route_localnet on the links of pods. Nothing a pod sends may make
    // use of it (CVE-2020-8558): what arrives with such an address on the wire is dropped.
    let loopback = |offset| {
        of_family(&FAMILIES[0])
            .meta(Meta::Iifname, register(0))
            .equals(register(0), link::PREFIX.as_bytes())
            .payload(Base::Network, offset, 1, register(0))
            .equals(register(0), &[127])
            .drop()
    };
    rule(batch, "martians", loopback(FAMILIES[0].destination));
    rule(batch, "martians", loopback(FAMILIES[0].source));
}

/// `dnat ip to ip daddr . meta l4proto . th dport map @ip-ports4`, then the same without the address.
fn forwarding(batch: &mut Batch, family: &Family) {
    let parts = family.length / 4;
    let to = register(8);
    for specific in [true, false] {
        let mut expressions = of_family(family);
        let mut key = register(0);
        if specific {
            expressions =
                expressions.payload(Base::Network, family.destination, family.length, key);
            key += parts;
        }
        let name = if specific { "ip-ports" } else { "ports" };
        let expressions = expressions
            .meta(Meta::L4proto, key)
            .payload(Base::Transport, 2, 2, key + 1)
            .map(&format!("{name}{}", family.suffix), register(0), to)
            .dnat(family.number, to, to + parts);
        rule(batch, "hostports", expressions);
    }
}

/// The pod must see an address it can answer: not its own, and not the host's loopback address.
fn sources(batch: &mut Batch, family: &Family) {
    let parts = family.length / 4;
    let hairpin = of_family(family)
        .translated()
        .payload(Base::Network, family.source, family.length, register(0))
        .payload(
            Base::Network,
            family.destination,
            family.length,
            register(parts),
        )
        .within(&format!("hairpin{}", family.suffix), register(0))
        .masquerade();
    rule(batch, "postrouting", hairpin);
    if family.number == NFPROTO_IPV4 {
        let from_loopback = of_family(family)
            .translated()
            .meta(Meta::Oifname, register(0))
            .equals(register(0), link::PREFIX.as_bytes())
            .payload(Base::Network, family.source, 1, register(0))
            .equals(register(0), &[127])
            .masquerade();
        rule(batch, "postrouting", from_loopback);
    }
}

fn of_family(family: &Family) -> Rule {
    Rule::new()
        .meta(Meta::Nfproto, register(0))
        .equals(register(0), &[family.number])
}

fn table(batch: &mut Batch, operation: &'static str, kind: u16, flags: u16) {
    let attributes = Attributes::new().string(1, TABLE);
    batch.netfilter(operation, kind, flags, NFPROTO_INET, 0, attributes.as_ref());
}

fn chain(batch: &mut Batch, name: &str, base: Option<(u32, i32, &str)>) {
    let mut attributes = Attributes::new().string(1, TABLE).string(3, name);
    if let Some((hook, priority, kind)) = base {
        let hook = Attributes::new()
            .be32(1, hook)
            .bytes(2, &priority.to_be_bytes());
        attributes = attributes.nest(4, hook).string(7, kind);
    }
    batch.netfilter(
        "make a chain",
        NEW_CHAIN,
        NLM_F_CREATE,
        NFPROTO_INET,
        0,
        attributes.as_ref(),
    );
}

fn rule(batch: &mut Batch, chain: &str, rule: Rule) {
    let attributes = Attributes::new()
        .string(1, TABLE)
        .string(2, chain)
        .nest(4, rule.into_attributes());
    let flags = NLM_F_CREATE | NLM_F_APPEND;
    batch.netfilter(
        "make a rule",
        NEW_RULE,
        flags,
        NFPROTO_INET,
        0,
        attributes.as_ref(),
    );
}

/// A set, or a map if it leads to `data`.
fn set(batch: &mut Batch, id: u32, name: &str, family: &Family, key: &[u32], data: Option<&[u32]>) {
    const MAP: u32 = 8;
    let length = |types: &[u32]| -> u32 {
        types
            .iter()
            .map(|t| {
                if *t == family.address_type {
                    family.length
                } else {
                    4
                }
            })
            .sum()
    };
    // Six bits a type.
    let concatenation = |types: &[u32]| types.iter().fold(0, |all, t| all << 6 | t);
    let mut attributes = Attributes::new()
        .string(1, TABLE)
        .string(2, name)
        .be32(3, if data.is_some() { MAP } else { 0 })
        .be32(4, concatenation(key))
        .be32(5, length(key))
        .be32(10, id);
    if let Some(data) = data {
        attributes = attributes
            .be32(6, concatenation(data))
            .be32(7, length(data));
    }
    batch.netfilter(
        "make a set",
        NEW_SET,
        NLM_F_CREATE,
        NFPROTO_INET,
        0,
        attributes.as_ref(),
    );
}
