//! /healthz, /readyz and /metrics on localhost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, serve};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Without contact to the API server for longer than this the process is not ready.
const CONTACT_LIMIT: Duration = Duration::from_secs(30);
/// Without a sign of life from the main loop for longer than this the process is stuck.
const PULSE_LIMIT: Duration = Duration::from_secs(60);

/// What the probes look at.
pub struct Health {
    began: Instant,
    /// Milliseconds since `began`, plus one; 0 for never.
    contact: AtomicU64,
    pulse: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            contact: AtomicU64::new(0),
            pulse: AtomicU64::new(1),
        }
    }
}

impl Health {
    /// The API server answered.
    pub fn contact(&self) {
        self.contact.store(self.now(), Ordering::Relaxed);
        self.pulse();
    }

    /// The main loop is alive.
    pub fn pulse(&self) {
        self.pulse.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn within(&self, mark: &AtomicU64, limit: Duration) -> bool {
        let mark = mark.load(Ordering::Relaxed);
        mark > 0 && u128::from(self.now() - mark) <= limit.as_millis()
    }

    fn alive(&self) -> bool {
        self.within(&self.pulse, PULSE_LIMIT)
    }

    fn ready(&self) -> bool {
        self.within(&self.contact, CONTACT_LIMIT)
    }
}

#[derive(Clone)]
struct Shared {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Binds the address; the returned future serves it for ever.
///
/// # Errors
/// The address is in use.
pub async fn listen(
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>> + Send> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Shared { health, metrics });
    Ok(async move { serve(listener, router).await })
}

async fn healthz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    verdict(shared.health.alive(), "the main loop is stuck\n")
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    verdict(
        shared.health.ready(),
        "no contact with the API server for a while\n",
    )
}

fn verdict(good: bool, otherwise: &'static str) -> (StatusCode, &'static str) {
    if good {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, otherwise)
    }
}

async fn scrape(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match shared.metrics.text() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, kind)], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn ready_only_while_the_api_server_answers() {
        let health = Health::default();
        assert!(health.alive() && !health.ready());
        health.contact();
        assert!(health.ready());
        advance(Duration::from_secs(31)).await;
        assert!(health.alive() && !health.ready());
        advance(Duration::from_secs(31)).await;
        assert!(!health.alive());
        health.pulse();
        assert!(health.alive() && !health.ready());
    }
}
