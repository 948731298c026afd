//! A client for the cluster the user means.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, header::USER_AGENT};
use kindnet_ui::UserError;
use kube::config::{KubeConfigOptions, Kubeconfig as KubeconfigFile, KubeconfigError};
use kube::{Client, Config};

use crate::proxy;

/// Names us in the audit log.
const AGENT_HEADER: &str = concat!("kindnetctl/", env!("CARGO_PKG_VERSION"));

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the longest silence on a watch: the API server ends one after at most ten minutes,
/// and the watcher asks for less than five.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// Where the address and the credentials of the cluster come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kubeconfig {
    /// `$KUBECONFIG`, else `~/.kube/config`, as kubectl does.
    #[default]
    Default,
    /// This file.
    Path(PathBuf),
    /// The text of a kubeconfig.
    Text(String),
}

/// Which cluster, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Source of the kubeconfig.
    pub kubeconfig: Kubeconfig,
    /// Context in it; its current context when absent.
    pub context: Option<String>,
}

/// Makes a client. Nothing is sent to the cluster yet.
///
/// # Errors
/// The kubeconfig is missing or broken, or does not have the context.
pub async fn connect(options: &ConnectOptions) -> Result<Client, UserError> {
    let (file, origin) = read(&options.kubeconfig)?;
    let contexts: Vec<String> = file.contexts.iter().map(|c| c.name.clone()).collect();
    let wanted = options.context.clone().or_else(|| {
        file.current_context
            .clone()
            .filter(|context| !context.is_empty())
    });
    let Some(context) = wanted else {
        return Err(
            UserError::usage(format!("{origin} has no current context")).hint(choose(&contexts))
        );
    };
    if !contexts.contains(&context) {
        return Err(
            UserError::usage(format!("{origin} has no context named {context:?}"))
                .hint(choose(&contexts)),
        );
    }
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
        UserError::usage(format!(
            "the context {context:?} of {origin} cannot be used"
        ))
        .hint("`kubectl config view` shows what is in it")
        .source(error)
    };
    let in_kubeconfig = proxy_in(&file, &context);
    let choice = KubeConfigOptions {
        context: Some(context.clone()),
        ..KubeConfigOptions::default()
    };
    let mut config = Config::from_custom_kubeconfig(file, &choice)
        .await
        .map_err(|error| broken(error.into()))?;
    // The library takes the proxy of the environment for every server, those of this machine too.
    if !in_kubeconfig && proxy::is_direct(&config.cluster_url, &no_proxy()) {
        config.proxy_url = None;
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // Every command has a deadline of its own, and says what it is waiting for.
    config.default_retry = false;
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(AGENT_HEADER)));
    Client::try_from(config).map_err(|error| match error {
        kube::Error::ProxyProtocolDisabled { .. } => broken(error.into()).hint(
            "proxies are not supported: where the API server can be reached without, add its host \
             to NO_PROXY",
        ),
        error => broken(error.into()),
    })
}

/// Whether the kubeconfig itself wants a proxy for a context.
fn proxy_in(file: &KubeconfigFile, context: &str) -> bool {
    let context = file.contexts.iter().find(|c| c.name == context);
    let cluster = context.and_then(|c| c.context.as_ref()).map(|c| &c.cluster);
    let cluster = file.clusters.iter().find(|c| Some(&c.name) == cluster);
    let proxy = cluster.and_then(|c| c.cluster.as_ref()?.proxy_url.as_ref());
    proxy.is_some_and(|url| !url.is_empty())
}

fn no_proxy() -> String {
    ["NO_PROXY", "no_proxy"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .unwrap_or_default()
}

fn read(source: &Kubeconfig) -> Result<(KubeconfigFile, String), UserError> {
    let unreadable = |origin: &str, error: KubeconfigError| {
        UserError::usage(format!("{origin} cannot be read"))
            .hint("name the file with --kubeconfig, or set KUBECONFIG")
            .source(error)
    };
    match source {
        Kubeconfig::Default => {
            let origin = std::env::var("KUBECONFIG")
                .ok()
                .filter(|path| !path.is_empty())
                .unwrap_or_else(|| "~/.kube/config".into());
            let origin = format!("the kubeconfig {origin}");
            let file = KubeconfigFile::read().map_err(|error| unreadable(&origin, error))?;
            Ok((file, origin))
        }
        Kubeconfig::Path(path) => {
            let origin = format!("the kubeconfig {}", path.display());
            let file =
                KubeconfigFile::read_from(path).map_err(|error| unreadable(&origin, error))?;
            Ok((file, origin))
        }
        Kubeconfig::Text(text) => {
            let origin = "the kubeconfig of the cluster";
            let file =
                KubeconfigFile::from_yaml(text).map_err(|error| unreadable(origin, error))?;
            Ok((file, origin.into()))
        }
    }
}

fn choose(contexts: &[String]) -> String {
    if contexts.is_empty() {
        "it has no context at all; name another file with --kubeconfig".into()
    } else {
        format!("choose one with --context: {}", contexts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(current: &str) -> Kubeconfig {
        Kubeconfig::Text(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {current}\n\
             clusters:\n- name: c\n  cluster: {{server: 'https://127.0.0.1:1'}}\n\
             users:\n- name: u\n  user: {{token: t}}\n\
             contexts:\n- name: a\n  context: {{cluster: c, user: u}}\n\
             - name: b\n  context: {{cluster: c, user: nobody}}\n"
        ))
    }

    async fn failure(kubeconfig: Kubeconfig, context: Option<&str>) -> UserError {
        let options = ConnectOptions {
            kubeconfig,
            context: context.map(Into::into),
        };
        connect(&options).await.err().unwrap()
    }

    #[tokio::test]
    async fn the_contexts_there_are_get_named() {
        let error = failure(text("a"), Some("x")).await;
        assert!(
            error.to_string().contains("no context named \"x\""),
            "{error}"
        );
        assert_eq!(error.hint_text(), Some("choose one with --context: a, b"));
        let error = failure(text("''"), None).await;
        assert!(error.to_string().contains("no current context"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let error = failure(Kubeconfig::Path("/nonexistent/kubeconfig".into()), None).await;
        assert!(
            error.to_string().contains("/nonexistent/kubeconfig"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_good_context_makes_a_client() {
        let options = ConnectOptions {
            kubeconfig: text("a"),
            context: None,
        };
        assert!(connect(&options).await.is_ok());
    }
}
