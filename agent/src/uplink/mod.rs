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
            Ok(Some(uplink)) => {
                link = Some(uplink.index);
                metrics.mtu.set(i64::from(uplink.mtu_bytes));
                if set(&mtu, Mtu::Known(Some(uplink.mtu_bytes))) {
                    let (uplink, mtu_bytes) = (uplink.name, uplink.mtu_bytes);
                    tracing::info!(uplink, mtu_bytes, "uplink found");
                }
            }
            // A default route that is gone will be back, most likely over the same link.
            Ok(None) if *mtu.borrow() != Mtu::Unknown => {}
            Ok(None) => {
                set(&mtu, Mtu::Known(None));
                tracing::info!("no default route; pods get the kernel's default MTU");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot find the uplink");
                if *mtu.borrow() == Mtu::Unknown {
                    set(&mtu, Mtu::Known(None));
                }
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

/// Sets the MTU; whether it was another before.
fn set(mtu: &watch::Sender<Mtu>, now: Mtu) -> bool {
    mtu.send_if_modified(|known| std::mem::replace(known, now) != now)
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
