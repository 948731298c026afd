//! What a run found.

use std::time::Duration;

use kindnet_api::node::Family;
use serde::Serialize;

/// Everything a run found, in the order of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Nodes whose pods talked to each other.
    pub nodes: Vec<String>,
    /// Families that were checked.
    pub families: Vec<String>,
    /// Image of the check pods.
    pub image: String,
    /// The checks.
    pub checks: Vec<Check>,
    /// Duration of the whole run without cleaning up, in seconds.
    #[serde(rename = "durationSecs", serialize_with = "secs")]
    pub duration: Duration,
}

impl Report {
    /// Whether nothing failed and something was checked.
    #[must_use]
    pub fn passed(&self) -> bool {
        let failed = |c: &Check| matches!(c.outcome, Outcome::Fail { .. });
        let passed = |c: &Check| matches!(c.outcome, Outcome::Pass);
        !self.checks.iter().any(failed) && self.checks.iter().any(passed)
    }
}

/// One check in one family.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Identifier, such as `pod.cross-node.tcp`; stable across releases.
    pub id: String,
    /// Heading it stands under.
    pub group: String,
    /// What it is about, for people.
    pub title: String,
    /// Family; none where the check is about both.
    #[serde(serialize_with = "family", skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The longest of its probes, in seconds.
    #[serde(rename = "durationSecs", serialize_with = "secs")]
    pub duration: Duration,
    /// Attempts beyond the first of the probe that needed most of them before it succeeded.
    pub retries: u32,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail {
        /// Every pair of ends, or node, where it was seen.
        failures: Vec<Failure>,
    },
    /// Could not be checked.
    Skipped {
        /// Why not.
        reason: String,
    },
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Between which ends, or where.
    pub subject: String,
    /// What was seen.
    pub saw: String,
    /// What was expected.
    pub expected: String,
    /// Where the packet stopped, as far as can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
}

fn secs<S: serde::Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    // Microseconds are as good as the clock of a busy machine gets.
    out.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e6)
}

fn family<S: serde::Serializer>(family: &Option<Family>, out: S) -> Result<S::Ok, S::Error> {
    match family {
        Some(family) => out.collect_str(family),
        None => out.serialize_none(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fixture::{Fate, Network, topology, verify, view};
    use kindnet_probe::wire::ProblemKind;

    /// One direction of a node is broken, and one probe needed a second attempt.
    pub(crate) fn sample() -> Report {
        let topology = topology();
        let mut views: Vec<_> = (0..2).map(|n| view(&topology, n)).collect();
        views[0]
            .routes
            .retain(|r| r.dst.to_string() != "10.244.1.0/24");
        let network = Network {
            topology: &topology,
            views,
            fate: &|packet| match packet.family == Family::V4 && packet.crosses() {
                true => Fate::Lost(ProblemKind::Timeout),
                false => Fate::Arrives,
            },
        };
        let evaluated = verify(
            &network,
            &["pod.*-node.tcp", "dns", "node.routes", "node.conflist"],
        );
        let mut checks: Vec<_> = evaluated
            .into_iter()
            .map(crate::evaluate::Evaluated::into_check)
            .collect();
        checks[1].retries = 1;
        Report {
            nodes: vec!["alpha".into(), "beta".into()],
            families: vec!["IPv4".into(), "IPv6".into()],
            image: "example.test/kindnet:v1".into(),
            checks,
            duration: Duration::from_millis(7430),
        }
    }

    #[test]
    fn a_report_for_programs() {
        insta::assert_json_snapshot!(sample());
    }

    #[test]
    fn passed_means_that_something_passed_and_nothing_failed() {
        let mut report = sample();
        assert!(!report.passed());
        report
            .checks
            .retain(|c| !matches!(c.outcome, Outcome::Fail { .. }));
        assert!(report.passed());
        report
            .checks
            .retain(|c| matches!(c.outcome, Outcome::Skipped { .. }));
        assert!(!report.passed());
    }
}
