//! Which proxy a request to the API server goes through.
//!
//! The rules are those of kubectl, which are Go's
//! ([httpproxy](https://pkg.go.dev/golang.org/x/net/http/httpproxy)): what a kubeconfig says counts,
//! then `HTTPS_PROXY` unless `NO_PROXY` exempts the server, and nothing on this machine is ever
//! reached through a proxy.

use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;

/// Whether a server is reached without the proxy of the environment. `no_proxy` is the value of
/// `NO_PROXY`; entries that mean nothing are passed over.
pub(crate) fn is_direct(server: &Uri, no_proxy: &str) -> bool {
    let Some(host) = server.host() else {
        return true;
    };
    let host = host
        .trim_matches(['[', ']'])
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let ip = host.parse::<IpAddr>().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    let port = server.port_u16().unwrap_or(443);
    no_proxy
        .split(',')
        .map(|entry| entry.trim().to_ascii_lowercase())
        .any(|entry| exempts(&entry, &host, ip, port))
}

fn exempts(entry: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Ok(net), Some(ip)) = (entry.parse::<IpNet>(), ip) {
        return net.contains(&ip);
    }
    let (name, wanted) = with_port(entry);
    if name.is_empty() || wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    if let Ok(exempt) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return ip == Some(exempt);
    }
    // `example.com` is the name itself and everything below it, `.example.com` what is below only.
    let name = name.strip_prefix('*').unwrap_or(name);
    let bare = name.strip_prefix('.').unwrap_or(name);
    let below = host.strip_suffix(bare).is_some_and(|h| h.ends_with('.'));
    !bare.is_empty() && (below || (bare == name && host == bare))
}

/// Splits a port off, where there is one: an address of IPv6 has colons of its own.
fn with_port(entry: &str) -> (&str, Option<u16>) {
    if entry.parse::<IpAddr>().is_ok() {
        return (entry, None);
    }
    match entry.rsplit_once(':') {
        Some((name, port)) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        None => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    // A cluster on this machine needs no entry at all.
    #[case("https://127.0.0.1:40000", "", true)]
    #[case("https://[::1]:40000", "", true)]
    #[case("https://localhost:6443", "", true)]
    #[case("https://10.0.0.1:6443", "", false)]
    #[case("https://10.0.0.1:6443", "*", true)]
    #[case("https://10.0.0.1:6443", "192.168.0.0/16, 10.0.0.0/8", true)]
    #[case("https://10.0.0.1:6443", "10.0.0.1", true)]
    #[case("https://10.0.0.1:6443", "10.0.0.1:443", false)]
    #[case("https://[fd00::1]:6443", "fd00::/8", true)]
    #[case("https://[fd00::1]:6443", "fd00::1", true)]
    #[case("https://[fd00::1]:6443", "[fd00::1]:6443", true)]
    #[case("https://api.example.com", "example.com", true)]
    #[case("https://api.example.com", ".example.com:443", true)]
    #[case("https://api.example.com", "*.example.com", true)]
    #[case("https://example.com", ".example.com", false)]
    #[case("https://badexample.com", "example.com", false)]
    // Entries that mean nothing, as at the end of many lists.
    #[case("https://api.example.com", ",,:,.,", false)]
    fn direct(#[case] server: &str, #[case] no_proxy: &str, #[case] expected: bool) {
        assert_eq!(is_direct(&server.parse().unwrap(), no_proxy), expected);
    }
}
