//! Metrics, in the OpenMetrics text format.

use std::sync::atomic::AtomicU64;

use kindnet_api::ConfigurationStatus;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 1];

/// All metrics of the controller.
pub struct Metrics {
    registry: Registry,
    reconciliations: Family<Labels, Counter<u64, AtomicU64>>,
    agents: Family<Labels, Gauge>,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("kindnet_controller");
        let reconciliations = Family::default();
        let agents = Family::default();
        let leader = Gauge::default();
        registry.register(
            "build",
            "Version of the controller",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "reconciliations",
            "Reconciliations of the Configuration, by result",
            reconciliations.clone(),
        );
        registry.register(
            "agents",
            "Nodes by state of their agent, as in the status of the Configuration",
            agents.clone(),
        );
        registry.register("leader", "1 while this process leads", leader.clone());
        Self {
            registry,
            reconciliations,
            agents,
            leader,
        }
    }
}

impl Metrics {
    /// Counts a reconciliation.
    pub fn reconciled(&self, result: &'static str) {
        self.reconciliations
            .get_or_create(&[("result", result)])
            .inc();
    }

    /// Notes the counts of a status.
    pub fn agents(&self, status: &ConfigurationStatus) {
        for (state, count) in [
            ("desired", status.desired_nodes),
            ("updated", status.updated_nodes),
            ("ready", status.ready_nodes),
        ] {
            self.agents
                .get_or_create(&[("state", state)])
                .set(count.into());
        }
    }

    /// Notes whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The text for a scrape.
    ///
    /// # Errors
    /// The text could not be written.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.reconciled("success");
        metrics.leads(true);
        metrics.agents(&ConfigurationStatus {
            desired_nodes: 3,
            ..Default::default()
        });
        let text = metrics.text().unwrap();
        for line in [
            "kindnet_controller_reconciliations_total{result=\"success\"} 1",
            "kindnet_controller_agents{state=\"desired\"} 3",
            "kindnet_controller_leader 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }
}
