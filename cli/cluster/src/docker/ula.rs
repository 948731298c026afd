//! The IPv6 prefix of a Docker network, derived from its name so that every machine gets the same.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use sha1::{Digest as _, Sha1};

/// kind's prefix for a network: a unique local /64 (RFC 4193) from the SHA-1 of name and attempt.
#[must_use]
pub fn subnet(network: &str, attempt: i32) -> Ipv6Net {
    let mut hash = Sha1::new();
    hash.update(network.as_bytes());
    hash.update(attempt.to_le_bytes());
    let digest = hash.finalize();
    let mut octets = [0u8; 16];
    octets[0] = 0xfc;
    octets[2..8].copy_from_slice(&digest[2..8]);
    Ipv6Net::new_assert(Ipv6Addr::from(octets), 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("kind", 0, "fc00:f853:ccd:e793::/64")]
    #[case("kind", 1, "fc00:8866:27d0:bd7e::/64")]
    #[case("foo", 1, "fc00:8edf:7f02:ec8f::/64")]
    #[case("foo", 2, "fc00:9968:306b:2c65::/64")]
    #[case("kind2", 0, "fc00:444c:147a:44ab::/64")]
    #[case("kin", 0, "fc00:fcd9:c2be:8e23::/64")]
    #[case("mysupernetwork", 0, "fc00:7ae1:1e0d:b4d4::/64")]
    fn vectors(#[case] name: &str, #[case] attempt: i32, #[case] expected: &str) {
        assert_eq!(subnet(name, attempt).to_string(), expected);
    }
}
