//! What became of the routes, in metrics and in the log. A lasting problem is logged once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kindnet_core::routes::{RoutePlan, Skipped};
use kindnet_net::netlink::{Outcome, Reach, Routes};
use kindnet_net::{Error, ErrorKind};

use crate::cluster::chain;
use crate::metrics::{Kind, Metrics, Reason};

/// How long a node may lack something before it is worth a line. One that is just joining gets its
/// pod subnet a moment after it appears.
const PATIENCE: Duration = Duration::from_secs(5);

/// Remembers what was reported.
pub struct Report {
    metrics: Metrics,
    /// Since when, and whether it was logged.
    skipped: BTreeMap<Skipped, (Instant, bool)>,
    problems: BTreeSet<String>,
}

impl Report {
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            skipped: BTreeMap::new(),
            problems: BTreeSet::new(),
        }
    }

    /// A plan was made; returns when to plan again to say what is still wrong by then.
    pub fn planned(&mut self, plan: &RoutePlan) -> Option<Duration> {
        let count = plan.routes.len().try_into().unwrap_or(i64::MAX);
        self.metrics.routes_desired.set(count);
        self.metrics.routes_skipped.clear();
        let mut before = std::mem::take(&mut self.skipped);
        let mut again = None;
        for entry in &plan.skipped {
            let reason = entry.reason.label();
            self.metrics
                .routes_skipped
                .get_or_create(&Reason { reason })
                .inc();
            let (since, mut logged) = before.remove(entry).unwrap_or((Instant::now(), false));
            let age = since.elapsed();
            if !logged && age >= PATIENCE {
                tracing::warn!(node = entry.node, reason = %entry.reason, "no route to the pods of a node");
                logged = true;
            }
            if !logged {
                again = Some(PATIENCE);
            }
            self.skipped.insert(entry.clone(), (since, logged));
        }
        again
    }

    /// The kernel could not even be asked.
    pub fn failed(&mut self, error: &Error) {
        self.error(error.kind());
        tracing::warn!(error = chain(error), "cannot list routes, will retry");
    }

    /// Changes were made, or tried.
    pub async fn applied(&mut self, routes: &Routes, outcome: &Outcome, took: Duration) {
        self.metrics.route_sync.observe(took.as_secs_f64());
        self.count("set", outcome.set.len());
        self.count("removed", outcome.removed);
        self.count("taken_over", outcome.taken_over.len());
        for (destination, gateway) in &outcome.set {
            tracing::debug!(%destination, %gateway, "route set");
        }
        for destination in &outcome.taken_over {
            tracing::warn!(%destination, "took the place of a route somebody else had made");
        }
        if outcome.changed() {
            let (set, removed) = (outcome.set.len(), outcome.removed);
            tracing::info!(set, removed, ?took, "routes changed");
        }
        self.metrics.routes_failed.clear();
        let mut problems = BTreeSet::new();
        for (destination, gateway, error) in &outcome.failed {
            self.error(error.kind());
            let reason = error.kind().label();
            self.metrics
                .routes_failed
                .get_or_create(&Reason { reason })
                .inc();
            let why = match error.kind() {
                ErrorKind::Unreachable => off_link(routes, *gateway).await,
                _ => chain(error),
            };
            problems.insert(format!("{destination} via {gateway}: {why}"));
        }
        for error in &outcome.not_removed {
            self.error(error.kind());
            problems.insert(chain(error));
        }
        for problem in problems.difference(&self.problems) {
            tracing::warn!(problem, "route not as it should be");
        }
        self.problems = problems;
    }

    fn count(&self, kind: &'static str, by: usize) {
        if by > 0 {
            self.metrics
                .route_changes
                .get_or_create(&Kind { kind })
                .inc_by(by as u64);
        }
    }

    fn error(&self, kind: ErrorKind) {
        let kind = kind.label();
        self.metrics
            .route_errors
            .get_or_create(&Kind { kind })
            .inc();
    }
}

/// Why a gateway is none.
async fn off_link(routes: &Routes, gateway: IpAddr) -> String {
    match routes.reach(gateway).await {
        Ok(Reach::Via(router)) => format!(
            "the node is not on a network of this one but behind {router}; routes for its pods have \
             to be configured there"
        ),
        Ok(Reach::Local) => "it is an address of this node".to_owned(),
        Ok(Reach::OnLink) => "the link is not ready".to_owned(),
        Ok(Reach::Nowhere) | Err(_) => "there is no route to the node".to_owned(),
    }
}
