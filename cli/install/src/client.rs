//! A client for the cluster the user means.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, header::USER_AGENT};
use kindnet_ui::UserError;
use kube::config::{KubeConfigOptions, Kubeconfig as KubeconfigFile, KubeconfigError};
use kube::{Client, Config};
use tokio::time::{Instant, sleep};

use crate::error::explain;
use crate::proxy;

/// Names us in the audit log.
const AGENT_HEADER: &str = concat!("kindnetctl/", env!("CARGO_PKG_VERSION"));

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long [`reach`] asks again: an API server that restarts is back after a few seconds.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);
const REACH_PAUSE: Duration = Duration::from_millis(500);
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
    Ok(client(options).await?.0)
}

/// [`connect`], and makes sure that somebody answers there, so that a wrong context or a cluster
/// that is down is told apart from everything that may fail later.
///
/// # Errors
/// As [`connect`]; nobody answers within five seconds. A refusal is an answer.
pub async fn reach(options: &ConnectOptions) -> Result<Client, UserError> {
    let (client, server) = client(options).await?;
    let until = Instant::now() + REACH_TIMEOUT;
    loop {
        let cause = match tokio::time::timeout_at(until, client.apiserver_version()).await {
            Ok(Ok(_) | Err(kube::Error::Api(_) | kube::Error::SerdeError(_))) => return Ok(client),
            Ok(Err(error)) => explain(&error),
            Err(_) => "no answer in time".into(),
        };
        if Instant::now() + REACH_PAUSE >= until {
            return Err(
                UserError::usage(format!("the API server {server} does not answer"))
                    .hint(
                        "is the cluster running, and is this its kubeconfig context? For a \
                         cluster in Docker, `kindnetctl get nodes` shows whether its nodes run",
                    )
                    .source(cause),
            );
        }
        sleep(REACH_PAUSE).await;
    }
}

/// The client, and the URL of its server.
async fn client(options: &ConnectOptions) -> Result<(Client, String), UserError> {
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
    let server = config
        .cluster_url
        .to_string()
        .trim_end_matches('/')
        .to_owned();
    let client = Client::try_from(config).map_err(|error| match error {
        kube::Error::ProxyProtocolDisabled { .. } => broken(error.into()).hint(
            "proxies are not supported: where the API server can be reached without, add its host \
             to NO_PROXY",
        ),
        error => broken(error.into()),
    })?;
    Ok((client, server))
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
    match source {
        Kubeconfig::Default => read_all(&default_paths()),
        Kubeconfig::Path(path) => read_all(std::slice::from_ref(path)),
        Kubeconfig::Text(text) => {
            let origin = "the kubeconfig of the cluster";
            let file =
                KubeconfigFile::from_yaml(text).map_err(|error| unreadable(origin, error))?;
            Ok((file, origin.into()))
        }
    }
}

/// `$KUBECONFIG` may list several files.
fn default_paths() -> Vec<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let paths: Vec<PathBuf> = std::env::split_paths(&listed)
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if !paths.is_empty() {
        return paths;
    }
    let home = std::env::home_dir().unwrap_or_default();
    vec![home.join(".kube/config")]
}

/// Files that do not exist are passed over, as kubectl does, unless there is no other.
fn read_all(paths: &[PathBuf]) -> Result<(KubeconfigFile, String), UserError> {
    let (mut merged, mut origins) = (None::<KubeconfigFile>, Vec::new());
    for path in paths {
        let origin = format!("the kubeconfig {}", path.display());
        let file = match KubeconfigFile::read_from(path) {
            Err(KubeconfigError::ReadConfig(error, _)) if is_missing(&error) => continue,
            other => other.map_err(|error| unreadable(&origin, error))?,
        };
        merged = Some(match merged {
            None => file,
            Some(earlier) => earlier
                .merge(file)
                .map_err(|error| unreadable(&origin, error))?,
        });
        origins.push(path.display().to_string());
    }
    match merged {
        Some(file) => Ok((file, format!("the kubeconfig {}", origins.join(", ")))),
        None => Err(missing(paths)),
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

fn missing(paths: &[PathBuf]) -> UserError {
    let list: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    UserError::usage(format!("there is no kubeconfig {}", list.join(", "))).hint(
        "name the file with --kubeconfig, or set KUBECONFIG; `kindnetctl up` makes a cluster and \
         an entry for it",
    )
}

fn unreadable(origin: &str, error: KubeconfigError) -> UserError {
    let failure = UserError::usage(format!("{origin} cannot be read"))
        .hint("name another file with --kubeconfig, or set KUBECONFIG");
    match error {
        // Its own text repeats the path.
        KubeconfigError::ReadConfig(error, _) => failure.source(error),
        error => failure.source(error),
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
    async fn files_that_are_missing_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let (there, missing) = (folder.path().join("a"), folder.path().join("b"));
        let Kubeconfig::Text(text) = text("a") else {
            unreachable!()
        };
        fs_err::write(&there, text).unwrap();
        let (file, origin) = read_all(&[missing.clone(), there.clone()]).unwrap();
        assert_eq!(file.current_context.as_deref(), Some("a"));
        assert_eq!(origin, format!("the kubeconfig {}", there.display()));
        let error = read_all(&[missing]).unwrap_err();
        assert!(error.to_string().starts_with("there is no kubeconfig /"));
        let error = read_all(&[folder.path().to_owned()]).unwrap_err();
        assert!(error.to_string().ends_with(" cannot be read"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_named() {
        let options = ConnectOptions {
            kubeconfig: text("a"),
            context: None,
        };
        let error = reach(&options).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "the API server https://127.0.0.1:1 does not answer"
        );
        assert_eq!(error.code(), kindnet_ui::ExitCode::Usage);
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
