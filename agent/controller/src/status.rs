//! The status of a `Configuration`: a pure function of what was seen.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kindnet_api::configuration::InvalidConfiguration;
use kindnet_api::{Configuration, ConfigurationStatus, names};
use kube::ResourceExt as _;

/// A roll-out without an end, or agents that are not ready, are reported as degraded after this long.
pub const PROGRESS_DEADLINE: jiff::SignedDuration = jiff::SignedDuration::from_secs(300);

/// What a reconciliation found.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<'a> {
    /// The DaemonSet is as the Configuration asks; this is it.
    Applied(&'a DaemonSet),
    /// The Configuration asks for something impossible; the DaemonSet was left alone.
    Invalid(Vec<InvalidConfiguration>, Option<&'a DaemonSet>),
    /// The API server refused the DaemonSet.
    Refused(String, Option<&'a DaemonSet>),
    /// Not the one Configuration that counts.
    Ignored,
}

/// The three conditions, in the order they are written.
struct Conditions {
    ready: Line,
    progressing: Line,
    degraded: Line,
}

struct Line {
    status: bool,
    reason: &'static str,
    message: String,
}

fn line(status: bool, reason: &'static str, message: impl Into<String>) -> Line {
    Line {
        status,
        reason,
        message: message.into(),
    }
}

/// Numbers of a DaemonSet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// Whether the DaemonSet controller has seen the current specification.
    current: bool,
    desired: i32,
    updated: i32,
    ready: i32,
}

impl Counts {
    fn of(daemonset: &DaemonSet) -> Self {
        let status = daemonset.status.clone().unwrap_or_default();
        let generation = daemonset.metadata.generation.unwrap_or(0);
        Self {
            current: status.observed_generation.unwrap_or(0) >= generation.max(1),
            desired: status.desired_number_scheduled,
            updated: status.updated_number_scheduled.unwrap_or(0),
            ready: status.number_ready,
        }
    }

    const fn done(self) -> bool {
        self.current && self.updated >= self.desired && self.ready >= self.desired
    }
}

/// The status to write. Equal to the one in `configuration` when nothing changed:
/// `lastTransitionTime` only moves with the condition's `status`.
#[must_use]
pub fn status(
    configuration: &Configuration,
    outcome: &Outcome<'_>,
    now: Timestamp,
) -> ConfigurationStatus {
    let old = configuration.status.clone().unwrap_or_default();
    let daemonset = match outcome {
        Outcome::Applied(daemonset) => Some(*daemonset),
        Outcome::Invalid(_, daemonset) | Outcome::Refused(_, daemonset) => *daemonset,
        Outcome::Ignored => None,
    };
    let counts = daemonset.map(Counts::of).unwrap_or_default();
    let generation = configuration.metadata.generation;
    let lines = match outcome {
        Outcome::Ignored => ignored(configuration),
        Outcome::Applied(_) => applied(counts, &old, generation, now),
        Outcome::Invalid(problems, _) => {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            failed(counts, "InvalidConfiguration", text.join("; "))
        }
        Outcome::Refused(message, _) => failed(counts, "ApplyFailed", message.clone()),
    };
    let condition = |kind: &str, line: Line| {
        let status = if line.status { "True" } else { "False" };
        let since = old
            .conditions
            .iter()
            .find(|c| c.type_ == kind && c.status == status)
            .map_or(Time(now), |c| c.last_transition_time.clone());
        Condition {
            type_: kind.into(),
            status: status.into(),
            reason: line.reason.into(),
            message: line.message,
            observed_generation: generation,
            last_transition_time: since,
        }
    };
    ConfigurationStatus {
        observed_generation: generation,
        desired_nodes: counts.desired,
        updated_nodes: counts.updated,
        ready_nodes: counts.ready,
        conditions: vec![
            condition("Ready", lines.ready),
            condition("Progressing", lines.progressing),
            condition("Degraded", lines.degraded),
        ],
    }
}

/// A condition of a status, by type.
#[must_use]
pub fn condition<'a>(status: &'a ConfigurationStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == kind)
}

fn ignored(configuration: &Configuration) -> Conditions {
    let (reason, message) = if configuration.name_any() == names::CONFIGURATION_NAME {
        (
            "WrongNamespace",
            format!("only the one in the namespace {} counts", names::NAMESPACE),
        )
    } else {
        (
            "WrongName",
            format!("only the one named {} counts", names::CONFIGURATION_NAME),
        )
    };
    Conditions {
        ready: line(false, reason, message.clone()),
        progressing: line(false, reason, "nothing is done for this object"),
        degraded: line(true, reason, message),
    }
}

fn failed(counts: Counts, reason: &'static str, message: String) -> Conditions {
    let ready = counts.desired > 0 && counts.ready >= counts.desired;
    Conditions {
        ready: line(
            ready,
            ready_reason(ready),
            format!("{}, as configured before", agents(counts)),
        ),
        progressing: line(false, reason, "waiting for a configuration that works"),
        degraded: line(true, reason, message),
    }
}

fn applied(
    counts: Counts,
    old: &ConfigurationStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Conditions {
    if counts.done() {
        return Conditions {
            ready: line(true, "AgentsReady", agents(counts)),
            progressing: line(false, "RolledOut", updated(counts)),
            degraded: as_expected(),
        };
    }
    let before = |kind: &str| old.conditions.iter().find(|c| c.type_ == kind);
    // An agent that is lost after the roll-out is a failure, not progress.
    let rolled_out = counts.current
        && counts.updated >= counts.desired
        && old.observed_generation == generation
        && before("Progressing").is_some_and(|c| c.reason == "RolledOut");
    let (kind, value) = if rolled_out {
        ("Ready", "False")
    } else {
        ("Progressing", "True")
    };
    let since = before(kind)
        .filter(|c| c.status == value)
        .map_or(now, |c| c.last_transition_time.0);
    let degraded = if now.duration_since(since) < PROGRESS_DEADLINE {
        as_expected()
    } else {
        let minutes = PROGRESS_DEADLINE.as_mins();
        let (reason, what) = if rolled_out {
            ("AgentsNotReady", "not ready for")
        } else {
            ("RolloutStalled", "not finished after")
        };
        let text = format!(
            "{what} {minutes} minutes: {}, {}",
            updated(counts),
            agents(counts)
        );
        line(true, reason, text)
    };
    let ready = counts.current && counts.desired > 0 && counts.ready >= counts.desired;
    Conditions {
        ready: line(ready, ready_reason(ready), agents(counts)),
        progressing: if rolled_out {
            line(false, "RolledOut", updated(counts))
        } else {
            line(true, "RollingOut", updated(counts))
        },
        degraded,
    }
}

/// A message is required by the schema, and an empty one would be left out when it is sent.
fn as_expected() -> Line {
    line(false, "AsExpected", "nothing is wrong")
}

const fn ready_reason(ready: bool) -> &'static str {
    if ready {
        "AgentsReady"
    } else {
        "AgentsNotReady"
    }
}

fn agents(counts: Counts) -> String {
    format!("{} of {} agents are ready", counts.ready, counts.desired)
}

fn updated(counts: Counts) -> String {
    if counts.current {
        format!(
            "{} of {} nodes run the configured agent",
            counts.updated, counts.desired
        )
    } else {
        "the DaemonSet controller has not seen the change yet".into()
    }
}

#[cfg(test)]
mod tests;
