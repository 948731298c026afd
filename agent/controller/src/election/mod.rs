//! Leader election on a `coordination.k8s.io/v1` Lease, by the rules of client-go's leaderelection
//! package: expiry is judged by how long the record stayed the same on our own clock, and every
//! write carries the resourceVersion that was read, so two writers cannot both win.

mod decision;
mod store;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use decision::{Decision, Observer, Record, decide};
pub use decision::{LEASE_DURATION, RENEW_DEADLINE, RETRY_PERIOD};
pub use store::{ApiStore, Store, StoreError};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// A candidate that cannot reach the API server for this long gives up, so that its caller can try
/// another address.
const CANDIDATE_PATIENCE: Duration = Duration::from_secs(10);

/// Why leading ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// The API server did not answer.
    #[error("the Lease could not be read or written for {0:?}")]
    Unreachable(Duration, #[source] StoreError),
    /// Somebody else holds the Lease now.
    #[error("the Lease was taken by {0}")]
    Taken(String),
    /// Asked to stop.
    #[error("stopped")]
    Stopped,
}

/// One candidate.
pub struct Elector<S> {
    store: S,
    me: String,
    observer: Observer,
    began: Instant,
    /// Called after every successful exchange with the API server.
    contact: Box<dyn Fn() + Send + Sync>,
}

impl<S: Store> Elector<S> {
    /// A candidate named `me`, which has to be unique among the replicas.
    pub fn new(store: S, me: String, contact: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            store,
            me,
            observer: Observer::default(),
            began: Instant::now(),
            contact: Box::new(contact),
        }
    }

    /// Returns once we lead.
    ///
    /// # Errors
    /// Stopped, or the API server has been out of reach for a while.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> Result<(), ElectionError> {
        let mut last_contact = Instant::now();
        loop {
            match self.step().await {
                Ok(Outcome::Leading) => return Ok(()),
                Ok(Outcome::Following(_)) => last_contact = Instant::now(),
                Err(error) if last_contact.elapsed() >= CANDIDATE_PATIENCE => {
                    return Err(ElectionError::Unreachable(last_contact.elapsed(), error));
                }
                Err(error) => tracing::debug!(%error, "lease not available, will retry"),
            }
            pause(stop).await?;
        }
    }

    /// Keeps the Lease until that fails.
    ///
    /// # Errors
    /// Always: says why leading ended.
    pub async fn hold(&mut self, stop: &CancellationToken) -> ElectionError {
        let mut renewed = Instant::now();
        loop {
            if let Err(stopped) = pause(stop).await {
                return stopped;
            }
            match self.step().await {
                Ok(Outcome::Leading) => renewed = Instant::now(),
                Ok(Outcome::Following(other)) => return ElectionError::Taken(other),
                Err(error) if renewed.elapsed() >= RENEW_DEADLINE => {
                    return ElectionError::Unreachable(renewed.elapsed(), error);
                }
                Err(error) => tracing::warn!(%error, "lease not renewed, will retry"),
            }
        }
    }

    /// Gives the Lease up, so that the next candidate need not wait for it to expire.
    pub async fn release(&mut self) {
        let released = timeout(Duration::from_secs(1), async {
            let Some((record, version)) = self.store.get().await? else {
                return Ok(());
            };
            if record.holder.as_deref() != Some(&self.me) {
                return Ok(());
            }
            let empty = Record {
                holder: None,
                ..record
            };
            self.store.put(&empty, Some(version)).await
        })
        .await;
        match released {
            Ok(Ok(())) => tracing::info!("lease released"),
            Ok(Err(error)) => tracing::warn!(%error, "lease not released, it will expire"),
            Err(_) => tracing::warn!("lease not released in time, it will expire"),
        }
    }

    /// Looks once and writes once where that is called for.
    async fn step(&mut self) -> Result<Outcome, StoreError> {
        let outcome = timeout(REQUEST_TIMEOUT, self.exchange())
            .await
            .map_err(|_| StoreError::Timeout)??;
        (self.contact)();
        Ok(outcome)
    }

    async fn exchange(&mut self) -> Result<Outcome, StoreError> {
        let (record, version) = self.store.get().await?.unzip();
        let unchanged_for = self.observer.observe(record.as_ref(), self.began.elapsed());
        let Decision::Take {
            transitions,
            acquired,
        } = decide(record.as_ref(), unchanged_for, &self.me)
        else {
            let holder = record.and_then(|r| r.holder);
            return Ok(Outcome::Following(holder.unwrap_or_default()));
        };
        let ours = Record {
            holder: Some(self.me.clone()),
            duration: LEASE_DURATION,
            renewed: None,
            acquired: record.and_then(|r| r.acquired).filter(|_| !acquired),
            transitions,
        };
        match self.store.put(&ours, version).await {
            Ok(()) => {
                if acquired {
                    tracing::info!(identity = self.me, transitions, "lease acquired");
                }
                Ok(Outcome::Leading)
            }
            // Another candidate was faster.
            Err(StoreError::Conflict) if acquired => Ok(Outcome::Following(String::new())),
            Err(error) => Err(error),
        }
    }
}

enum Outcome {
    Leading,
    Following(String),
}

async fn pause(stop: &CancellationToken) -> Result<(), ElectionError> {
    stop.run_until_cancelled(sleep(RETRY_PERIOD))
        .await
        .ok_or(ElectionError::Stopped)
}

#[cfg(test)]
mod tests;
