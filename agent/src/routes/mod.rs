//! Routes to the pods of other nodes.

mod report;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kindnet_api::names;
use kindnet_core::routes::{RoutePlan, diff, plan};
use kindnet_net::ErrorKind;
use kindnet_net::netlink::{Event, Netlink, Routes};
use tokio::sync::broadcast;

use crate::cluster::Cluster;
use crate::kernel::Kernel;
use crate::metrics::Metrics;
use crate::progress::Tracker;
use report::Report;

/// A full look at the kernel even if nothing seems to have happened.
const RESYNC: Duration = Duration::from_secs(60);

/// Pause after an event about a route of ours: whoever removes one often removes them all.
const SETTLE: Duration = Duration::from_millis(20);

/// Pause after an event about a link or an address. Every pod that starts causes some.
const SETTLE_LINKS: Duration = Duration::from_millis(500);

/// Shortest time between two repairs, so that somebody who insists on the opposite is not fought
/// with all the machine has.
const PEACE: Duration = Duration::from_secs(1);

/// Shortest and longest pause before a failure is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The feature.
pub struct RouteSync {
    pub cluster: Cluster,
    pub netlink: Netlink,
    pub kernel: Kernel,
    pub progress: Tracker,
    pub metrics: Metrics,
}

impl RouteSync {
    /// Keeps the routes as they should be for ever.
    pub async fn run(self) {
        let routes = Routes::new(self.netlink.clone());
        let mut report = Report::new(self.metrics.clone());
        let mut events = self.kernel.subscribe();
        let mut changes = self.cluster.subscribe();
        let mut retry = RETRY.0;
        let mut repaired = Instant::now() - PEACE;
        loop {
            changes.mark_unchanged();
            let desired = self.cluster.with(|own, nodes| plan(own, nodes.values()));
            let look_again = desired.as_ref().and_then(|desired| report.planned(desired));
            let retry_in = match &desired {
                None => RESYNC,
                Some(desired) => {
                    let synced = sync(&routes, desired, &mut report).await;
                    if synced.changed {
                        repaired = Instant::now();
                    }
                    if synced.settled {
                        self.progress.record(|p| p.routes = true);
                        retry = RETRY.0;
                        RESYNC
                    } else {
                        let pause = retry;
                        retry = (retry * 2).min(RETRY.1);
                        pause
                    }
                }
            };
            let ours: BTreeSet<IpNet> = desired
                .map(|d| d.routes.into_keys().collect())
                .unwrap_or_default();
            let mut due = Instant::now() + retry_in.min(look_again.unwrap_or(RESYNC));
            loop {
                tokio::select! {
                    _ = changes.changed() => break,
                    () = tokio::time::sleep_until(due.into()) => break,
                    pause = concerning(&mut events, &ours) => {
                        due = due.min((Instant::now() + pause).max(repaired + PEACE));
                    }
                }
            }
        }
    }
}

/// What came of a synchronisation.
struct Synced {
    /// Something was written.
    changed: bool,
    /// Nothing is left that trying again would help.
    settled: bool,
}

/// Makes the kernel match the plan.
async fn sync(routes: &Routes, desired: &RoutePlan, report: &mut Report) -> Synced {
    let began = Instant::now();
    let observed = match routes.observe().await {
        Ok(observed) => observed,
        Err(error) => {
            report.failed(&error);
            return Synced {
                changed: false,
                settled: false,
            };
        }
    };
    let changes = diff(&desired.routes, observed);
    let outcome = routes.apply(&changes).await;
    let settled = outcome.not_removed.is_empty()
        && outcome
            .failed
            .iter()
            .all(|(_, _, error)| matters_not(error.kind()));
    report.applied(routes, &outcome, began.elapsed()).await;
    Synced {
        changed: outcome.changed(),
        settled,
    }
}

/// Failures that last until a link or an address changes, or for ever; an event or the resync will
/// do, and the other routes are in place.
fn matters_not(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unreachable | ErrorKind::Unsupported | ErrorKind::Exists
    )
}

/// Waits for an event after which the routes may be wrong; returns how long to wait for more of it.
async fn concerning(events: &mut broadcast::Receiver<Event>, ours: &BTreeSet<IpNet>) -> Duration {
    loop {
        match events.recv().await {
            Ok(Event::Route {
                destination,
                protocol,
                removed,
            }) if ours.contains(&destination) && (removed || protocol != names::ROUTE_PROTOCOL) => {
                return SETTLE;
            }
            Ok(Event::Route { .. }) => {}
            Ok(Event::Link { .. } | Event::Address) => return SETTLE_LINKS,
            Err(broadcast::error::RecvError::Lagged(_)) => return SETTLE,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
