//! The Nodes of the cluster, as far as the network needs them.

mod connect;
mod watch;

pub use connect::{Endpoints, chain};
pub use watch::run;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use kindnet_api::node::NodeInfo;
use tokio::sync::watch as channel;

/// All Nodes, shared between the watch that fills it and the features that read it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    own_name: Arc<str>,
    state: Arc<RwLock<State>>,
    /// Counts changes; a feature that sees it move recomputes from the whole.
    version: channel::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a complete list has been seen. Before that nothing may be concluded from a Node that
    /// is absent.
    synced: bool,
    nodes: BTreeMap<String, NodeInfo>,
    /// The last that was known of this node. It outlives the Node object: whoever deletes it means
    /// the node to go or to register anew, and pods are still running meanwhile.
    own: Option<NodeInfo>,
}

impl Cluster {
    /// An empty cluster, seen from the node of this name.
    pub fn new(own_name: &str) -> Self {
        Self {
            own_name: own_name.into(),
            state: Arc::default(),
            version: channel::Sender::new(0),
        }
    }

    /// Name of this node.
    pub fn own_name(&self) -> &str {
        &self.own_name
    }

    /// Wakes on every change that matters to the network.
    pub fn subscribe(&self) -> channel::Receiver<u64> {
        self.version.subscribe()
    }

    /// Looks at this node and all nodes; `None` while either is unknown.
    pub fn with<T>(
        &self,
        look: impl FnOnce(&NodeInfo, &BTreeMap<String, NodeInfo>) -> T,
    ) -> Option<T> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match (&state.own, state.synced) {
            (Some(own), true) => Some(look(own, &state.nodes)),
            _ => None,
        }
    }

    /// This node; `None` while it is unknown.
    pub fn own(&self) -> Option<NodeInfo> {
        self.with(|own, _| own.clone())
    }

    /// Whether a complete list has been seen.
    pub fn synced(&self) -> bool {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .synced
    }

    /// Replaces everything by a complete list. Nodes that are not on it were deleted while nobody
    /// watched.
    pub fn replace(&self, nodes: BTreeMap<String, NodeInfo>) {
        self.change(|state, own_name| {
            let changed = !state.synced || state.nodes != nodes;
            state.synced = true;
            state.nodes = nodes;
            if let Some(own) = state.nodes.get(own_name) {
                state.own = Some(own.clone());
            }
            changed
        });
    }

    /// Adds or updates a node.
    pub fn apply(&self, node: NodeInfo) {
        self.change(|state, own_name| {
            if state.nodes.get(&node.name) == Some(&node) {
                return false;
            }
            if node.name == own_name {
                state.own = Some(node.clone());
            }
            state.nodes.insert(node.name.clone(), node);
            true
        });
    }

    /// Removes a node. A pod subnet it shared with another node is that node's from now on, because
    /// everything is recomputed from those that are left.
    pub fn remove(&self, name: &str) {
        self.change(|state, _| state.nodes.remove(name).is_some());
    }

    fn change(&self, change: impl FnOnce(&mut State, &str) -> bool) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut state, &self.own_name);
        drop(state);
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// Number of nodes, and of values in them that could not be used.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let rejected = state.nodes.values().map(|n| n.rejected.len()).sum();
        (state.nodes.len(), rejected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str) -> NodeInfo {
        NodeInfo {
            name: name.into(),
            pod_cidrs: vec![cidr.parse().unwrap()],
            ..NodeInfo::default()
        }
    }

    #[test]
    fn nothing_is_known_before_the_list_is_complete() {
        let cluster = Cluster::new("a");
        cluster.apply(node("a", "10.244.0.0/24"));
        assert!(cluster.own().is_none());
        cluster.replace(BTreeMap::from([("a".into(), node("a", "10.244.0.0/24"))]));
        assert_eq!(cluster.own().unwrap().name, "a");
    }

    #[test]
    fn only_changes_wake_and_the_own_node_is_remembered() {
        let cluster = Cluster::new("a");
        cluster.replace(BTreeMap::from([("a".into(), node("a", "10.244.0.0/24"))]));
        let mut versions = cluster.subscribe();
        cluster.apply(node("a", "10.244.0.0/24"));
        assert!(!versions.has_changed().unwrap());
        cluster.apply(node("b", "10.244.1.0/24"));
        assert!(versions.has_changed().unwrap());
        versions.mark_unchanged();
        cluster.remove("a");
        assert!(versions.has_changed().unwrap());
        assert_eq!(cluster.own().unwrap().name, "a");
        cluster.replace(BTreeMap::new());
        assert_eq!(cluster.counts(), (0, 0));
        assert_eq!(cluster.own().unwrap().name, "a");
    }
}
