//! What the kernel of this machine allows.

use std::net::{Ipv6Addr, TcpListener};

/// Limits and switches of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Host {
    /// `net.ipv6.conf.all.disable_ipv6` is set, or the kernel has no IPv6.
    pub v6_disabled: bool,
    /// `::1` can be listened on.
    pub v6_loopback: bool,
    /// `fs.inotify.max_user_instances`
    pub inotify_instances: Option<u64>,
    /// `fs.inotify.max_user_watches`
    pub inotify_watches: Option<u64>,
}

impl Host {
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        let v6 = sysctl("net/ipv6/conf/all/disable_ipv6");
        Self {
            v6_disabled: v6 != Some(0),
            v6_loopback: TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
            inotify_instances: sysctl("fs/inotify/max_user_instances"),
            inotify_watches: sysctl("fs/inotify/max_user_watches"),
        }
    }
}

fn sysctl(path: &str) -> Option<u64> {
    fs_err::read_to_string(format!("/proc/sys/{path}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}
