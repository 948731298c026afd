//! Ports of the host that lead to ports of pods.
//!
//! nftables does it with maps: a pod adds and removes elements, whatever the number of pods. Where
//! the kernel has no nf_tables, iptables does it with rules.

mod conntrack;
mod iptables;
mod nft;

use std::net::IpAddr;

use crate::config::{HostPorts, PortMapping, Protocol};
use crate::error::{Error, Result};
use crate::ipam::{Record, Store};
use crate::netlink::Socket;

/// A port of the host and where it leads, in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    /// Protocol.
    pub(crate) protocol: Protocol,
    /// Address of the host; any where absent.
    pub(crate) host_ip: Option<IpAddr>,
    /// Port of the host.
    pub(crate) host_port: u16,
    /// Address of the pod.
    pub(crate) pod_ip: IpAddr,
    /// Port of the pod.
    pub(crate) pod_port: u16,
}

/// The host ports of an attachment.
#[derive(Debug, Clone)]
pub(crate) struct HostPortSet {
    forwards: Vec<Forward>,
    mode: HostPorts,
}

impl HostPortSet {
    /// What a record asks for.
    pub(crate) fn of(record: &Record) -> Self {
        let targets: Vec<IpAddr> = if record.addresses.is_empty() {
            record.port_targets.clone()
        } else {
            record.addresses.iter().map(|a| a.address.addr()).collect()
        };
        Self {
            forwards: forwards(&record.ports, &targets),
            mode: record.host_ports,
        }
    }

    /// The addresses of the pod.
    fn pods(&self) -> Vec<IpAddr> {
        let mut pods: Vec<IpAddr> = self.forwards.iter().map(|f| f.pod_ip).collect();
        pods.sort_unstable();
        pods.dedup();
        pods
    }
}

/// One forward per port and family; the first address of a family is the pod's.
fn forwards(ports: &[PortMapping], targets: &[IpAddr]) -> Vec<Forward> {
    let mut forwards = Vec::new();
    for ipv4 in [true, false] {
        let Some(pod_ip) = targets.iter().copied().find(|ip| ip.is_ipv4() == ipv4) else {
            continue;
        };
        forwards.extend(
            ports
                .iter()
                .filter(|port| port.serves(ipv4))
                .map(|port| Forward {
                    protocol: port.protocol,
                    host_ip: port.specific_host_ip(),
                    host_port: port.host_port,
                    pod_ip,
                    pod_port: port.container_port,
                }),
        );
    }
    forwards
}

/// Opens the ports. A port that led elsewhere leads here from now on: the pod that had it is on its
/// way out, or the scheduler would not have put this one here.
///
/// # Errors
/// The kernel refused, or has neither nf_tables nor a usable iptables.
pub(crate) fn add(store: &Store, set: &HostPortSet) -> Result<()> {
    if set.forwards.is_empty() {
        return Ok(());
    }
    let _lock = store.lock_named("hostports")?;
    let mut socket = netfilter(set.mode)?;
    either(
        set.mode,
        socket.as_mut(),
        |socket| nft::add(socket, set, || sets(store)),
        || iptables::add(&set.forwards, &set.pods()),
    )?;
    conntrack::flush_udp(socket.as_mut(), &set.forwards)
}

/// What keeps a transaction of nf_tables from being waited for, see [`remove`].
#[must_use]
pub(crate) struct Afterwards {
    _socket: Option<Socket>,
}

/// Closes the ports, except those that lead elsewhere by now.
///
/// Who closes a socket of nfnetlink waits until the kernel has freed what transactions removed, which
/// takes an RCU grace period, and everybody else's transactions wait with it. So the socket is handed
/// out, for a process that has time.
///
/// # Errors
/// The kernel refused.
pub(crate) fn remove(store: &Store, set: &HostPortSet) -> Result<Afterwards> {
    if set.forwards.is_empty() {
        return Ok(Afterwards { _socket: None });
    }
    let _lock = store.lock_named("hostports")?;
    let mut socket = netfilter(set.mode)?;
    either(
        set.mode,
        socket.as_mut(),
        |socket| nft::remove(socket, set),
        || iptables::remove(&set.forwards, &set.pods()),
    )?;
    conntrack::flush_udp(socket.as_mut(), &set.forwards)?;
    Ok(Afterwards { _socket: socket })
}

/// Compares the kernel's state with what the ports need.
///
/// # Errors
/// [`Error::Check`] names a port that is closed or leads elsewhere.
pub(crate) fn check(set: &HostPortSet) -> Result<()> {
    either(
        set.mode,
        netfilter(set.mode)?.as_mut(),
        |socket| nft::check(socket, &set.forwards),
        || iptables::check(&set.forwards),
    )
}

/// nfnetlink; `None` where the kernel has none and something else may be used.
fn netfilter(mode: HostPorts) -> Result<Option<Socket>> {
    match Socket::netfilter() {
        Err(error) if mode != HostPorts::Nftables && is_unsupported(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// nftables if the mode allows it and the kernel has it, otherwise iptables.
fn either(
    mode: HostPorts,
    socket: Option<&mut Socket>,
    nft: impl FnOnce(&mut Socket) -> Result<()>,
    iptables: impl FnOnce() -> Result<()>,
) -> Result<()> {
    match (mode, socket) {
        (HostPorts::Iptables, _) | (_, None) => iptables(),
        (_, Some(socket)) => match nft(socket) {
            Err(error) if mode == HostPorts::Auto && is_unsupported(&error) => iptables(),
            other => other,
        },
    }
}

/// Makes the kernel's state from the records: after somebody flushed the ruleset, or after an update.
/// With nftables that is one transaction.
///
/// # Errors
/// The kernel refused.
pub(crate) fn restore(store: &Store) -> Result<()> {
    let sets = sets(store)?;
    if sets.is_empty() && !nft::exists().unwrap_or(false) {
        return Ok(());
    }
    let _lock = store.lock_named("hostports")?;
    // Once more, now that nobody adds to them.
    restore_locked(&self::sets(store)?)
}

/// As [`restore`], if the table of nftables is gone; whether it was.
///
/// # Errors
/// The kernel refused.
pub(crate) fn repair(store: &Store) -> Result<bool> {
    match nft::exists() {
        Ok(true) => return Ok(false),
        Err(error) if !is_unsupported(&error) => return Err(error),
        _ => {}
    }
    if sets(store)?.is_empty() {
        return Ok(false);
    }
    restore(store).map(|()| true)
}

fn restore_locked(sets: &[HostPortSet]) -> Result<()> {
    let (rules, maps): (Vec<_>, Vec<_>) =
        sets.iter().partition(|set| set.mode == HostPorts::Iptables);
    let mut rules = rules;
    match nft::restore(&maps) {
        Err(error) if is_unsupported(&error) => rules.extend(maps),
        other => other?,
    }
    for set in rules {
        iptables::add(&set.forwards, &set.pods())?;
    }
    Ok(())
}

/// The host ports of every attachment that has some.
fn sets(store: &Store) -> Result<Vec<HostPortSet>> {
    let records = store.records()?;
    Ok(records
        .iter()
        .map(HostPortSet::of)
        .filter(|set| !set.forwards.is_empty())
        .collect())
}

/// Removes everything of ours.
///
/// # Errors
/// The kernel refused.
pub(crate) fn purge() -> Result<()> {
    let nft = match nft::purge() {
        Err(error) if is_unsupported(&error) => Ok(()),
        other => other,
    };
    Error::all(
        [nft, iptables::purge()]
            .into_iter()
            .filter_map(Result::err)
            .collect(),
    )
}

/// The kernel has no nf_tables, or one without NAT for both families in one table.
fn is_unsupported(error: &Error) -> bool {
    use nix::errno::Errno;
    matches!(
        error.errno(),
        Some(Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT)
    )
}

impl std::fmt::Display for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = match self.host_ip {
            None => format!(":{}", self.host_port),
            Some(ip) => std::net::SocketAddr::new(ip, self.host_port).to_string(),
        };
        let pod = std::net::SocketAddr::new(self.pod_ip, self.pod_port);
        write!(f, "{}/{host} to {pod}", self.protocol.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_leads_to_the_pod_in_every_family_it_serves() {
        let port = |host_ip: Option<&str>| PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        };
        let targets: Vec<IpAddr> = ["10.1.2.3", "fd00::3", "fd00::4"]
            .map(|ip| ip.parse().unwrap())
            .into();
        let text = |host_ip| -> Vec<String> {
            forwards(&[port(host_ip)], &targets)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            text(None),
            ["tcp/:8080 to 10.1.2.3:80", "tcp/:8080 to [fd00::3]:80"]
        );
        assert_eq!(text(Some("0.0.0.0")), ["tcp/:8080 to 10.1.2.3:80"]);
        assert_eq!(text(Some("::1")), ["tcp/[::1]:8080 to [fd00::3]:80"]);
        assert_eq!(
            text(Some("192.0.2.1")),
            ["tcp/192.0.2.1:8080 to 10.1.2.3:80"]
        );
    }
}
