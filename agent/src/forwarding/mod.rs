//! Forwarding of packets, for the families this node has pods of.
//!
//! Turning IPv6 forwarding on makes Linux ignore router advertisements on interfaces whose
//! `accept_ra` is 1 and thereby lose a default route learnt from them; 2 means to accept them all
//! the same ([ip-sysctl](https://docs.kernel.org/networking/ip-sysctl.html)). The uplink is
//! therefore changed from 1 to 2 first.

use std::time::Duration;

use ipnet::IpNet;
use kindnet_api::node::Family;
use kindnet_net::netlink::Netlink;
use kindnet_net::sysctl::{Change, Sysctl};

use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::progress::Tracker;

/// The kernel says nothing when somebody turns it off, and two reads cost nothing.
const CHECK: Duration = Duration::from_secs(5);

/// The feature.
pub struct Forwarding {
    pub cluster: Cluster,
    pub sysctl: Sysctl,
    pub netlink: Netlink,
    pub progress: Tracker,
    pub metrics: Metrics,
}

impl Forwarding {
    /// Looks after it for ever. What cannot be set is reported and does not hold anything up: it may
    /// be somebody else's job on this node.
    pub async fn run(self) {
        let mut changes = self.cluster.subscribe();
        let mut last: Option<(Vec<IpNet>, Vec<String>)> = None;
        loop {
            changes.mark_unchanged();
            if let Some(own) = self.cluster.own() {
                let mut problems = Vec::new();
                for family in Family::ALL {
                    if own.pod_cidrs_of(family).next().is_some() {
                        self.apply(family, &mut problems).await;
                    }
                }
                let now = (own.pod_cidrs, problems);
                if last.as_ref() != Some(&now) {
                    for problem in &now.1 {
                        tracing::warn!(problem, "pods may not reach anything outside their node");
                    }
                }
                self.progress.record(|p| p.forwarding = Some(now.0.clone()));
                last = Some(now);
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(CHECK) => {}
            }
        }
    }

    async fn apply(&self, family: Family, problems: &mut Vec<String>) {
        match family {
            Family::V4 => self.ensure("ipv4/ip_forward", "1", problems),
            Family::V6 => {
                let key = "ipv6/conf/all/forwarding";
                if !self.is(key, "1") {
                    self.keep_router_advertisements(problems).await;
                }
                self.ensure(key, "1", problems);
            }
        }
    }

    async fn keep_router_advertisements(&self, problems: &mut Vec<String>) {
        match self.netlink.uplink_of(Family::V6).await {
            Ok(Some(uplink)) => {
                let key = format!("ipv6/conf/{}/accept_ra", uplink.name);
                if self.is(&key, "1") {
                    self.ensure(&key, "2", problems);
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "cannot find the IPv6 uplink");
            }
        }
    }

    fn is(&self, key: &str, value: &str) -> bool {
        self.sysctl
            .get(key)
            .is_ok_and(|found| found.as_deref() == Some(value))
    }

    fn ensure(&self, key: &str, value: &str, problems: &mut Vec<String>) {
        match self.sysctl.ensure(key, value) {
            Ok(Change::None) => {}
            Ok(Change::From(before)) => {
                self.metrics.sysctl_changes.inc();
                tracing::info!(sysctl = key, before, value, "kernel parameter set");
            }
            Err(error) => {
                self.metrics.sysctl_errors.inc();
                problems.push(crate::cluster::chain(&error));
            }
        }
    }
}
