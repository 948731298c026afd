//! From one `Configuration` to the agents' DaemonSet, and back to its status.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kindnet_api::{Configuration, ConfigurationStatus, endpoint, names};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::connect::explain;
use crate::daemonset::daemonset;
use crate::events::{Notice, publish};
use crate::metrics::Metrics;
use crate::status::{self, Outcome};

/// Everything is looked at this often even when nothing seems to change.
const RESYNC: Duration = Duration::from_secs(300);
/// How often agents that are not ready are looked at, so that their delay is noticed.
const NOT_READY_RESYNC: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LIMIT: Duration = Duration::from_secs(60);

/// Why a reconciliation has to be repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("{operation}")]
    Api {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// The API server does not accept the DaemonSet; the status says so.
    #[error("DaemonSet refused: {0}")]
    Refused(String),
    /// A DaemonSet could not be built.
    #[error("build the DaemonSet")]
    Build(#[source] serde_json::Error),
}

fn failed(operation: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Api { operation, source }
}

/// What a reconciliation works with.
pub struct Context {
    client: Client,
    identity: String,
    metrics: Arc<Metrics>,
    failures: Mutex<u32>,
}

impl Context {
    /// `identity` names this process in events.
    pub fn new(client: Client, identity: String, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            identity,
            metrics,
            failures: Mutex::new(0),
        }
    }

    /// Logs a notice and publishes it.
    async fn tell(&self, about: &Configuration, notice: &Notice) {
        if notice.warning {
            tracing::warn!(reason = notice.reason, "{}", notice.note);
        } else {
            tracing::info!(reason = notice.reason, "{}", notice.note);
        }
        publish(&self.client, &self.identity, about, notice).await;
    }

    fn failures(&self, change: impl FnOnce(u32) -> u32) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = change(*failures);
        *failures
    }
}

/// Brings DaemonSet and status in line with the `Configuration`.
///
/// # Errors
/// A request failed; [`on_error`] says when to try again.
pub async fn reconcile(cached: Arc<Configuration>, context: Arc<Context>) -> Result<Action, Error> {
    // The cache may be older than the status written a moment ago; judging transitions by it would
    // report them twice.
    let api = Api::<Configuration>::namespaced(
        context.client.clone(),
        &cached.namespace().unwrap_or_default(),
    );
    let Some(configuration) = api
        .get_opt(&cached.name_any())
        .await
        .map_err(failed("read the Configuration"))?
    else {
        return Ok(Action::await_change());
    };
    if configuration.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let result = bring_in_line(&context, &api, &configuration).await;
    let label = if result.is_ok() { "success" } else { "error" };
    context.metrics.reconciled(label);
    let action = result?;
    context.failures(|_| 0);
    Ok(action)
}

/// When to try again: twice as long after each failure in a row.
pub fn on_error(_: Arc<Configuration>, error: &Error, context: Arc<Context>) -> Action {
    let failures = context.failures(|n| n.saturating_add(1));
    let wait = BACKOFF_FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(BACKOFF_LIMIT);
    let cause = match error {
        Error::Api { source, .. } => Some(explain(source)),
        _ => None,
    };
    tracing::warn!(%error, cause, retry_in = ?wait, "reconciliation failed");
    Action::requeue(wait)
}

async fn bring_in_line(
    context: &Context,
    api: &Api<Configuration>,
    configuration: &Configuration,
) -> Result<Action, Error> {
    let ours = configuration.namespace().as_deref() == Some(names::NAMESPACE)
        && configuration.name_any() == names::CONFIGURATION_NAME;
    if !ours {
        report(context, api, configuration, &Outcome::Ignored).await?;
        return Ok(Action::await_change());
    }

    let daemonsets = Api::<DaemonSet>::namespaced(context.client.clone(), names::NAMESPACE);
    let before = daemonsets
        .get_opt(names::AGENT_NAME)
        .await
        .map_err(failed("read the DaemonSet"))?;

    let problems = configuration.spec.problems();
    if !problems.is_empty() {
        let outcome = Outcome::Invalid(problems, before.as_ref());
        report(context, api, configuration, &outcome).await?;
        return Ok(Action::requeue(RESYNC));
    }

    let endpoint = control_plane_endpoint(context, configuration).await?;
    let wanted = daemonset(configuration, endpoint.as_deref()).map_err(Error::Build)?;
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let applied = daemonsets
        .patch(names::AGENT_NAME, &params, &Patch::Apply(&wanted))
        .await;
    let after = match applied {
        Ok(after) => after,
        // 4xx: trying the same again will not help, so the owner of the cluster has to know.
        Err(kube::Error::Api(status))
            if (400..500).contains(&status.code) && status.code != 429 =>
        {
            let message = status.message.clone();
            let outcome = Outcome::Refused(message.clone(), before.as_ref());
            report(context, api, configuration, &outcome).await?;
            return Err(Error::Refused(message));
        }
        Err(source) => return Err(failed("apply the DaemonSet")(source)),
    };
    if let Some(notice) = applied_notice(configuration, before.as_ref(), &after) {
        context.tell(configuration, &notice).await;
    }
    let written = report(context, api, configuration, &Outcome::Applied(&after)).await?;
    let ready = status::condition(&written, "Ready").is_some_and(|c| c.status == "True");
    let rolling = status::condition(&written, "Progressing").is_some_and(|c| c.status == "True");
    Ok(Action::requeue(if rolling || !ready {
        NOT_READY_RESYNC
    } else {
        RESYNC
    }))
}

/// Writes the status where it changed, publishes what changed, and returns it.
async fn report(
    context: &Context,
    api: &Api<Configuration>,
    configuration: &Configuration,
    outcome: &Outcome<'_>,
) -> Result<ConfigurationStatus, Error> {
    let new = status::status(configuration, outcome, Timestamp::now());
    if *outcome != Outcome::Ignored {
        context.metrics.agents(&new);
    }
    let old = configuration.status.as_ref();
    if old == Some(&new) {
        return Ok(new);
    }
    let patch = Patch::Merge(json!({ "status": new }));
    api.patch_status(&configuration.name_any(), &PatchParams::default(), &patch)
        .await
        .map_err(failed("write the status"))?;
    for notice in transitions(old, &new) {
        context.tell(configuration, &notice).await;
    }
    Ok(new)
}

/// What to tell about the difference between the DaemonSet before and after it was applied.
fn applied_notice(
    configuration: &Configuration,
    before: Option<&DaemonSet>,
    after: &DaemonSet,
) -> Option<Notice> {
    let image = &configuration.spec.kindnetd_image;
    match before {
        None => Some(Notice::normal(
            "Applied",
            format!("DaemonSet {} made, image {image}", names::AGENT_NAME),
        )),
        Some(before) if !differs(before, after) => None,
        Some(_) => {
            let seen = configuration
                .status
                .as_ref()
                .and_then(|s| s.observed_generation);
            Some(if seen == configuration.metadata.generation {
                Notice::warning(
                    "Repaired",
                    format!(
                        "DaemonSet {} was changed by somebody else and set back",
                        names::AGENT_NAME
                    ),
                )
            } else {
                Notice::normal(
                    "Applied",
                    format!("DaemonSet {} changed, image {image}", names::AGENT_NAME),
                )
            })
        }
    }
}

/// Whether applying changed something. The generation counts changes of the spec only, and the
/// resourceVersion counts those of the status too.
fn differs(before: &DaemonSet, after: &DaemonSet) -> bool {
    let (before, after) = (&before.metadata, &after.metadata);
    before.generation != after.generation
        || before.labels != after.labels
        || before.owner_references != after.owner_references
}

/// What to tell about the difference between two statuses.
fn transitions(old: Option<&ConfigurationStatus>, new: &ConfigurationStatus) -> Vec<Notice> {
    let mut notices = Vec::new();
    let was = |kind: &str| old.and_then(|status| status::condition(status, kind));
    if let Some(degraded) = status::condition(new, "Degraded")
        && degraded.status == "True"
        && was("Degraded").is_none_or(|c| {
            (&c.status, &c.reason, &c.message)
                != (&degraded.status, &degraded.reason, &degraded.message)
        })
    {
        // `reason` comes from a fixed set; events want it static.
        let reason = match degraded.reason.as_str() {
            "InvalidConfiguration" => "InvalidConfiguration",
            "ApplyFailed" => "ApplyFailed",
            "RolloutStalled" => "RolloutStalled",
            "AgentsNotReady" => "AgentsNotReady",
            _ => "Ignored",
        };
        // These messages hold counts; one event for all of them is enough.
        let counts = matches!(reason, "RolloutStalled" | "AgentsNotReady");
        if !counts || was("Degraded").is_none_or(|c| c.reason != reason) {
            notices.push(Notice::warning(reason, degraded.message.clone()));
        }
    }
    if let Some(progressing) = status::condition(new, "Progressing")
        && progressing.reason == "RolledOut"
        && was("Progressing").is_none_or(|c| c.reason != "RolledOut")
    {
        notices.push(Notice::normal("RolledOut", progressing.message.clone()));
    }
    notices
}

/// The endpoint for the agents: the Configuration's, else kubeadm's, else none.
async fn control_plane_endpoint(
    context: &Context,
    configuration: &Configuration,
) -> Result<Option<String>, Error> {
    if let Some(endpoint) = &configuration.spec.control_plane_endpoint {
        return Ok(Some(endpoint.clone()));
    }
    let api =
        Api::<ConfigMap>::namespaced(context.client.clone(), endpoint::CLUSTER_INFO_NAMESPACE);
    match api.get_opt(endpoint::CLUSTER_INFO_NAME).await {
        Ok(map) => Ok(map
            .and_then(|map| map.data)
            .and_then(|data| endpoint::from_cluster_info(data.get(endpoint::CLUSTER_INFO_KEY)?))),
        // A cluster whose owner took that right away has no endpoint to tell; that is no failure.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(failed("read kube-public/cluster-info")(error)),
    }
}

#[cfg(test)]
mod tests;
