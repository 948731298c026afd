//! /healthz, /readyz and /metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

use crate::cluster::Cluster;
use crate::metrics;
use crate::progress::Tracker;

/// What the answers are made from.
#[derive(Debug, Clone)]
pub struct Health {
    pub cluster: Cluster,
    pub progress: Tracker,
    pub registry: Arc<Registry>,
}

/// Serves for ever. An address in use does not stop the agent; it is tried again.
pub async fn run(address: SocketAddr, health: Health) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(health);
    serve(address, router).await;
}

/// As [`run`], with nothing to say but that everything is done.
pub async fn run_done(address: SocketAddr) {
    let done = || async { "uninstalled\n" };
    let router = Router::new()
        .route("/healthz", get(done))
        .route("/readyz", get(done));
    serve(address, router).await;
}

async fn serve(address: SocketAddr, router: Router) {
    let mut complained = false;
    loop {
        let served = match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                complained = false;
                axum::serve(listener, router.clone()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = served
            && !complained
        {
            tracing::warn!(%address, %error, "cannot serve health and metrics, will retry");
            complained = true;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn healthz(State(health): State<Health>) -> String {
    format!("ok\n{}", health.standing())
}

async fn readyz(State(health): State<Health>) -> Response {
    let progress = health.progress.get();
    let ready = progress.conflist && progress.routes && progress.masquerade.is_some();
    if ready {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, health.standing()).into_response()
    }
}

async fn metrics_text(State(health): State<Health>) -> Response {
    match metrics::render(&health.registry) {
        Ok(body) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Health {
    /// What there is and what is waited for, a line each.
    fn standing(&self) -> String {
        let progress = self.progress.get();
        let own = self.cluster.own();
        let cidrs = own.as_ref().map(|own| own.pod_cidrs.as_slice());
        let lines = [
            ("nodes listed", self.cluster.synced()),
            ("this node known", own.is_some()),
            ("pod subnet assigned", cidrs.is_some_and(|c| !c.is_empty())),
            ("forwarding looked after", progress.forwarding.is_some()),
            ("routes applied", progress.routes),
            ("masquerade applied", progress.masquerade.is_some()),
            ("CNI plugin in place", progress.plugin),
            ("CNI configuration written", progress.conflist),
        ];
        lines
            .iter()
            .map(|(what, done)| format!("[{}] {what}\n", if *done { '+' } else { '-' }))
            .collect()
    }
}
