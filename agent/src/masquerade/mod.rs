//! Masquerading of what pods send out of the cluster.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use kindnet_core::masquerade::{MasqueradePlan, plan};
use kindnet_net::iptables::{Flavour, Iptables, Masquerade, Monitor, Repairs};

use crate::cluster::{Cluster, chain};
use crate::metrics::{Kind, Metrics, Reason};
use crate::progress::Tracker;

/// How often the rules are looked at where the kernel reports changes, and where it does not.
const CHECK: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));

/// Pause after a reported change: they come several at a time.
const SETTLE: Duration = Duration::from_millis(100);

/// Shortest time between two repairs, so that somebody who insists on the opposite is not fought
/// with all the machine has.
const PEACE: Duration = Duration::from_secs(1);

/// Shortest and longest pause before a failure is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The feature.
pub struct MasqueradeSync {
    pub cluster: Cluster,
    pub enabled: bool,
    pub excluded: Vec<IpNet>,
    pub progress: Tracker,
    pub metrics: Metrics,
}

impl MasqueradeSync {
    /// Keeps the rules as they should be for ever. Switched off, it keeps them away.
    ///
    /// # Errors
    /// A task that runs the tools was lost.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut backend = tokio::task::spawn_blocking(prepare).await?;
        let monitor = monitor(backend.flavour());
        let check = if monitor.is_some() { CHECK.0 } else { CHECK.1 };
        let mut changes = self.cluster.subscribe();
        let mut retry = RETRY.0;
        let mut last_error = String::new();
        let mut repaired = Instant::now() - PEACE;
        loop {
            changes.mark_unchanged();
            let mut pause = check;
            if let Some((pod_cidrs, desired)) = self.desired() {
                let began = Instant::now();
                let (returned, result) = tokio::task::spawn_blocking(move || {
                    let result = backend.apply(&desired);
                    (backend, result)
                })
                .await?;
                backend = returned;
                let took = began.elapsed();
                self.metrics.masquerade_sync.observe(took.as_secs_f64());
                match result {
                    Ok(repairs) => {
                        if !repairs.is_empty() {
                            self.changed(&repairs, took);
                            repaired = Instant::now();
                        }
                        self.progress.record(|p| p.masquerade = Some(pod_cidrs));
                        retry = RETRY.0;
                        last_error.clear();
                    }
                    Err(error) => {
                        self.failed(&error, &mut last_error);
                        pause = retry;
                        retry = (retry * 2).min(RETRY.1);
                    }
                }
            }
            let mut due = Instant::now() + pause;
            loop {
                tokio::select! {
                    _ = changes.changed() => break,
                    () = tokio::time::sleep_until(due.into()) => break,
                    () = reported(monitor.as_ref()) => {
                        due = due.min((Instant::now() + SETTLE).max(repaired + PEACE));
                    }
                }
            }
        }
    }

    /// This node's pod subnets and what they need; `None` while they are unknown.
    fn desired(&self) -> Option<(Vec<IpNet>, MasqueradePlan)> {
        self.cluster.with(|own, nodes| {
            let plan = if self.enabled {
                plan(own, nodes.values(), &self.excluded)
            } else {
                MasqueradePlan::default()
            };
            (own.pod_cidrs.clone(), plan)
        })
    }

    fn changed(&self, repairs: &Repairs, took: Duration) {
        let first = self.progress.get().masquerade.is_none();
        for (family, drift) in repairs {
            let reason = drift.label();
            self.metrics
                .masquerade_repairs
                .get_or_create(&Reason { reason })
                .inc();
            if first {
                tracing::info!(%family, ?took, "masquerading set up");
            } else {
                tracing::info!(%family, found = reason, ?took, "masquerading changed");
            }
        }
    }

    /// A lasting failure is logged once.
    fn failed(&self, error: &kindnet_net::Error, last: &mut String) {
        let kind = error.kind().label();
        self.metrics
            .masquerade_errors
            .get_or_create(&Kind { kind })
            .inc();
        let error = chain(error);
        if error != *last {
            tracing::warn!(error, "cannot set up masquerading, will retry");
        }
        *last = error;
    }
}

/// Chooses the tools and removes what an earlier choice left behind. Blocks.
fn prepare() -> Iptables {
    let flavour = Flavour::detect();
    tracing::info!(%flavour, "iptables chosen");
    let mut backend = Iptables::new(flavour);
    if let Err(error) = backend.cleanup_other_flavours() {
        tracing::warn!(
            error = chain(&error),
            "rules of an earlier run are left behind"
        );
    }
    backend
}

/// Listens for changes where the kernel reports them.
fn monitor(flavour: Flavour) -> Option<Monitor> {
    if flavour == Flavour::Legacy {
        return None;
    }
    match Monitor::open() {
        Ok(monitor) => Some(monitor),
        Err(error) => {
            tracing::debug!(error = chain(&error), "rules are polled");
            None
        }
    }
}

/// Waits for a reported change.
async fn reported(monitor: Option<&Monitor>) {
    match monitor {
        Some(monitor) => {
            if let Err(error) = monitor.changed().await {
                tracing::warn!(error = chain(&error), "cannot listen for changes of rules");
                // The next look is at its time; a broken socket must not spin.
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}
