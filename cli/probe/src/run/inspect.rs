//! How the network of this network namespace is configured: links, routes, forwarding, and the CNI
//! configuration of the host. Read from /proc and /sys, which need no right at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::sys::socket::SockaddrStorage;

use crate::wire::{ConfFile, HostView, Link, Route};

/// More of a file is not looked at.
const MAX_CONF: usize = 64 << 10;
/// `include/uapi/linux/route.h`, `ipv6_route.h`
const RTF_REJECT: u32 = 0x0200;
const RTF_GATEWAY: u32 = 0x0002;
const RTF_LOCAL: u32 = 0x8000_0000;
const RTF_ANYCAST: u32 = 0x0010_0000;
const RTF_CACHE: u32 = 0x0100_0000;

pub(super) fn host(conf_dir: &Path) -> HostView {
    let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let mut routes = v4_routes(&read("/proc/net/route"));
    routes.extend(v6_routes(&read("/proc/net/ipv6_route")));
    HostView {
        links: links(),
        routes,
        forwarding_v4: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        forwarding_v6: read("/proc/sys/net/ipv6/conf/all/forwarding").trim() == "1",
        conf_files: conf_files(conf_dir),
    }
}

fn links() -> Vec<Link> {
    let Ok(folder) = fs_err::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let mut links: Vec<Link> = folder
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let mtu = mtu_of(&name)?;
            Some(Link { name, mtu })
        })
        .collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

/// MTU of a link, in bytes.
pub(super) fn mtu_of(link: &str) -> Option<u32> {
    fs_err::read_to_string(format!("/sys/class/net/{link}/mtu"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The IP address in a socket address.
pub(super) fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    address.as_sockaddr_in6().map(|v6| v6.ip().into())
}

/// `/proc/net/route`: Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT, numbers
/// in the byte order of the machine.
fn v4_routes(text: &str) -> Vec<Route> {
    let address = |hex: &str| {
        let number = u32::from_str_radix(hex, 16).ok()?;
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    };
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let f: Vec<&str> = line.split_whitespace().collect();
            let flags = u32::from_str_radix(f.get(3)?, 16).ok()?;
            let net = Ipv4Net::with_netmask(address(f.get(1)?)?, address(f.get(7)?)?).ok()?;
            let gateway = address(f.get(2)?)?;
            Some(Route {
                dst: IpNet::V4(net),
                via: (flags & RTF_GATEWAY != 0).then_some(IpAddr::V4(gateway)),
                dev: (*f.first()?).to_owned(),
                metric: f.get(6)?.parse().ok()?,
                rejects: flags & RTF_REJECT != 0,
            })
        })
        .collect()
}

/// `/proc/net/ipv6_route`: destination, prefix length, source, prefix length, next hop, metric,
/// reference count, use, flags, link; all numbers in hexadecimal.
fn v6_routes(text: &str) -> Vec<Route> {
    let address = |hex: &str| Some(Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?));
    text.lines()
        .filter_map(|line| {
            let f: Vec<&str> = line.split_whitespace().collect();
            let flags = u32::from_str_radix(f.get(8)?, 16).ok()?;
            if flags & (RTF_LOCAL | RTF_ANYCAST | RTF_CACHE) != 0 {
                return None;
            }
            let dst = address(f.first()?)?;
            let prefix = u8::from_str_radix(f.get(1)?, 16).ok()?;
            let dev = (*f.get(9)?).to_owned();
            let rejects = flags & RTF_REJECT != 0;
            // The kernel's own catch-all and the multicast routes are there on every host.
            if dst.is_multicast() || (rejects && prefix == 0) {
                return None;
            }
            let gateway = address(f.get(4)?)?;
            Some(Route {
                dst: IpNet::V6(Ipv6Net::new(dst, prefix).ok()?),
                via: (!gateway.is_unspecified()).then_some(IpAddr::V6(gateway)),
                dev,
                metric: u32::from_str_radix(f.get(5)?, 16).ok()?,
                rejects,
            })
        })
        .collect()
}

/// The files containerd and CRI-O consider, in their order: by name.
fn conf_files(folder: &Path) -> Vec<ConfFile> {
    let Ok(entries) = fs_err::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<ConfFile> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let extension = path.extension()?.to_str()?;
            if !matches!(extension, "conf" | "conflist" | "json") || !path.is_file() {
                return None;
            }
            let bytes = fs_err::read(&path).ok()?;
            let bytes = &bytes[..bytes.len().min(MAX_CONF)];
            Some(ConfFile {
                name: entry.file_name().into_string().ok()?,
                content: String::from_utf8_lossy(bytes).into_owned(),
            })
        })
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_routes_of_a_node() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0001F40A\t030012AC\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            vethx\t0200F40A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
            *\t0002F40A\t00000000\t0200\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let routes = v4_routes(text);
        let shown: Vec<_> = routes
            .iter()
            .map(|r| (r.dst.to_string(), r.via.map(|v| v.to_string()), r.rejects))
            .collect();
        assert_eq!(
            shown,
            [
                ("0.0.0.0/0".to_owned(), Some("172.18.0.1".to_owned()), false),
                (
                    "10.244.1.0/24".to_owned(),
                    Some("172.18.0.3".to_owned()),
                    false
                ),
                ("10.244.0.2/32".to_owned(), None, false),
                ("10.244.2.0/24".to_owned(), None, true),
            ]
        );
    }

    #[test]
    fn v6_routes_of_a_node() {
        let zero = "0".repeat(32);
        let text = format!(
            "fd00001002440001{z} 40 {zero} 00 fc00f853ccd0e7930000000000000003 00000400 00000001 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 fc00f853ccd0e7930000000000000001 00000400 00000001 00000000 00000003     eth0\n\
             fc00f853ccd0e7930000000000000002 80 {zero} 00 {zero} 00000000 00000003 00000000 80200001     eth0\n\
             ff00{f} 08 {zero} 00 {zero} 00000100 00000002 00000000 00000001     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n",
            z = "0".repeat(16),
            f = "0".repeat(28),
        );
        let routes = v6_routes(&text);
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].dst.to_string(), "fd00:10:244:1::/64");
        assert_eq!(
            routes[0].via,
            Some("fc00:f853:ccd0:e793::3".parse().unwrap())
        );
        assert_eq!(routes[1].dst.prefix_len(), 0);
        assert_eq!(routes[0].metric, 1024);
    }

    #[test]
    fn only_what_a_runtime_reads_and_in_its_order() {
        let folder = std::env::temp_dir().join(format!("kindnet-probe-{}", std::process::id()));
        fs_err::create_dir_all(&folder).unwrap();
        for name in [
            "10-kindnet.conflist",
            "05-other.conf",
            ".10-kindnet.tmp",
            "readme",
        ] {
            fs_err::write(folder.join(name), "{}").unwrap();
        }
        let names: Vec<_> = conf_files(&folder).into_iter().map(|f| f.name).collect();
        fs_err::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["05-other.conf", "10-kindnet.conflist"]);
    }

    #[test]
    fn this_host_has_a_loopback_link() {
        let view = host("/nonexistent".as_ref());
        assert!(view.link("lo").is_some_and(|lo| lo.mtu >= 1280));
    }
}
