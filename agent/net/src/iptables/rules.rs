//! Rules as text: what they should be, what is there, what differs. Pure.
//!
//! Rules are written the way the tools print them, so that a comparison of text is enough.

use std::fmt::Write as _;

use ipnet::IpNet;
use kindnet_api::names::MASQUERADE_CHAIN as CHAIN;
use kindnet_api::node::Family;
use kindnet_core::masquerade::FamilyMasquerade;

/// What differs from the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drift {
    /// The chain is not there.
    ChainMissing,
    /// The chain has other rules, or in another order.
    ChainChanged,
    /// `POSTROUTING` does not lead to the chain, or not for every pod subnet.
    JumpMissing,
    /// `POSTROUTING` leads to the chain more than once, or for something else.
    JumpExtra,
    /// A rule that ends the evaluation stands before ours in `POSTROUTING`.
    JumpShadowed,
    /// There are rules of ours that should not be.
    Unwanted,
}

impl Drift {
    /// A short name for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ChainMissing => "chain_missing",
            Self::ChainChanged => "chain_changed",
            Self::JumpMissing => "jump_missing",
            Self::JumpExtra => "jump_extra",
            Self::JumpShadowed => "jump_shadowed",
            Self::Unwanted => "unwanted",
        }
    }
}

/// The rules of one family as they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// Rules of `POSTROUTING`, without `-A POSTROUTING`.
    pub(super) jumps: Vec<String>,
    /// Rules of the chain, without `-A CHAIN`.
    pub(super) chain: Vec<String>,
}

/// The rules of one family as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Present {
    /// `POSTROUTING`, without `-A POSTROUTING`.
    pub(super) postrouting: Vec<String>,
    /// The chain, without `-A CHAIN`; `None` where it does not exist.
    pub(super) chain: Option<Vec<String>>,
}

impl Rules {
    /// `random_fully` picks source ports at random, which spares hosts with many connections the
    /// race for the next free one. Kernels before 3.13 and iptables before 1.6.2 do not know it.
    pub(super) fn new(family: Family, plan: &FamilyMasquerade, random_fully: bool) -> Self {
        let jumps = plan
            .sources
            .iter()
            .map(|source| {
                format!(
                    // No apostrophe: the iptables crate takes it for a quote.
                    "{}-m comment --comment \"kindnet: traffic of local pods\" -j {CHAIN}",
                    matching("-s", *source)
                )
            })
            .collect();
        let multicast = match family {
            Family::V4 => "224.0.0.0/4",
            Family::V6 => "ff00::/8",
        };
        let mut chain: Vec<String> = plan
            .exempt
            .iter()
            .map(|net| format!("{}-j RETURN", matching("-d", *net)))
            .collect();
        chain.push(format!("-d {multicast} -j RETURN"));
        chain.push("-m addrtype --dst-type LOCAL -j RETURN".to_owned());
        chain.push(format!(
            "-m comment --comment \"kindnet: leaves the cluster\" -j MASQUERADE{}",
            if random_fully { " --random-fully" } else { "" }
        ));
        Self { jumps, chain }
    }
}

/// A match on a prefix, with a blank behind it; nothing for the prefix that matches everything.
fn matching(flag: &str, net: IpNet) -> String {
    if net.prefix_len() == 0 {
        String::new()
    } else {
        format!("{flag} {net} ")
    }
}

impl Present {
    /// From `-A` lines of the two chains.
    pub(super) fn new(postrouting: &[String], chain: Option<&[String]>) -> Self {
        let strip = |lines: &[String], prefix: &str| -> Vec<String> {
            lines
                .iter()
                .filter_map(|line| line.strip_prefix(prefix))
                .map(str::to_owned)
                .collect()
        };
        Self {
            postrouting: strip(postrouting, "-A POSTROUTING "),
            chain: chain.map(|lines| strip(lines, &format!("-A {CHAIN} "))),
        }
    }

    /// The rules of `POSTROUTING` that lead to our chain.
    pub(super) fn jumps(&self) -> impl Iterator<Item = &str> {
        self.postrouting
            .iter()
            .map(String::as_str)
            .filter(|rule| is_jump(rule))
    }

    /// Whether there is anything of ours.
    pub(super) fn is_empty(&self) -> bool {
        self.chain.is_none() && self.jumps().next().is_none()
    }
}

fn is_jump(rule: &str) -> bool {
    target(rule) == Some(CHAIN)
}

/// What follows `-j` or `-g`; comments cannot be mistaken for it, as targets come last and comments
/// with a blank are quoted.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.split(' ').rev();
    let mut last = words.next()?;
    for word in words {
        if word == "-j" || word == "-g" {
            return Some(last);
        }
        last = word;
    }
    None
}

/// Whether a rule ends the evaluation for packets it matches. Jumps to chains are given the benefit
/// of the doubt: kube-proxy and the portmap plugin put theirs first, and theirs return.
fn ends_evaluation(rule: &str) -> bool {
    matches!(
        target(rule),
        Some("ACCEPT" | "RETURN" | "MASQUERADE" | "SNAT" | "NETMAP" | "DROP")
    )
}

/// Compares; `None` when everything is as it should be.
pub(super) fn drift(desired: &Rules, present: &Present) -> Option<Drift> {
    match &present.chain {
        None => return Some(Drift::ChainMissing),
        Some(rules) if *rules != desired.chain => return Some(Drift::ChainChanged),
        Some(_) => {}
    }
    let jumps: Vec<&str> = present.jumps().collect();
    if desired
        .jumps
        .iter()
        .any(|jump| !jumps.contains(&jump.as_str()))
    {
        return Some(Drift::JumpMissing);
    }
    if jumps.len() != desired.jumps.len() {
        return Some(Drift::JumpExtra);
    }
    let ours = jumps.len();
    let shadowed = present
        .postrouting
        .iter()
        .scan(0, |seen, rule| {
            *seen += usize::from(is_jump(rule));
            Some((*seen < ours, rule))
        })
        .any(|(before_last, rule)| before_last && ends_evaluation(rule));
    shadowed.then_some(Drift::JumpShadowed)
}

/// Input for `iptables-restore --noflush` that turns `present` into `desired` in one go. Declaring
/// the chain creates or empties it.
pub(super) fn transaction(desired: &Rules, present: &Present) -> String {
    let mut text = format!("*nat\n:{CHAIN} - [0:0]\n");
    for rule in &desired.chain {
        let _ = writeln!(text, "-A {CHAIN} {rule}");
    }
    for jump in present.jumps() {
        let _ = writeln!(text, "-D POSTROUTING {jump}");
    }
    for jump in desired.jumps.iter().rev() {
        let _ = writeln!(text, "-I POSTROUTING 1 {jump}");
    }
    text.push_str("COMMIT\n");
    text
}

#[cfg(test)]
mod tests;
