//! Host ports with nftables, straight over netlink.

mod element;
mod expression;
mod ruleset;

use std::collections::BTreeMap;

use netlink_packet_core::NLM_F_CREATE;
use nix::errno::Errno;

use super::{Forward, HostPortSet};
use crate::config::HostPorts;
use crate::error::{Error, Result};
use crate::fault::step;
use crate::netlink::{Attributes, Batch, Replies, Socket, payload};
use element::Element;

/// The one table of ours.
pub(super) const TABLE: &str = "kindnet-hostports";

const NFPROTO_INET: u8 = 1;
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;
const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;

/// Adds the elements; makes the table if it is not there, with the elements of the `others` in it.
pub(super) fn add(
    socket: &mut Socket,
    set: &HostPortSet,
    others: impl FnOnce() -> Result<Vec<HostPortSet>>,
) -> Result<()> {
    let elements = elements(set);
    match insert(socket, &elements, &[]) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            let others = others()?;
            let others = others
                .iter()
                .filter(|other| other.mode != HostPorts::Iptables);
            rebuild(socket, others.chain([set]))?;
        }
        Err(error) if error.errno() == Some(Errno::EEXIST) => {
            // The ports of a pod that is on its way out.
            let present = lookup(socket, &elements)?;
            let stale: Vec<Element> = elements
                .iter()
                .zip(present)
                .filter(|(_, data)| data.is_some())
                .map(|(element, _)| element.clone())
                .collect();
            insert(socket, &elements, &stale)?;
        }
        other => other?,
    }
    step!();
    Ok(())
}

/// Removes the elements that still lead to this pod.
pub(super) fn remove(socket: &mut Socket, set: &HostPortSet) -> Result<()> {
    let elements = elements(set);
    let present = lookup(socket, &elements)?;
    let mut batch = Batch::default();
    batch.begin();
    let mut ours = elements
        .iter()
        .zip(present)
        .filter(|(e, data)| data.as_ref() == Some(&e.data))
        .peekable();
    if ours.peek().is_none() {
        return Ok(());
    }
    for (element, _) in ours {
        close(&mut batch, element);
    }
    finish(socket, batch)?;
    step!();
    Ok(())
}

/// Compares the elements.
pub(super) fn check(socket: &mut Socket, forwards: &[Forward]) -> Result<()> {
    let elements: Vec<Element> = forwards.iter().map(Element::forward).collect();
    let present = lookup(socket, &elements)?;
    for ((forward, element), data) in forwards.iter().zip(&elements).zip(present) {
        match data {
            Some(data) if data == element.data => {}
            Some(_) => return Err(Error::Check(format!("host port {forward} leads elsewhere"))),
            None => return Err(Error::Check(format!("host port {forward} is closed"))),
        }
    }
    Ok(())
}

/// Replaces the table by what these ask for; removes it if they ask for nothing.
pub(super) fn restore(sets: &[&HostPortSet]) -> Result<()> {
    rebuild(&mut Socket::netfilter()?, sets.iter().copied())
}

/// Removes the table.
pub(super) fn purge() -> Result<()> {
    let mut socket = Socket::netfilter()?;
    let mut batch = Batch::default();
    batch.begin();
    ruleset::ensure_no_table(&mut batch);
    finish(&mut socket, batch)
}

/// What the table has to hold for a pod.
fn elements(set: &HostPortSet) -> Vec<Element> {
    set.forwards
        .iter()
        .map(Element::forward)
        .chain(set.pods().into_iter().map(Element::hairpin))
        .collect()
}

fn insert(socket: &mut Socket, elements: &[Element], stale: &[Element]) -> Result<()> {
    let mut batch = Batch::default();
    batch.begin();
    for element in stale {
        close(&mut batch, element);
    }
    new_elements(&mut batch, elements);
    finish(socket, batch)
}

fn close(batch: &mut Batch, element: &Element) {
    let key = element.key_only();
    batch.netfilter(
        "close a host port",
        DELETE_ELEMENT,
        0,
        NFPROTO_INET,
        0,
        key.as_ref(),
    );
}

fn new_elements(batch: &mut Batch, elements: &[Element]) {
    for element in elements {
        batch.netfilter(
            "open a host port",
            NEW_ELEMENT,
            NLM_F_CREATE,
            NFPROTO_INET,
            0,
            element.whole().as_ref(),
        );
    }
}

/// The whole table in one transaction, in place of the one that is there. Where two ask for a port,
/// the later one gets it.
fn rebuild<'a>(socket: &mut Socket, sets: impl Iterator<Item = &'a HostPortSet>) -> Result<()> {
    let mut wanted: BTreeMap<(&'static str, Vec<u8>), Element> = BTreeMap::new();
    for element in sets.flat_map(elements) {
        wanted.insert((element.set, element.key.clone()), element);
    }
    let mut batch = Batch::default();
    batch.begin();
    ruleset::ensure_no_table(&mut batch);
    if !wanted.is_empty() {
        ruleset::add_table(&mut batch);
        let wanted: Vec<Element> = wanted.into_values().collect();
        new_elements(&mut batch, &wanted);
    }
    finish(socket, batch).map_err(|error| match error.errno() {
        // A kind of chain or expression is missing: NAT for both families came with Linux 5.2.
        Some(Errno::ENOENT) => Error::kernel(error.to_string())(Errno::EOPNOTSUPP),
        _ => error,
    })
}

/// Commits; the acknowledgement of the last message says that all of it is done.
fn finish(socket: &mut Socket, mut batch: Batch) -> Result<()> {
    batch.commit();
    socket.run(batch)
}

/// Where elements lead; `None` for one that is not there.
fn lookup(socket: &mut Socket, elements: &[Element]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut batch = Batch::default();
    for element in elements {
        let key = element.key_only();
        batch.netfilter(
            "look up a host port",
            GET_ELEMENT,
            0,
            NFPROTO_INET,
            0,
            key.as_ref(),
        );
    }
    let Replies {
        batch,
        failures,
        answers,
    } = socket.attempt(batch)?;
    if let Some(failure) = failures.into_iter().find(|f| f.errno != Errno::ENOENT) {
        return Err(without_nf_tables(failure.into_error(&batch)));
    }
    let mut present = vec![None; elements.len()];
    for (index, answer) in answers {
        present[index] = payload(&answer).get(4..).and_then(element::data_of);
    }
    Ok(present)
}

/// Whether the table is there.
pub(super) fn exists() -> Result<bool> {
    let mut batch = Batch::default();
    let question = Attributes::new().string(1, TABLE);
    batch.netfilter(
        "look up the table",
        GET_TABLE,
        0,
        NFPROTO_INET,
        0,
        question.as_ref(),
    );
    match Socket::netfilter()?.ask(batch) {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
        Err(error) => Err(without_nf_tables(error)),
    }
}

/// nfnetlink calls a question to a subsystem it does not have invalid; ours are not.
fn without_nf_tables(error: Error) -> Error {
    match error.errno() {
        Some(Errno::EINVAL) => Error::kernel(error.to_string())(Errno::EOPNOTSUPP),
        _ => error,
    }
}
