//! What has been done so far, and for which pod subnets.
//!
//! The node becomes Ready with the CNI configuration, and pods start at once. So the configuration
//! is written last, and only after everything it promises is in the kernel.

use ipnet::IpNet;
use tokio::sync::watch;

/// Progress of the features.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Forwarding was looked after for these pod subnets.
    pub forwarding: Option<Vec<IpNet>>,
    /// Routes were applied once.
    pub routes: bool,
    /// Masquerading was applied for these pod subnets.
    pub masquerade: Option<Vec<IpNet>>,
    /// The CNI plugin was put in place.
    pub plugin: bool,
    /// The CNI configuration was written once.
    pub conflist: bool,
}

impl Progress {
    /// What the CNI configuration for these pod subnets still has to wait for.
    pub fn missing_for(&self, pod_cidrs: &[IpNet]) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.forwarding.as_deref() != Some(pod_cidrs) {
            missing.push("forwarding");
        }
        if !self.routes {
            missing.push("routes");
        }
        if self.masquerade.as_deref() != Some(pod_cidrs) {
            missing.push("masquerade");
        }
        if !self.plugin {
            missing.push("plugin");
        }
        missing
    }
}

/// Shared [`Progress`].
#[derive(Debug, Clone)]
pub struct Tracker(watch::Sender<Progress>);

impl Tracker {
    /// Nothing done yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(Progress::default()))
    }

    /// Records progress; wakes those who wait only if there is any.
    pub fn record(&self, change: impl FnOnce(&mut Progress)) {
        self.0.send_if_modified(|progress| {
            let before = progress.clone();
            change(progress);
            before != *progress
        });
    }

    /// The present state.
    pub fn get(&self) -> Progress {
        self.0.borrow().clone()
    }

    /// Wakes on every change.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conflist_waits_for_everything_and_for_the_right_subnets() {
        let cidrs: Vec<IpNet> = vec!["10.244.1.0/24".parse().unwrap()];
        let tracker = Tracker::new();
        assert_eq!(
            tracker.get().missing_for(&cidrs),
            ["forwarding", "routes", "masquerade", "plugin"]
        );
        tracker.record(|p| {
            p.routes = true;
            p.plugin = true;
            p.forwarding = Some(cidrs.clone());
            p.masquerade = Some(vec![]);
        });
        assert_eq!(tracker.get().missing_for(&cidrs), ["masquerade"]);
        tracker.record(|p| p.masquerade = Some(cidrs.clone()));
        assert!(tracker.get().missing_for(&cidrs).is_empty());
    }
}
