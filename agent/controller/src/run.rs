//! From start to SIGTERM: find the API server, lead, reconcile, let go.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kindnet_api::{Configuration, names};
use kube::runtime::controller::{Config, Controller, Error};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, CustomResourceExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::connect::connect;
use crate::election::{ApiStore, ElectionError, Elector};
use crate::health::{Health, listen};
use crate::metrics::Metrics;
use crate::reconcile::{Context, on_error, reconcile};

/// Pause after an address of the API server failed, and after watching the CRD failed.
const RETRY: Duration = Duration::from_secs(2);
/// Several changes of one DaemonSet that follow each other this closely are handled once.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The address for the probes is in use, or signals cannot be handled.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        control_plane_endpoint,
        bind_address,
        identity,
        log_format: _,
        log_level: _,
    } = args;
    let endpoint = control_plane_endpoint.and_then(|endpoint| endpoint.0);
    let health = Arc::new(Health::default());
    let metrics = Arc::new(Metrics::default());
    let stop = stop_on_signal()?;
    let server = listen(bind_address, health.clone(), metrics.clone()).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity,
        %bind_address,
        "kindnet-controller starts"
    );

    let terms = async {
        while !stop.is_cancelled() {
            health.pulse();
            match connect(endpoint.as_ref()).await {
                Ok(client) => term(&client, &identity, &health, &metrics, &stop).await,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), retry_in = ?RETRY, "no API server");
                    stop.run_until_cancelled(sleep(RETRY)).await;
                }
            }
        }
    };
    tokio::select! {
        () = terms => {}
        served = server => served.context("serve the probes")?,
    }
    tracing::info!("kindnet-controller stopped");
    Ok(())
}

/// From candidate to the end of leadership. The caller looks for the API server anew afterwards:
/// what ended the term may be that its address moved.
async fn term(
    client: &Client,
    identity: &str,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) {
    let contact = {
        let health = health.clone();
        move || health.contact()
    };
    let mut elector = Elector::new(ApiStore::new(client.clone()), identity.to_owned(), contact);
    match elector.acquire(stop).await {
        Ok(()) => {}
        Err(ElectionError::Stopped) => return,
        Err(error) => {
            log_end(&error, "not elected");
            return;
        }
    }
    metrics.leads(true);
    let ended = tokio::select! {
        ended = elector.hold(stop) => ended,
        () = lead(client.clone(), identity, metrics.clone()) => ElectionError::Stopped,
    };
    metrics.leads(false);
    match ended {
        ElectionError::Stopped => elector.release().await,
        other => log_end(&other, "no longer leading"),
    }
}

fn log_end(error: &ElectionError, what: &str) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "{what}");
}

/// Reconciles for ever. Dropped when leadership ends; nothing it does needs an orderly end, since
/// every write is one request.
async fn lead(client: Client, identity: &str, metrics: Arc<Metrics>) {
    wait_for_crd(&client).await;
    let daemonsets = Api::<DaemonSet>::namespaced(client.clone(), names::NAMESPACE);
    let only_ours =
        watcher::Config::default().fields(&format!("metadata.name={}", names::AGENT_NAME));
    let configuration =
        ObjectRef::<Configuration>::new(names::CONFIGURATION_NAME).within(names::NAMESPACE);
    let controller = Controller::new(
        Api::<Configuration>::all(client.clone()),
        watcher::Config::default(),
    )
    .with_config(Config::default().debounce(DEBOUNCE).concurrency(1))
    // Not `owns`: it follows owner references, and those may be what somebody removed by hand.
    .watches(daemonsets, only_ours, move |_| Some(configuration.clone()));
    let context = Arc::new(Context::new(client, identity.to_owned(), metrics));
    let mut results = pin!(controller.run(reconcile, on_error, context));
    while let Some(result) = results.next().await {
        match result {
            Ok((object, _)) => tracing::debug!(%object, "reconciled"),
            Err(Error::QueueError(error)) => tracing::warn!(%error, "watch failed, will retry"),
            // A failed reconciliation was logged by `on_error`; an object that is gone needs none.
            Err(Error::ReconcilerFailed(..) | Error::ObjectNotFound(_)) => {}
            Err(error) => tracing::warn!(%error, "controller failed, will retry"),
        }
    }
}

/// Waits until the API server serves Configurations. Watching them earlier would only fail.
async fn wait_for_crd(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let name = Configuration::crd_name();
    let mut told = false;
    loop {
        if !told && matches!(api.get_opt(name).await, Ok(None)) {
            tracing::warn!(crd = name, "not installed, waiting for it");
            told = true;
        }
        match await_condition(api.clone(), name, conditions::is_crd_established()).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, retry_in = ?RETRY, "watch of the CRD failed");
                sleep(RETRY).await;
            }
        }
    }
}

/// Cancelled by the first SIGTERM or SIGINT; the second one ends the process on the spot.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if token.is_cancelled() {
                std::process::exit(1);
            }
            tracing::info!("told to stop");
            token.cancel();
        }
    });
    Ok(stop)
}
