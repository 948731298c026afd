//! The watch of the Nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kindnet_api::node::NodeInfo;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::Cluster;
use super::connect::{Endpoints, chain, probe};
use crate::metrics::Metrics;

/// Shortest and longest pause between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How long a watch may be silent before the server is asked whether it is still there. A server
/// that lost power closes no connection, and TCP alone would take minutes.
const SILENCE: Duration = Duration::from_secs(30);

/// Keeps `cluster` up to date for ever, through whichever endpoint answers.
pub async fn run(endpoints: Endpoints, cluster: Cluster, metrics: Metrics) {
    let mut pause = BACKOFF.0;
    // What was logged last: an outage that lasts is one line.
    let mut silent = String::new();
    loop {
        match endpoints.connect().await {
            Ok(connected) => {
                silent.clear();
                if !connected.silent.is_empty() {
                    tracing::warn!(endpoints = ?connected.silent, "API endpoint passed over");
                }
                let endpoint = connected.endpoint;
                tracing::info!(%endpoint, "connected to the API server");
                if follow(connected.client, &cluster, &metrics).await {
                    pause = BACKOFF.0;
                }
                metrics.api_connected.set(0);
                tracing::warn!(%endpoint, "lost the API server, looking for one that answers");
            }
            Err(reasons) => {
                metrics.api_errors.inc();
                if reasons != silent {
                    tracing::warn!(reasons, "no API endpoint answers, will retry");
                    silent = reasons;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Follows the Nodes until the server is gone; whether a complete list was seen before that.
async fn follow(client: Client, cluster: &Cluster, metrics: &Metrics) -> bool {
    let nodes = Api::<Node>::all(client.clone());
    let mut events = Box::pin(watcher::watcher(nodes, watcher::Config::default()));
    let mut listing = BTreeMap::new();
    let mut listed = false;
    let mut pause = BACKOFF.0;
    loop {
        match tokio::time::timeout(SILENCE, events.next()).await {
            Ok(Some(Ok(event))) => {
                pause = BACKOFF.0;
                listed |= matches!(event, Event::InitDone);
                take(event, &mut listing, cluster);
                let (known, rejected) = cluster.counts();
                metrics.api_connected.set(i64::from(listed));
                metrics.nodes.set(known.try_into().unwrap_or(i64::MAX));
                metrics
                    .node_values_rejected
                    .set(rejected.try_into().unwrap_or(i64::MAX));
            }
            Ok(Some(Err(error))) => {
                // An expired watch is business as usual; the watcher lists again by itself.
                tracing::debug!(error = chain(&error), "watch of nodes interrupted");
                metrics.api_errors.inc();
                if let Err(reason) = probe(&client).await {
                    tracing::debug!(reason, "API server does not answer");
                    return listed;
                }
                if !listed || pause > BACKOFF.0 {
                    tracing::warn!(error = chain(&error), retry_in = ?pause, "cannot watch nodes");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
            Ok(None) => return listed,
            Err(_) => {
                if probe(&client).await.is_err() && probe(&client).await.is_err() {
                    return listed;
                }
            }
        }
    }
}

fn take(event: Event<Node>, listing: &mut BTreeMap<String, NodeInfo>, cluster: &Cluster) {
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(node) => {
            let node = read(&node);
            listing.insert(node.name.clone(), node);
        }
        Event::InitDone => {
            let nodes = std::mem::take(listing);
            let known = nodes.contains_key(cluster.own_name());
            let first = !cluster.synced();
            if first {
                tracing::info!(nodes = nodes.len(), "nodes listed");
            }
            cluster.replace(nodes);
            if !known {
                tracing::warn!(
                    node = cluster.own_name(),
                    "this node is not in the API, waiting for it"
                );
            }
        }
        Event::Apply(node) => cluster.apply(read(&node)),
        Event::Delete(node) => {
            if let Some(name) = &node.metadata.name {
                tracing::info!(node = name, "node deleted");
                cluster.remove(name);
            }
        }
    }
}

fn read(node: &Node) -> NodeInfo {
    let info = NodeInfo::from_node(node);
    if !info.rejected.is_empty() {
        tracing::debug!(node = info.name, rejected = ?info.rejected, "node with unusable values");
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name}, "spec": {"podCIDR": cidr}}))
        .unwrap()
    }

    #[test]
    fn a_new_list_replaces_the_old_one_only_when_it_is_complete() {
        let cluster = Cluster::new("a");
        let mut listing = BTreeMap::new();
        let mut feed = |event| take(event, &mut listing, &cluster);
        feed(Event::Init);
        feed(Event::InitApply(node("a", "10.244.0.0/24")));
        feed(Event::InitApply(node("b", "10.244.1.0/24")));
        assert!(!cluster.synced());
        feed(Event::InitDone);
        assert_eq!(cluster.counts(), (2, 0));
        feed(Event::Init);
        feed(Event::InitApply(node("a", "10.244.0.0/24")));
        assert_eq!(cluster.counts(), (2, 0));
        feed(Event::InitDone);
        assert_eq!(cluster.counts(), (1, 0));
    }

    #[test]
    fn a_late_deletion_does_not_take_a_reused_pod_subnet_away() {
        let cluster = Cluster::new("a");
        let mut listing = BTreeMap::new();
        let mut feed = |event| take(event, &mut listing, &cluster);
        feed(Event::Init);
        feed(Event::InitApply(node("a", "10.244.0.0/24")));
        feed(Event::InitApply(node("old", "10.244.1.0/24")));
        feed(Event::InitDone);
        feed(Event::Apply(node("new", "10.244.1.0/24")));
        feed(Event::Delete(node("old", "10.244.1.0/24")));
        cluster.with(|_, nodes| assert!(nodes.contains_key("new") && !nodes.contains_key("old")));
    }
}
