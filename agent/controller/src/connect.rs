//! A client for the API server at whichever of its addresses answers.

use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderValue, Uri, header::USER_AGENT};
use kindnet_api::names;
use kube::{Client, Config};

/// How long one address may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Names us in the audit log.
const AGENT_HEADER: &str = concat!("kindnet-controller/", env!("CARGO_PKG_VERSION"));

/// Tries the explicit endpoint, then the cluster's own Service address; the first that answers wins.
/// Both are verified against the cluster's CA. Outside a cluster the kubeconfig counts.
///
/// # Errors
/// No credentials, or neither address answers.
pub async fn connect(endpoint: Option<&Uri>) -> anyhow::Result<Client> {
    choose(&base_config().await?, endpoint).await
}

async fn choose(base: &Config, endpoint: Option<&Uri>) -> anyhow::Result<Client> {
    let mut last = None;
    for url in endpoint.into_iter().chain([&base.cluster_url]) {
        let mut config = base.clone();
        config.cluster_url.clone_from(url);
        match probe(config).await {
            Ok((client, version)) => {
                tracing::info!(%url, version, "API server found");
                return Ok(client);
            }
            Err(error) => {
                tracing::warn!(%url, error = format!("{error:#}"), "API server does not answer");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no address to try")))
}

async fn base_config() -> anyhow::Result<Config> {
    let mut config = if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Config::incluster().context("read the ServiceAccount")?
    } else {
        Config::infer().await.context("read the kubeconfig")?
    };
    config.connect_timeout = Some(PROBE_TIMEOUT);
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(AGENT_HEADER)));
    Ok(config)
}

async fn probe(config: Config) -> anyhow::Result<(Client, String)> {
    let client = Client::try_from(config)
        .with_context(|| format!("make a client for {}", names::CONTROLLER_NAME))?;
    let version = tokio::time::timeout(PROBE_TIMEOUT, client.apiserver_version())
        .await
        .context("no answer in time")?
        .map_err(|error| anyhow::anyhow!(explain(&error)))?;
    Ok((client, version.git_version))
}

/// An error of the client in few words: its own text repeats the API server's whole answer.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                let more = error.to_string();
                if !text.contains(&more) {
                    text = format!("{text}: {more}");
                }
                cause = error.source();
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use serde_json::json;
    use tokio::net::TcpListener;

    /// An API server that only knows its version, and the address of one that is not there.
    async fn server(version: &'static str) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = json!({ "major": "1", "minor": "20", "gitVersion": version, "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "" });
        let router =
            Router::new().route("/version", get(move || async move { answer.to_string() }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}").parse().unwrap()
    }

    async fn nobody() -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap()
    }

    async fn chosen(endpoint: Option<Uri>, service: Uri) -> Option<String> {
        let client = choose(&Config::new(service), endpoint.as_ref())
            .await
            .ok()?;
        Some(client.apiserver_version().await.unwrap().git_version)
    }

    #[tokio::test]
    async fn the_endpoint_comes_first_and_the_service_address_is_the_fallback() {
        let (endpoint, service) = (server("endpoint").await, server("service").await);
        let both = chosen(Some(endpoint), service.clone()).await;
        assert_eq!(both.as_deref(), Some("endpoint"));
        let fallback = chosen(Some(nobody().await), service.clone()).await;
        assert_eq!(fallback.as_deref(), Some("service"));
        assert_eq!(chosen(None, service).await.as_deref(), Some("service"));
        assert_eq!(chosen(Some(nobody().await), nobody().await).await, None);
    }
}
