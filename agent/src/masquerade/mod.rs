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

/// Shortest time between a look and the next because of a reported change. kube-proxy and the portmap
/// plugin make several at once, and nobody should be fought faster.
const SETTLE: Duration = Duration::from_millis(200);

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
        let mut backend = tokio::task::spawn_blocking(|| {
            let flavour = Flavour::detect();
            let mut backend = Iptables::new(flavour);
            let cleaned = backend.cleanup_other_flavours();
            (backend, flavour, cleaned)
        })
        .await
        .map(|(backend, flavour, cleaned)| {
            tracing::info!(%flavour, "iptables chosen");
            if let Err(error) = cleaned {
                tracing::warn!(
                    error = chain(&error),
                    "rules of an earlier run are left behind"
                );
            }
            backend
        })?;
        let monitor = monitor(backend.flavour());
        let check = if monitor.is_some() { CHECK.0 } else { CHECK.1 };
        let mut changes = self.cluster.subscribe();
        let mut retry = RETRY.0;
        let mut last_error = String::new();
        loop {
            changes.mark_unchanged();
            let desired = self.cluster.with(|own, nodes| {
                let plan = if self.enabled {
                    plan(own, nodes.values(), &self.excluded)
                } else {
                    MasqueradePlan::default()
                };
                (own.pod_cidrs.clone(), plan)
            });
            let mut pause = check;
            if let Some((pod_cidrs, desired)) = desired {
                let began = Instant::now();
                let (returned, result) = tokio::task::spawn_blocking(move || {
                    let result = backend.apply(&desired);
                    (backend, result)
                })
                .await?;
                backend = returned;
                self.metrics
                    .masquerade_sync
                    .observe(began.elapsed().as_secs_f64());
                match result {
                    Ok(repairs) => {
                        let first = self.progress.get().masquerade.as_ref() != Some(&pod_cidrs);
                        self.changed(&repairs, first, began.elapsed());
                        self.progress.record(|p| p.masquerade = Some(pod_cidrs));
                        retry = RETRY.0;
                        last_error.clear();
                    }
                    Err(error) => {
                        let kind = error.kind().label();
                        self.metrics
                            .masquerade_errors
                            .get_or_create(&Kind { kind })
                            .inc();
                        let error = chain(&error);
                        if error != last_error {
                            tracing::warn!(error, "cannot set up masquerading, will retry");
                        }
                        last_error = error;
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
                    () = reported(monitor.as_ref()) => due = due.min(Instant::now() + SETTLE),
                }
            }
        }
    }

    fn changed(&self, repairs: &Repairs, first: bool, took: Duration) {
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
