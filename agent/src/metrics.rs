//! Metrics, named `kindnet_<area>_<thing>_<unit>`. No labels with names of pods or addresses.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A label that says which kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// The kind, from a small fixed set.
    pub kind: &'static str,
}

/// A label that says why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The reason, from a small fixed set.
    pub reason: &'static str,
}

/// Everything that is counted. Cheap to clone; clones share the values.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Nodes known from the API.
    pub nodes: Gauge,
    /// Values of Nodes that are no address or prefix.
    pub node_values_rejected: Gauge,
    /// 1 while the Nodes are being watched.
    pub api_connected: Gauge,
    /// Failures to list or watch.
    pub api_errors: Counter,
    /// Routes there should be.
    pub routes_desired: Gauge,
    /// Routes there should be and that could not be set.
    pub routes_failed: Family<Reason, Gauge>,
    /// Pod subnets and nodes that are not routed.
    pub routes_skipped: Family<Reason, Gauge>,
    /// Routes set, removed, and taken over from somebody else.
    pub route_changes: Family<Kind, Counter>,
    /// Failures to list, set or remove routes.
    pub route_errors: Family<Kind, Counter>,
    /// Duration of a synchronisation of routes.
    pub route_sync: Histogram,
    /// What was changed about masquerading, by what was found.
    pub masquerade_repairs: Family<Reason, Counter>,
    /// Failures to read or write masquerading.
    pub masquerade_errors: Family<Kind, Counter>,
    /// Duration of a synchronisation of masquerading.
    pub masquerade_sync: Histogram,
    /// CNI configuration written.
    pub conflist_writes: Counter,
    /// Failures to read or write it.
    pub conflist_errors: Counter,
    /// Parameters changed.
    pub sysctl_changes: Counter,
    /// Parameters that could not be read or set.
    pub sysctl_errors: Counter,
    /// Attachments of pods our plugin knows.
    pub plugin_attachments: Gauge,
    /// Addresses reclaimed and host ports restored.
    pub plugin_changes: Family<Kind, Counter>,
    /// Failures to install the plugin or to put its state right.
    pub plugin_errors: Counter,
    /// MTU pods get, in bytes; 0 for the kernel's default.
    pub mtu: Gauge,
}

impl Metrics {
    /// Creates the metrics and the registry that exposes them.
    pub fn new() -> (Self, Registry) {
        let seconds = || Histogram::new(exponential_buckets(0.000_5, 4.0, 8));
        let m = Self {
            nodes: Gauge::default(),
            node_values_rejected: Gauge::default(),
            api_connected: Gauge::default(),
            api_errors: Counter::default(),
            routes_desired: Gauge::default(),
            routes_failed: Family::default(),
            routes_skipped: Family::default(),
            route_changes: Family::default(),
            route_errors: Family::default(),
            route_sync: seconds(),
            masquerade_repairs: Family::default(),
            masquerade_errors: Family::default(),
            masquerade_sync: seconds(),
            conflist_writes: Counter::default(),
            conflist_errors: Counter::default(),
            sysctl_changes: Counter::default(),
            sysctl_errors: Counter::default(),
            plugin_attachments: Gauge::default(),
            plugin_changes: Family::default(),
            plugin_errors: Counter::default(),
            mtu: Gauge::default(),
        };
        let mut r = Registry::with_prefix("kindnet");
        r.register("api_nodes", "Nodes known from the API", m.nodes.clone());
        r.register(
            "api_node_values_rejected",
            "Values of Nodes that are no address or prefix",
            m.node_values_rejected.clone(),
        );
        r.register(
            "api_connected",
            "Whether the Nodes are being watched",
            m.api_connected.clone(),
        );
        r.register(
            "api_errors",
            "Failures to list or watch Nodes",
            m.api_errors.clone(),
        );
        r.register(
            "routes_desired",
            "Routes to the pods of other nodes",
            m.routes_desired.clone(),
        );
        r.register(
            "routes_failed",
            "Routes that could not be set, by kind of error",
            m.routes_failed.clone(),
        );
        r.register(
            "routes_skipped",
            "Nodes and pod subnets not routed, by reason",
            m.routes_skipped.clone(),
        );
        r.register(
            "routes_changes",
            "Routes set, removed and taken over",
            m.route_changes.clone(),
        );
        r.register(
            "routes_errors",
            "Failures to list, set or remove routes",
            m.route_errors.clone(),
        );
        r.register(
            "routes_sync_seconds",
            "Duration of a synchronisation of routes",
            m.route_sync.clone(),
        );
        r.register(
            "masquerade_repairs",
            "Changes to masquerading, by what was found",
            m.masquerade_repairs.clone(),
        );
        r.register(
            "masquerade_errors",
            "Failures to read or write masquerading",
            m.masquerade_errors.clone(),
        );
        r.register(
            "masquerade_sync_seconds",
            "Duration of a synchronisation of masquerading",
            m.masquerade_sync.clone(),
        );
        r.register(
            "conflist_writes",
            "CNI configuration written",
            m.conflist_writes.clone(),
        );
        r.register(
            "conflist_errors",
            "Failures to read or write the CNI configuration",
            m.conflist_errors.clone(),
        );
        r.register(
            "sysctl_changes",
            "Kernel parameters changed",
            m.sysctl_changes.clone(),
        );
        r.register(
            "sysctl_errors",
            "Kernel parameters that could not be read or set",
            m.sysctl_errors.clone(),
        );
        r.register(
            "plugin_attachments",
            "Attachments of pods the plugin knows",
            m.plugin_attachments.clone(),
        );
        r.register(
            "plugin_changes",
            "Addresses of vanished sandboxes freed, host ports restored",
            m.plugin_changes.clone(),
        );
        r.register(
            "plugin_errors",
            "Failures to install the plugin or to put its state right",
            m.plugin_errors.clone(),
        );
        r.register("uplink_mtu_bytes", "MTU pods get", m.mtu.clone());
        (m, r)
    }
}

/// The registry in OpenMetrics text.
pub fn render(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut body = String::new();
    text::encode(&mut body, registry)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_carry_the_prefix_and_counters_their_suffix() {
        let (metrics, registry) = Metrics::new();
        metrics
            .masquerade_repairs
            .get_or_create(&Reason { reason: "x" })
            .inc();
        let text = render(&registry).unwrap();
        assert!(
            text.contains("kindnet_masquerade_repairs_total{reason=\"x\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("kindnet_routes_sync_seconds_bucket"),
            "{text}"
        );
    }
}
