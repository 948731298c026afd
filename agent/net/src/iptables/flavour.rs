//! Which of the two incompatible iptables kinds this node uses.

use kindnet_api::node::Family;

use super::command::Tool;

/// A kind of iptables. Rules of one are invisible to the tools of the other, yet the kernel runs
/// both, so what matters is to use the same as kubelet and kube-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// On top of nf_tables.
    Nft,
    /// On top of x_tables.
    Legacy,
    /// Whatever `iptables` is, where the two are not told apart.
    Default,
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
            Self::Default => "default",
        })
    }
}

impl Flavour {
    /// Chooses as the [iptables-wrappers] of kube-proxy's image do: where kubelet left one of its
    /// hints, that one; else the one with more rules; nft when in doubt. Blocks.
    ///
    /// [iptables-wrappers]: https://github.com/kubernetes-sigs/iptables-wrappers
    #[must_use]
    pub fn detect() -> Self {
        let installed = |flavour| Tool::new(flavour, Family::V4).installed();
        match (installed(Self::Nft), installed(Self::Legacy)) {
            (false, false) => return Self::Default,
            (true, false) => return Self::Nft,
            (false, true) => return Self::Legacy,
            (true, true) => {}
        }
        for flavour in [Self::Nft, Self::Legacy] {
            let hinted = Family::ALL.into_iter().any(|family| {
                flavour.in_use(family) && has_hint(&Tool::new(flavour, family).save(Some("mangle")))
            });
            if hinted {
                return flavour;
            }
        }
        let rules = |flavour: Self| -> usize {
            Family::ALL
                .into_iter()
                .filter(|family| flavour.in_use(*family))
                .map(|family| count_rules(&Tool::new(flavour, family).save(None)))
                .sum()
        };
        if rules(Self::Legacy) > rules(Self::Nft) {
            Self::Legacy
        } else {
            Self::Nft
        }
    }

    /// Whether looking at this flavour's tables creates none. Merely listing a legacy table makes
    /// the kernel load it, and then every packet walks it.
    pub(super) fn in_use(self, family: Family) -> bool {
        let names = match family {
            Family::V4 => "/proc/thread-self/net/ip_tables_names",
            Family::V6 => "/proc/thread-self/net/ip6_tables_names",
        };
        self != Self::Legacy
            || fs_err::read_to_string(names).is_ok_and(|names| !names.trim().is_empty())
    }
}

/// Whether kubelet made these rules: it keeps such chains for exactly this purpose.
fn has_hint(save: &str) -> bool {
    save.lines().any(|line| {
        line.starts_with(":KUBE-IPTABLES-HINT ") || line.starts_with(":KUBE-KUBELET-CANARY ")
    })
}

fn count_rules(save: &str) -> usize {
    save.lines().filter(|line| line.starts_with('-')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_chains_and_rules_are_counted() {
        let save = "*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";
        assert!(has_hint(save));
        assert!(!has_hint("-A X -m comment --comment KUBE-IPTABLES-HINT\n"));
        assert_eq!(count_rules(save), 0);
        assert_eq!(
            count_rules("*nat\n-A POSTROUTING -j ACCEPT\n-A X -j Y\nCOMMIT\n"),
            2
        );
    }
}
