//! Names and hardware addresses, from what identifies an attachment: the same every time.

/// How the names of our links on the host begin.
pub(crate) const PREFIX: &str = "kn-";

/// Name of the host's end: `kn-` and 48 bits of hash.
pub(crate) fn host_name(network: &str, container_id: &str, ifname: &str) -> String {
    let hash = hash(&[network, container_id, ifname]);
    format!("{PREFIX}{:012x}", hash >> 16)
}

/// What the host's end is for, as `ip link` shows it: the network, and who has the other end.
pub(crate) fn alias(network: &str, whose: &str) -> String {
    format!("kindnet {network} {whose}")
}

/// A hardware address: locally administered, unicast.
pub(crate) fn mac(host_name: &str, side: &str) -> [u8; 6] {
    let bytes = hash(&[host_name, side]).to_be_bytes();
    [
        (bytes[0] & 0xfc) | 0x02,
        bytes[1],
        bytes[2],
        bytes[3],
        bytes[4],
        bytes[5],
    ]
}

/// FNV-1a, 64 bits, with a last round of mixing: short inputs that differ in their end only would
/// otherwise share their upper bits.
fn hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // A byte that is in no part keeps ("a", "bc") and ("ab", "c") apart.
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_fit_and_differ() {
        let names: HashSet<String> = (0..10_000)
            .map(|n| host_name("kindnet", &format!("{n:064x}"), "eth0"))
            .collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 15));
        assert_ne!(host_name("a", "bc", "d"), host_name("ab", "c", "d"));
    }

    #[test]
    fn names_stay_the_same_over_releases() {
        // DEL finds the link of an ADD that an older release made.
        assert_eq!(host_name("kindnet", "c0ffee", "eth0"), "kn-7fb1ac2c1d14");
    }

    #[test]
    fn hardware_addresses_are_local_and_unicast() {
        let (host, pod) = (mac("kn-1", "host"), mac("kn-1", "pod"));
        assert_ne!(host, pod);
        assert!([host, pod].iter().all(|mac| mac[0] & 3 == 2));
    }
}
