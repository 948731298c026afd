//! Running the iptables tools.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use iptables::IPTables;
use kindnet_api::node::Family;

use super::Flavour;
use crate::{Error, ErrorKind, Result};

/// Seconds to wait for the xtables lock. The nft flavour has no lock.
const LOCK_WAIT_SECS: &str = "5";

/// The tools of one flavour and family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tool {
    flavour: Flavour,
    family: Family,
}

impl Tool {
    pub(super) const fn new(flavour: Flavour, family: Family) -> Self {
        Self { flavour, family }
    }

    pub(super) const fn family(self) -> Family {
        self.family
    }

    /// Name of the tool; the crate wants it to live for ever.
    const fn name(self) -> &'static str {
        match (self.flavour, self.family) {
            (Flavour::Nft, Family::V4) => "iptables-nft",
            (Flavour::Nft, Family::V6) => "ip6tables-nft",
            (Flavour::Legacy, Family::V4) => "iptables-legacy",
            (Flavour::Legacy, Family::V6) => "ip6tables-legacy",
            (Flavour::Default, Family::V4) => "iptables",
            (Flavour::Default, Family::V6) => "ip6tables",
        }
    }

    /// `--check` and `--wait` are in every version since 1.4.20, and the flavours are newer.
    fn handle(self) -> IPTables {
        IPTables {
            cmd: self.name(),
            has_check: true,
            has_wait: true,
            is_numeric: false,
        }
    }

    /// Whether the tool is installed.
    pub(super) fn installed(self) -> bool {
        Command::new(self.name())
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// Rules of a chain of the nat table as `-A CHAIN ...` lines; `None` where there is no such
    /// chain.
    pub(super) fn list(self, chain: &str) -> Result<Option<Vec<String>>> {
        let what = format!("list chain {chain} with {}", self.name());
        let output = self
            .handle()
            .execute("nat", &format!("-S {chain}"))
            .map_err(|e| Error::new(&what, ErrorKind::Missing, e.to_string()))?;
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let rules = text.lines().filter(|line| line.starts_with("-A "));
            return Ok(Some(rules.map(|rule| rule.trim_end().to_owned()).collect()));
        }
        let error = failure(&what, &output);
        match error.kind() {
            ErrorKind::Missing => Ok(None),
            _ => Err(error),
        }
    }

    /// Removes one rule of `POSTROUTING`.
    pub(super) fn delete_jump(self, rule: &str) -> Result<()> {
        self.done("delete a rule", |t| t.delete("nat", "POSTROUTING", rule))
    }

    /// Removes a chain with its rules.
    pub(super) fn delete_chain(self, chain: &str) -> Result<()> {
        self.done("flush a chain", |t| t.flush_chain("nat", chain))?;
        self.done("delete a chain", |t| t.delete_chain("nat", chain))
    }

    fn done(
        self,
        what: &str,
        run: impl FnOnce(&IPTables) -> std::result::Result<(), Box<dyn std::error::Error>>,
    ) -> Result<()> {
        let what = format!("{what} with {}", self.name());
        // The crate's errors cannot leave their thread.
        run(&self.handle()).map_err(|e| Error::new(what, ErrorKind::Other, e.to_string()))
    }

    /// Feeds `iptables-restore --noflush`, which applies all of `input` or nothing.
    pub(super) fn restore(self, input: &str) -> Result<()> {
        let tool = format!("{}-restore", self.name());
        let what = format!("write rules with {tool}");
        let mut child = Command::new(&tool)
            .args(["--noflush", "-w", LOCK_WAIT_SECS])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io(&what, e))?;
        // The tool may give up before it has read everything; its status says so.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(|e| Error::io(&what, e))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(failure(&what, &output))
        }
    }

    /// Everything in one table, or in all, as `iptables-save` prints it; nothing where the tool or
    /// the table is missing.
    pub(super) fn save(self, table: Option<&str>) -> String {
        let mut command = Command::new(format!("{}-save", self.name()));
        if let Some(table) = table {
            command.args(["-t", table]);
        }
        command
            .stdin(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    }
}

/// Turns what a tool said into an error.
fn failure(what: &str, output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    if text.is_empty() {
        let status = output.status;
        return Error::new(
            what,
            ErrorKind::Other,
            format!("the tool ended with {status}"),
        );
    }
    Error::new(what, classify(text), text)
}

/// The exit status tells little; the words have been the same for years, in both flavours.
fn classify(text: &str) -> ErrorKind {
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if says(&["Permission denied", "you must be root"]) {
        ErrorKind::Permission
    } else if says(&["holding the xtables lock", "Resource busy"]) {
        ErrorKind::Busy
    } else if says(&[
        "Failed to initialize nft",
        "an't initialize",
        "Table does not exist",
        "not supported",
    ]) {
        ErrorKind::Unsupported
    } else if says(&[
        "No chain/target/match by that name",
        "does not exist",
        // What iptables-nft 1.8.9 says about a chain that is not there.
        "is incompatible, use 'nft' tool",
    ]) {
        ErrorKind::Missing
    } else {
        ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("iptables: No chain/target/match by that name.", ErrorKind::Missing)]
    #[case(
        "iptables v1.8.9 (nf_tables): chain `X' in table `nat' is incompatible, use 'nft' tool.",
        ErrorKind::Missing
    )]
    #[case(
        "iptables v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist (do \
         you need to insmod?)",
        ErrorKind::Unsupported
    )]
    #[case(
        "iptables/1.8.9 Failed to initialize nft: Protocol not supported",
        ErrorKind::Unsupported
    )]
    #[case(
        "iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied \
         (you must be root)",
        ErrorKind::Permission
    )]
    #[case(
        "Another app is currently holding the xtables lock; still 4s 0us time ahead",
        ErrorKind::Busy
    )]
    #[case("iptables-restore: line 3 failed", ErrorKind::Other)]
    fn what_the_tools_say(#[case] text: &str, #[case] kind: ErrorKind) {
        assert_eq!(classify(text), kind);
    }
}
