//! The MTU pods get: that of the link that carries the default route.

use std::time::Duration;

use kindnet_net::netlink::{Event, Netlink};
use tokio::sync::{broadcast, watch};

use crate::kernel::Kernel;
use crate::metrics::Metrics;

const RESYNC: Duration = Duration::from_secs(60);

/// Changes come in bursts; one look after a burst is enough.
const SETTLE: Duration = Duration::from_millis(250);

/// What is known of the MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtu {
    /// Not looked at yet.
    Unknown,
    /// In bytes; `None` without a default route.
    Known(Option<u32>),
}

/// Follows the uplink for ever.
pub async fn run(netlink: Netlink, kernel: Kernel, mtu: watch::Sender<Mtu>, metrics: Metrics) {
    let mut events = kernel.subscribe();
    let mut link = None;
    loop {
        match netlink.uplink().await {
            Ok(uplink) => {
                let bytes = uplink.as_ref().map(|u| u.mtu_bytes);
                link = uplink.as_ref().map(|u| u.index);
                metrics.mtu.set(bytes.map_or(0, i64::from));
                let changed = mtu.send_if_modified(|known| {
                    let now = Mtu::Known(bytes);
                    std::mem::replace(known, now) != now
                });
                if changed {
                    let name = uplink.map(|u| u.name);
                    tracing::info!(uplink = name, mtu_bytes = bytes, "uplink found");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot find the uplink; pods get the kernel's default MTU");
                mtu.send_if_modified(|known| {
                    let first = *known == Mtu::Unknown;
                    if first {
                        *known = Mtu::Known(None);
                    }
                    first
                });
            }
        }
        tokio::select! {
            () = concerning(&mut events, link) => {
                tokio::time::sleep(SETTLE).await;
                events = events.resubscribe();
            }
            () = tokio::time::sleep(RESYNC) => {}
        }
    }
}

/// Waits for an event that may change the answer.
async fn concerning(events: &mut broadcast::Receiver<Event>, link: Option<u32>) {
    loop {
        match events.recv().await {
            Ok(Event::Route { destination, .. }) if destination.prefix_len() == 0 => return,
            Ok(Event::Link { index }) if Some(index) == link => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
