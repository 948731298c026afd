//! Hearing of changes to our rules.
//!
//! nf_tables announces every change; x_tables announces none, so its rules have to be looked at from
//! time to time.

use std::io;

use kindnet_api::names::MASQUERADE_CHAIN;
use rtnetlink::packet_core::{NetlinkBuffer, NlasIterator};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt as _, TokioSocket};

use crate::{Error, Result};

// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFGENMSG_LEN: usize = 4;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_CHAIN: u16 = 2;

/// Watches the rules that matter to masquerading.
pub struct Monitor {
    socket: TokioSocket,
}

impl Monitor {
    /// Begins to listen, in the network namespace this process is in.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or refuses.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind_auto()?;
            socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
            Ok(socket)
        };
        let socket = open().map_err(|e| Error::io("listen for changes of nftables", e))?;
        Ok(Self { socket })
    }

    /// Waits for a change to our chain, to `POSTROUTING`, or to the table they are in. Changes of
    /// our own making count too. Cancel safe in so far as the caller looks at the rules afterwards.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn changed(&self) -> Result<()> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((packet, _)) if concerns_us(&packet) => return Ok(()),
                Ok(_) => {}
                // More happened than the socket could hold.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                    return Ok(());
                }
                Err(error) => return Err(Error::io("listen for changes of nftables", error)),
            }
        }
    }
}

/// Whether a datagram holds a message about one of our chains.
fn concerns_us(mut packet: &[u8]) -> bool {
    while let Ok(message) = NetlinkBuffer::new_checked(packet) {
        let length = message.length() as usize;
        if message_concerns_us(message.message_type(), message.payload()) {
            return true;
        }
        // Messages are aligned to four bytes.
        match packet.get(length.next_multiple_of(4)..) {
            Some(rest) if !rest.is_empty() => packet = rest,
            _ => return false,
        }
    }
    false
}

fn message_concerns_us(kind: u16, payload: &[u8]) -> bool {
    if kind >> 8 != NFNL_SUBSYS_NFTABLES {
        return false;
    }
    let chain_attribute = match kind & 0xff {
        NFT_MSG_DELTABLE => None,
        NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN => Some(NFTA_CHAIN_NAME),
        NFT_MSG_NEWRULE | NFT_MSG_DELRULE => Some(NFTA_RULE_CHAIN),
        _ => return false,
    };
    let Some(attributes) = payload.get(NFGENMSG_LEN..) else {
        return false;
    };
    let mut table = None;
    let mut chain = None;
    for attribute in NlasIterator::new(attributes).map_while(std::result::Result::ok) {
        let name = attribute.value();
        let name = name.strip_suffix(&[0]).unwrap_or(name).to_owned();
        match attribute.kind() {
            NFTA_TABLE_NAME => table = Some(name),
            kind if Some(kind) == chain_attribute => chain = Some(name),
            _ => {}
        }
    }
    table.as_deref() == Some(b"nat")
        && (chain_attribute.is_none()
            || chain.is_some_and(|chain| {
                chain == MASQUERADE_CHAIN.as_bytes() || chain == b"POSTROUTING"
            }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn attribute(kind: u16, value: &str) -> Vec<u8> {
        let length = 4 + value.len() + 1;
        let mut bytes = Vec::new();
        bytes.extend((length as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value.as_bytes());
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[(u16, &str)]) -> Vec<u8> {
        let mut payload = vec![2, 0, 0, 0];
        for (kind, value) in attributes {
            payload.extend(attribute(*kind, value));
        }
        let mut bytes = Vec::new();
        bytes.extend((16 + payload.len() as u32).to_ne_bytes());
        bytes.extend((NFNL_SUBSYS_NFTABLES << 8 | kind).to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    #[rstest]
    #[case(NFT_MSG_DELRULE, &[(1, "nat"), (2, "KINDNET-MASQ")], true)]
    #[case(NFT_MSG_NEWRULE, &[(1, "nat"), (2, "POSTROUTING")], true)]
    #[case(NFT_MSG_NEWRULE, &[(1, "nat"), (2, "KUBE-SERVICES")], false)]
    #[case(NFT_MSG_DELCHAIN, &[(1, "nat"), (3, "KINDNET-MASQ")], true)]
    #[case(NFT_MSG_DELTABLE, &[(1, "nat")], true)]
    #[case(NFT_MSG_DELTABLE, &[(1, "filter")], false)]
    #[case(NFT_MSG_DELRULE, &[(1, "filter"), (2, "POSTROUTING")], false)]
    fn only_our_chains_count(
        #[case] kind: u16,
        #[case] attributes: &[(u16, &str)],
        #[case] expected: bool,
    ) {
        let other = message(NFT_MSG_NEWRULE, &[(1, "mangle"), (2, "PREROUTING")]);
        let packet = [other, message(kind, attributes)].concat();
        assert_eq!(concerns_us(&packet), expected);
    }

    #[test]
    fn garbage_is_ignored() {
        for length in 0..40 {
            assert!(!concerns_us(&vec![0xff; length]));
            assert!(!concerns_us(&vec![0; length]));
        }
    }
}
