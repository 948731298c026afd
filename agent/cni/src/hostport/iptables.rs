//! Host ports with iptables rules, for kernels without nf_tables. Slower: it starts a program per
//! rule.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use super::Forward;
use crate::error::{Error, Result};
use crate::fault::step;

const FORWARD: &str = "KINDNET-HOSTPORTS";
const SOURCE: &str = "KINDNET-HOSTPORTS-SRC";
const LOCAL: [&str; 6] = ["-m", "addrtype", "--dst-type", "LOCAL", "-j", FORWARD];
const ALL: [&str; 2] = ["-j", SOURCE];

/// Where the chains are jumped to from.
const JUMPS: [(&str, &[&str]); 3] = [
    ("PREROUTING", &LOCAL),
    ("OUTPUT", &LOCAL),
    ("POSTROUTING", &ALL),
];

pub(super) fn add(forwards: &[Forward], pods: &[IpAddr]) -> Result<()> {
    for ipv4 in [true, false] {
        if !pods.iter().any(|ip| ip.is_ipv4() == ipv4) {
            continue;
        }
        let tables = Tables { ipv4 };
        for chain in [FORWARD, SOURCE] {
            // There already is the usual case, so only the rules below tell whether it worked.
            tables.run(&["-N", chain])?;
        }
        for (from, rule) in JUMPS {
            tables.ensure(from, &words(rule))?;
            step!();
        }
        for rule in rules(forwards, pods, ipv4) {
            tables.ensure(rule.0, &rule.1)?;
            step!();
        }
    }
    Ok(())
}

pub(super) fn remove(forwards: &[Forward], pods: &[IpAddr]) -> Result<()> {
    for ipv4 in [true, false] {
        let tables = Tables { ipv4 };
        for (chain, rule) in rules(forwards, pods, ipv4) {
            tables.delete(chain, &rule)?;
            step!();
        }
    }
    Ok(())
}

pub(super) fn check(forwards: &[Forward]) -> Result<()> {
    for forward in forwards {
        let tables = Tables {
            ipv4: forward.pod_ip.is_ipv4(),
        };
        if !tables.has(FORWARD, &forward_rule(forward))? {
            return Err(Error::Check(format!("host port {forward} is closed")));
        }
    }
    Ok(())
}

/// Removes the chains with everything in them.
pub(super) fn purge() -> Result<()> {
    for ipv4 in [true, false] {
        let tables = Tables { ipv4 };
        match tables.has_chain(FORWARD) {
            Ok(true) => {}
            // No iptables, no rules of ours.
            Ok(false) | Err(_) => continue,
        }
        for (from, rule) in JUMPS {
            tables.delete(from, &words(rule))?;
        }
        for chain in [FORWARD, SOURCE] {
            tables.run(&["-F", chain])?;
            tables.run(&["-X", chain])?;
        }
    }
    Ok(())
}

fn words(rule: &[&str]) -> Vec<String> {
    rule.iter().map(|&word| word.to_owned()).collect()
}

fn rules(forwards: &[Forward], pods: &[IpAddr], ipv4: bool) -> Vec<(&'static str, Vec<String>)> {
    let mut rules = Vec::new();
    for forward in forwards.iter().filter(|f| f.pod_ip.is_ipv4() == ipv4) {
        rules.push((FORWARD, forward_rule(forward)));
    }
    let loopback = if ipv4 { "127.0.0.0/8" } else { "::1" };
    for pod in pods.iter().filter(|ip| ip.is_ipv4() == ipv4) {
        let pod = pod.to_string();
        for source in [pod.as_str(), loopback] {
            rules.push((
                SOURCE,
                words(&["-s", source, "-d", &pod, "-j", "MASQUERADE"]),
            ));
        }
    }
    rules
}

fn forward_rule(forward: &Forward) -> Vec<String> {
    let mut rule = words(&["-p", forward.protocol.name()]);
    if let Some(ip) = forward.host_ip {
        rule.extend(["-d".to_owned(), ip.to_string()]);
    }
    let target = SocketAddr::new(forward.pod_ip, forward.pod_port).to_string();
    let port = forward.host_port.to_string();
    rule.extend(words(&[
        "--dport",
        &port,
        "-j",
        "DNAT",
        "--to-destination",
        &target,
    ]));
    rule
}

/// The nat table of one family.
struct Tables {
    ipv4: bool,
}

impl Tables {
    /// Puts a rule first, unless it is there: the last one to ask for a port gets it.
    fn ensure(&self, chain: &str, rule: &[String]) -> Result<()> {
        if self.has(chain, rule)? {
            return Ok(());
        }
        let (done, message) = self.run(&with("-I", chain, rule))?;
        if done {
            Ok(())
        } else {
            Err(self.failed("add a rule", &message))
        }
    }

    /// Removes a rule if it is there.
    fn delete(&self, chain: &str, rule: &[String]) -> Result<()> {
        if !self.has(chain, rule)? {
            return Ok(());
        }
        let (done, message) = self.run(&with("-D", chain, rule))?;
        if done {
            Ok(())
        } else {
            Err(self.failed("remove a rule", &message))
        }
    }

    fn has(&self, chain: &str, rule: &[String]) -> Result<bool> {
        self.run(&with("-C", chain, rule)).map(|(there, _)| there)
    }

    fn has_chain(&self, chain: &str) -> Result<bool> {
        self.run(&["-S", chain]).map(|(there, _)| there)
    }

    fn program(&self) -> &'static str {
        if self.ipv4 { "iptables" } else { "ip6tables" }
    }

    fn failed(&self, operation: &str, message: &str) -> Error {
        Error::io(format!("{}: {operation}", self.program()))(std::io::Error::other(
            message.to_owned(),
        ))
    }

    /// Whether it succeeded, and what it said.
    fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let output = Command::new(self.program())
            .args(["-w", "5", "-t", "nat"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => self.failed(
                    "host ports",
                    "the kernel has no nf_tables, and there is no such program",
                ),
                _ => Error::io(self.program())(error),
            })?;
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok((output.status.success(), message))
    }
}

fn with<'a>(operation: &'a str, chain: &'a str, rule: &'a [String]) -> Vec<&'a str> {
    let mut arguments = vec![operation, chain];
    arguments.extend(rule.iter().map(String::as_str));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;

    #[test]
    fn rules_of_a_port() {
        let forward = Forward {
            protocol: Protocol::Sctp,
            host_ip: Some("fd00::9".parse().unwrap()),
            host_port: 8080,
            pod_ip: "fd00::3".parse().unwrap(),
            pod_port: 80,
        };
        let pods = [forward.pod_ip];
        let text: Vec<String> = rules(&[forward], &pods, false)
            .into_iter()
            .map(|(chain, rule)| format!("{chain} {}", rule.join(" ")))
            .collect();
        assert_eq!(
            text,
            [
                "KINDNET-HOSTPORTS -p sctp -d fd00::9 --dport 8080 -j DNAT --to-destination [fd00::3]:80",
                "KINDNET-HOSTPORTS-SRC -s fd00::3 -d fd00::3 -j MASQUERADE",
                "KINDNET-HOSTPORTS-SRC -s ::1 -d fd00::3 -j MASQUERADE",
            ]
        );
    }
}
