//! What client and server say to each other: a JSON [`Header`] on a line, then the body. The same
//! over TCP and, in one datagram, over UDP.

use serde::{Deserialize, Serialize};

/// Longest header, with its newline.
pub const MAX_HEADER: usize = 512;

/// Largest body, in bytes.
pub const MAX_BODY: u32 = 1 << 20;

/// The line before a body, in both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Chosen by the client, repeated by the server.
    pub nonce: u64,
    /// Size of the body in bytes; of the whole payload where it is a datagram.
    pub bytes: u32,
    /// [`checksum`] of the body, or of the padding.
    #[serde(with = "hex")]
    pub sum: u64,
    /// A datagram that must not be fragmented, and whose answer must not be either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dont_fragment: bool,
    /// Who answers; only in answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Server>,
}

/// Who answers, and what it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Where the request came from.
    pub peer: std::net::SocketAddr,
    /// Name of the pod.
    pub pod: String,
    /// Name of the node.
    pub node: String,
}

/// A body nobody produces by accident: each byte depends on its position and on the nonce.
#[must_use]
pub fn body(nonce: u64, bytes: usize) -> Vec<u8> {
    let mut state = nonce | 1;
    (0..bytes)
        .map(|_| {
            // xorshift64, Marsaglia 2003
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// FNV-1a, 64 bits.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A datagram of exactly `size` bytes, or as small as the header allows.
#[must_use]
pub fn datagram(mut header: Header, size: usize) -> Vec<u8> {
    header.bytes = u32::try_from(size).unwrap_or(u32::MAX);
    let padding = body(header.nonce, size.saturating_sub(line(&header).len()));
    header.sum = checksum(&padding);
    let mut datagram = line(&header);
    datagram.extend_from_slice(&padding);
    datagram
}

/// Splits a datagram into its header and its padding, and checks the padding.
///
/// # Errors
/// What is wrong with it.
pub fn open_datagram(datagram: &[u8]) -> Result<Header, String> {
    let end = datagram
        .iter()
        .position(|b| *b == b'\n')
        .ok_or("a datagram without a header")?;
    let header: Header = serde_json::from_slice(&datagram[..end]).map_err(|e| e.to_string())?;
    if checksum(&datagram[end + 1..]) != header.sum {
        return Err("a datagram with a wrong checksum".to_owned());
    }
    Ok(header)
}

/// The header as a line.
#[must_use]
pub fn line(header: &Header) -> Vec<u8> {
    let mut line = serde_json::to_vec(header).expect("numbers and strings always serialise");
    line.push(b'\n');
    line
}

/// Sixteen digits whatever the value, so that the checksum does not change the length of the header.
mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&format_args!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
        let text = String::deserialize(input)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn datagrams_have_the_size_asked_for(nonce: u64, size in 200usize..9000) {
            let made = datagram(Header { nonce, ..Header::default() }, size);
            prop_assert_eq!(made.len(), size);
            let header = open_datagram(&made).unwrap();
            prop_assert_eq!(header.nonce, nonce);
            prop_assert_eq!(header.bytes as usize, size);
        }

        #[test]
        fn a_changed_byte_is_noticed(nonce: u64, at in 150usize..1400) {
            let mut made = datagram(Header { nonce, ..Header::default() }, 1400);
            made[at] ^= 1;
            prop_assert!(open_datagram(&made).is_err());
        }
    }

    #[test]
    fn the_checksum_is_fnv1a() {
        assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
