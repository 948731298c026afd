//! What to do about a Lease: pure, so that every case can be tested.

use std::time::Duration;

/// How long a Lease is ours without renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops leading, well before anybody else may start.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at the Lease.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// The part of a Lease that decides who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; nobody once released.
    pub holder: Option<String>,
    /// How long it is theirs without renewal.
    pub duration: Duration,
    /// Changes with every renewal; only compared, because other machines' clocks may be wrong.
    pub renewed: Option<String>,
    /// Since when the holder has it.
    pub acquired: Option<jiff::Timestamp>,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What somebody who wants to lead does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Write the Lease with our name and this number of transitions.
    Take {
        /// For `spec.leaseTransitions`.
        transitions: i32,
        /// Whether it was not ours before.
        acquired: bool,
    },
    /// Somebody else leads; look again.
    Follow,
}

/// Decides. `unchanged_for` is how long we have seen exactly this record, by our own clock.
#[must_use]
pub fn decide(record: Option<&Record>, unchanged_for: Duration, me: &str) -> Decision {
    let Some(record) = record else {
        return Decision::Take {
            transitions: 0,
            acquired: true,
        };
    };
    match record.holder.as_deref() {
        Some(holder) if holder == me => Decision::Take {
            transitions: record.transitions,
            acquired: false,
        },
        Some(holder) if !holder.is_empty() && unchanged_for < record.duration => Decision::Follow,
        _ => Decision::Take {
            transitions: record.transitions.saturating_add(1),
            acquired: true,
        },
    }
}

/// Follows one Lease over time and remembers since when it has not changed.
#[derive(Debug, Default)]
pub struct Observer {
    seen: Option<(Record, Duration)>,
}

impl Observer {
    /// Notes a record seen at `now` and returns how long it has been the same.
    pub fn observe(&mut self, record: Option<&Record>, now: Duration) -> Duration {
        match (&self.seen, record) {
            (Some((seen, since)), Some(record)) if seen == record => now.saturating_sub(*since),
            (_, Some(record)) => {
                self.seen = Some((record.clone(), now));
                Duration::ZERO
            }
            (_, None) => {
                self.seen = None;
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn record(holder: Option<&str>) -> Record {
        Record {
            holder: holder.map(Into::into),
            duration: LEASE_DURATION,
            renewed: Some("t0".into()),
            acquired: None,
            transitions: 3,
        }
    }

    const fn take(transitions: i32, acquired: bool) -> Decision {
        Decision::Take {
            transitions,
            acquired,
        }
    }

    #[rstest]
    #[case::no_lease(None, 0, take(0, true))]
    #[case::ours(Some(record(Some("me"))), 60, take(3, false))]
    #[case::released(Some(record(None)), 0, take(4, true))]
    #[case::released_by_client_go(Some(record(Some(""))), 0, take(4, true))]
    #[case::held(Some(record(Some("other"))), 14, Decision::Follow)]
    #[case::expired(Some(record(Some("other"))), 15, take(4, true))]
    fn table(#[case] lease: Option<Record>, #[case] unchanged: u64, #[case] expected: Decision) {
        let unchanged = Duration::from_secs(unchanged);
        assert_eq!(decide(lease.as_ref(), unchanged, "me"), expected);
    }

    #[test]
    fn a_renewal_by_another_starts_the_clock_again() {
        let mut observer = Observer::default();
        let mut lease = record(Some("other"));
        let at = Duration::from_secs;
        assert_eq!(observer.observe(Some(&lease), at(100)), at(0));
        assert_eq!(observer.observe(Some(&lease), at(114)), at(14));
        lease.renewed = Some("t1".into());
        assert_eq!(observer.observe(Some(&lease), at(116)), at(0));
        assert_eq!(observer.observe(None, at(120)), at(0));
        assert_eq!(observer.observe(Some(&lease), at(130)), at(0));
    }
}
