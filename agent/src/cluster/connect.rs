//! Ways to the API server.
//!
//! The Service address works only once kube-proxy has set it up, and kube-proxy may be as young as
//! this agent. An explicit endpoint is therefore tried first. Either way the server's certificate is
//! verified against the cluster's CA.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderValue, Uri, header};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Sent with every request, so that audit logs name us.
const USER_AGENT: &str = concat!("kindnetd/", env!("CARGO_PKG_VERSION"));

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a server may take to say which version it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// API servers to try, best first.
#[derive(Debug, Clone)]
pub struct Endpoints(Vec<Config>);

impl Endpoints {
    /// From an explicit endpoint (`https://host:port`, or empty) and a kubeconfig or, without one,
    /// the pod's service account.
    ///
    /// # Errors
    /// The endpoint is not of that form, or there are no credentials.
    pub async fn new(endpoint: &str, kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let mut config = match kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path)
                    .with_context(|| format!("read kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .with_context(|| format!("use kubeconfig {}", path.display()))?
            }
            None => Config::incluster().context(
                "find the pod's service account; outside of a pod, name a kubeconfig with \
                 --kubeconfig",
            )?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config
            .headers
            .push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
        let mut configs = Vec::new();
        if !endpoint.is_empty() {
            let mut explicit = config.clone();
            explicit.cluster_url = parse(endpoint)?;
            explicit.tls_server_name = None;
            configs.push(explicit);
        }
        if !configs.iter().any(|c| c.cluster_url == config.cluster_url) {
            configs.push(config);
        }
        Ok(Self(configs))
    }

    /// A client of the first endpoint that answers.
    ///
    /// # Errors
    /// None answers; the error names each with its reason.
    pub async fn connect(&self) -> Result<Connected, String> {
        let mut silent = Vec::new();
        for config in &self.0 {
            let endpoint = config.cluster_url.clone();
            let answer = match Client::try_from(config.clone()) {
                Ok(client) => probe(&client).await.map(|()| client),
                Err(error) => Err(chain(&error)),
            };
            match answer {
                Ok(client) => {
                    return Ok(Connected {
                        client,
                        endpoint,
                        silent,
                    });
                }
                Err(reason) => silent.push(format!("{endpoint} {reason}")),
            }
        }
        Err(silent.join("; "))
    }
}

/// A server that answers.
pub struct Connected {
    pub client: Client,
    pub endpoint: Uri,
    /// Better endpoints that do not answer, and why.
    pub silent: Vec<String>,
}

/// Whether a server answers. One that refuses us does.
pub async fn probe(client: &Client) -> Result<(), String> {
    match tokio::time::timeout(PROBE_TIMEOUT, client.apiserver_version()).await {
        Ok(Ok(_) | Err(kube::Error::Api(_))) => Ok(()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer in {} s", PROBE_TIMEOUT.as_secs())),
    }
}

/// An error with its causes in one line; those of TLS are several levels down.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn parse(endpoint: &str) -> anyhow::Result<Uri> {
    let url = match endpoint.split_once("://") {
        Some(_) => endpoint.to_owned(),
        None => format!("https://{endpoint}"),
    };
    let uri: Uri = url
        .parse()
        .with_context(|| format!("read the control plane endpoint {endpoint:?}"))?;
    let plain = uri.path() == "/" && uri.query().is_none();
    let credentials = uri.authority().is_some_and(|a| a.as_str().contains('@'));
    anyhow::ensure!(
        uri.scheme_str() == Some("https") && uri.port_u16().is_some() && plain && !credentials,
        "the control plane endpoint {endpoint:?} is not of the form https://host:port"
    );
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://10.0.0.1:6443", true)]
    #[case("https://[fc00::1]:6443", true)]
    #[case("kind-control-plane:6443", true)]
    #[case("https://10.0.0.1:6443/", true)]
    #[case("http://10.0.0.1:6443", false)]
    #[case("https://10.0.0.1", false)]
    #[case("https://10.0.0.1:6443/api", false)]
    #[case("https://user@10.0.0.1:6443", false)]
    #[case("nowhere at all", false)]
    fn endpoints(#[case] endpoint: &str, #[case] good: bool) {
        assert_eq!(parse(endpoint).is_ok(), good);
    }
}
