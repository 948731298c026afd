//! Talking to the kernel: one socket, batches of messages, one answer.
//!
//! Messages of a batch travel in one system call and the kernel works through them in order. Only the
//! last one asks for an acknowledgement; the others are heard of only when they fail.

mod nla;

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};

pub(crate) use nla::{Attributes, find, iter as attributes};

use crate::error::{Error, Result};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Longest datagram the kernel makes of a dump, unless asked for more.
const RECEIVE: usize = 32 * 1024;
/// A batch up to this length fits the default send buffer of any kernel.
const SEND: usize = 64 * 1024;

/// A connection to one netlink family in the network namespace it was opened in.
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

/// A message the kernel sent, header included.
pub(crate) type Datagram = Vec<u8>;

/// An operation of a batch that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its place in the batch.
    pub(crate) index: usize,
    /// Why.
    pub(crate) errno: Errno,
    /// The kernel's own words, in parentheses, or nothing.
    pub(crate) detail: String,
}

/// What became of a batch.
pub(crate) struct Replies {
    /// The batch, for the names of its operations.
    pub(crate) batch: Batch,
    /// Operations that failed, in order.
    pub(crate) failures: Vec<Failure>,
    /// Answers to questions, with the places of the questions.
    pub(crate) answers: Vec<(usize, Datagram)>,
}

impl Replies {
    /// The error of the first operation that failed.
    pub(crate) fn check(self) -> Result<Vec<Datagram>> {
        match self.failures.into_iter().next() {
            None => Ok(self.answers.into_iter().map(|(_, answer)| answer).collect()),
            Some(failure) => Err(failure.into_error(&self.batch)),
        }
    }
}

/// Messages that are sent together.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    operations: Vec<(usize, &'static str)>,
}

impl Batch {
    /// Adds a message to rtnetlink. `operation` is what an error message says was tried.
    pub(crate) fn route(
        &mut self,
        operation: &'static str,
        flags: u16,
        message: RouteNetlinkMessage,
    ) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut self.bytes[start..]);
        self.pad();
        self.operations.push((start, operation));
    }

    /// Adds a message to nfnetlink: `kind` is `subsystem << 8 | message`.
    pub(crate) fn netfilter(
        &mut self,
        operation: &'static str,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        attributes: &[u8],
    ) {
        let start = self.bytes.len();
        let length = u32::try_from(HEADER + 4 + attributes.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend([0; 8]);
        // struct nfgenmsg: family, version 0, resource in network order
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
        self.pad();
        self.operations.push((start, operation));
    }

    /// Begins a transaction of nf_tables.
    pub(crate) fn begin(&mut self) {
        self.netfilter(
            "begin a transaction",
            BATCH_BEGIN,
            0,
            0,
            NFNL_SUBSYS_NFTABLES,
            &[],
        );
    }

    /// Ends a transaction of nf_tables.
    pub(crate) fn commit(&mut self) {
        self.netfilter("commit", BATCH_END, 0, 0, NFNL_SUBSYS_NFTABLES, &[]);
        // Kernels differ in whether they acknowledge this one, so nobody waits for it.
        self.operations.pop();
    }

    /// Whether an answer to the first message is about the batch as a whole.
    fn is_transaction(&self) -> bool {
        self.bytes.get(4..6) == Some(&BATCH_BEGIN.to_ne_bytes()[..])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// What the message at this place was to do.
    pub(crate) fn operation(&self, index: usize) -> &'static str {
        self.operations
            .get(index)
            .map_or("netlink", |(_, name)| name)
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Numbers the messages from `first`.
    fn number(&mut self, first: u32) {
        for (index, (start, _)) in self.operations.iter().enumerate() {
            let number = first.wrapping_add(index as u32);
            self.bytes[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
        }
    }

    fn flag(&mut self, index: usize, flag: u16) {
        let at = self.operations[index].0 + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | flag;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }
}

impl Socket {
    /// rtnetlink of the network namespace of this thread.
    pub(crate) fn route() -> Result<Self> {
        Self::open(NETLINK_ROUTE)
    }

    /// nfnetlink of the network namespace of this thread.
    pub(crate) fn netfilter() -> Result<Self> {
        Self::open(NETLINK_NETFILTER)
    }

    fn open(protocol: isize) -> Result<Self> {
        let inner =
            netlink_sys::Socket::new(protocol).map_err(Error::io("open a netlink socket"))?;
        // Kernels before 4.12 do not know these; they only make messages better.
        drop(inner.set_ext_ack(true));
        drop(inner.set_cap_ack(true));
        Ok(Self { inner, sequence: 0 })
    }

    pub(crate) fn raw(&self) -> &netlink_sys::Socket {
        &self.inner
    }

    pub(crate) fn raw_mut(&mut self) -> &mut netlink_sys::Socket {
        &mut self.inner
    }

    /// Runs a batch.
    ///
    /// # Errors
    /// An operation failed: the first one that did. The later ones were tried all the same, unless
    /// they are a transaction.
    pub(crate) fn run(&mut self, batch: Batch) -> Result<()> {
        self.attempt(batch)?.check().map(drop)
    }

    /// Runs a batch of questions: the answers to them.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn ask(&mut self, batch: Batch) -> Result<Vec<Datagram>> {
        self.attempt(batch)?.check()
    }

    /// Runs a batch and hands out everything the kernel says.
    ///
    /// # Errors
    /// The kernel cannot be talked to.
    pub(crate) fn attempt(&mut self, mut batch: Batch) -> Result<Replies> {
        if let Some(last) = batch.operations.len().checked_sub(1) {
            batch.flag(last, NLM_F_ACK);
        }
        self.exchange(batch)
    }

    /// The answers to a question that is answered by a list. The message must carry `NLM_F_DUMP`.
    ///
    /// # Errors
    /// The question was refused.
    pub(crate) fn dump(&mut self, batch: Batch) -> Result<Vec<Datagram>> {
        self.exchange(batch)?.check()
    }

    fn exchange(&mut self, mut batch: Batch) -> Result<Replies> {
        let (mut failures, mut answers) = (Vec::new(), Vec::new());
        if batch.is_empty() {
            return Ok(Replies {
                batch,
                failures,
                answers,
            });
        }
        let base = self.sequence.wrapping_add(1);
        batch.number(base);
        let count = batch.operations.len();
        self.sequence = self.sequence.wrapping_add(count as u32);
        if batch.bytes.len() > SEND {
            // Without the privilege the send fails and says so.
            let _ = setsockopt(
                &crate::sys::borrow(&self.inner),
                SndBufForce,
                &(2 * batch.bytes.len()),
            );
        }
        self.inner
            .send(&batch.bytes, 0)
            .map_err(Error::io(batch.operation(count - 1)))?;
        let mut buffer = vec![0; RECEIVE];
        'replies: loop {
            let length = loop {
                match self.inner.recv(&mut &mut buffer[..], 0) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other.map_err(Error::io(batch.operation(count - 1)))?,
                }
            };
            for message in messages(&buffer[..length]) {
                let index = sequence(message).wrapping_sub(base) as usize;
                if index >= count {
                    continue;
                }
                match kind(message) {
                    NLMSG_ERROR => {
                        failures.extend(failure(message, index));
                        // The kernel answers in order, so nothing comes after the last one; and if
                        // it has no nf_tables, or could not commit, nothing was done.
                        if index == count - 1 || (index == 0 && batch.is_transaction()) {
                            break 'replies;
                        }
                    }
                    NLMSG_DONE => break 'replies,
                    _ => answers.push((index, message.to_vec())),
                }
            }
        }
        Ok(Replies {
            batch,
            failures,
            answers,
        })
    }
}

impl Failure {
    /// The error that says so.
    pub(crate) fn into_error(self, batch: &Batch) -> Error {
        Error::Kernel {
            operation: batch.operation(self.index).to_owned(),
            errno: self.errno,
            detail: self.detail,
        }
    }
}

/// The message without its header.
pub(crate) fn payload(message: &[u8]) -> &[u8] {
    message.get(HEADER..).unwrap_or_default()
}

/// `nlmsg_type`
pub(crate) fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

fn flags(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[6], message[7]])
}

fn sequence(message: &[u8]) -> u32 {
    u32::from_ne_bytes([message[8], message[9], message[10], message[11]])
}

/// Reads a message of rtnetlink.
pub(crate) fn route_message(message: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
        .ok()?
        .payload
    {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}

/// The messages of a datagram.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        if length < HEADER || length > rest.len() {
            return None;
        }
        let message = &rest[..length];
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        Some(message)
    })
}

/// `None` where the message says that all is well.
fn failure(message: &[u8], index: usize) -> Option<Failure> {
    let body = payload(message);
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    let mut detail = String::new();
    if flags(message) & NLM_F_ACK_TLVS != 0 {
        // The failed message follows the code: its header only, or all of it.
        let original = body
            .get(4..8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_ne_bytes);
        let original = if flags(message) & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            (original as usize).next_multiple_of(4)
        };
        let text = body
            .get(4 + original..)
            .and_then(|tlvs| find(tlvs, NLMSGERR_ATTR_MSG))
            .and_then(|text| std::str::from_utf8(text).ok());
        if let Some(text) = text {
            detail = format!(" ({})", text.trim_end_matches('\0'));
        }
    }
    Some(Failure {
        index,
        errno: Errno::from_raw(-code),
        detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_datagram_ends_the_messages() {
        let mut batch = Batch::default();
        batch.netfilter("a", 0x0a00, 0, 1, 0, &[1, 2, 3]);
        batch.netfilter("b", 0x0a01, 0, 1, 0, &[]);
        assert_eq!(messages(&batch.bytes).count(), 2);
        for length in 0..batch.bytes.len() {
            assert!(messages(&batch.bytes[..length]).count() < 2);
        }
    }

    #[test]
    fn messages_are_numbered_in_order() {
        let mut batch = Batch::default();
        batch.netfilter("a", 0x0a00, 0, 1, 0, &[1, 2, 3]);
        batch.netfilter("b", 0x0a01, 0, 1, 0, &[]);
        batch.number(7);
        let numbers: Vec<u32> = messages(&batch.bytes).map(sequence).collect();
        assert_eq!(numbers, [7, 8]);
    }
}
