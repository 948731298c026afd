//! Spreads what the kernel reports to the features that want to know.

use std::time::Duration;

use futures_util::StreamExt as _;
use kindnet_net::netlink::{self, Event};
use tokio::sync::broadcast;

/// Events a slow feature may be behind before it is only told that it missed some.
const BACKLOG: usize = 1024;

/// A source of [`Event`]s for any number of features.
#[derive(Debug, Clone)]
pub struct Kernel(broadcast::Sender<Event>);

impl Kernel {
    /// Nothing is watched until [`Kernel::run`].
    pub fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }

    /// Watches for ever; a watch that breaks is begun again.
    pub async fn run(self) {
        let mut complained = false;
        loop {
            match netlink::watch() {
                Ok(mut events) => {
                    complained = false;
                    // What happened before the watch stood may have been missed.
                    let _ = self.0.send(Event::Address);
                    while let Some(event) = events.next().await {
                        tracing::trace!(?event, "kernel event");
                        let _ = self.0.send(event);
                    }
                    tracing::warn!("watch of routes and links ended, starting again");
                }
                Err(error) if !complained => {
                    tracing::warn!(%error, "cannot watch routes and links, will retry");
                    complained = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
