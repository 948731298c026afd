//! Makes the check pods and waits until they run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Service, ServiceAccount};
use kindnet_ui::UserError;
use kube::api::{ListParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::cluster::{api_error, cluster_ips};
use crate::objects::{LABEL, Shape, headless_name, service_name};
use crate::plan::pod_name;
use crate::topology::{PodState, Services, Source};
use kindnet_api::node::Family;

/// Requests sent to the API server at a time.
const CONCURRENCY: usize = 16;

/// Attempts at a request, and the pause between them.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Makes the namespace and its ServiceAccount.
///
/// # Errors
/// Not allowed to, or no API server.
pub async fn create_namespace(client: &Client, shape: &Shape) -> Result<(), UserError> {
    let namespace = typed::<Namespace>(shape.namespace())?;
    create(&Api::all(client.clone()), &namespace)
        .await
        .map_err(|e| api_error("the namespace of the check pods cannot be created", e))?;
    let account = typed::<ServiceAccount>(shape.account())?;
    create(&Api::namespaced(client.clone(), &shape.namespace), &account)
        .await
        .map_err(|e| api_error("the ServiceAccount of the check pods cannot be created", e))?;
    Ok(())
}

/// Makes an object, with another try where the API server falters: one that is starting does.
async fn create<K>(api: &Api<K>, object: &K) -> Result<K, kube::Error>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match api.create(&PostParams::default(), object).await {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        match &error {
            // The answer to an earlier attempt was lost.
            kube::Error::Api(status) if status.reason == "AlreadyExists" && attempt > 1 => {
                return api
                    .get(object.meta().name.as_deref().unwrap_or_default())
                    .await;
            }
            _ if may_pass(&error) && attempt < ATTEMPTS => {
                tracing::debug!(%error, "will retry");
                tokio::time::sleep(PAUSE).await;
            }
            _ => return Err(error),
        }
    }
}

/// Whether the same request may succeed in a moment.
pub fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 500..),
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

/// Makes one check pod.
///
/// # Errors
/// Not allowed to: an admission controller, a quota.
pub async fn create_pod(
    client: &Client,
    shape: &Shape,
    source: Source,
    node: &str,
) -> Result<(), UserError> {
    let pod = typed::<Pod>(shape.pod(source, node))?;
    let api = Api::<Pod>::namespaced(client.clone(), &shape.namespace);
    for _ in 0..100 {
        match create(&api, &pod).await {
            Ok(_) => return Ok(()),
            // The admission controller learns of the ServiceAccount a moment after it was made, and
            // that of a young API server of anything at all.
            Err(kube::Error::Api(status))
                if status.code == 403
                    && (status.message.contains("service account")
                        || status.message.contains("not yet ready to handle request")) =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return Ok(()),
            Err(error) => {
                let what = format!("the check pod for node {node} cannot be created");
                return Err(api_error(&what, error));
            }
        }
    }
    Err(UserError::usage(format!(
        "the check pod for node {node} cannot be created: its ServiceAccount does not appear"
    )))
}

/// Makes all check pods.
///
/// # Errors
/// As [`create_pod`].
pub async fn create_pods(
    client: &Client,
    shape: &Shape,
    pods: &[(Source, String)],
) -> Result<(), UserError> {
    stream::iter(pods)
        .map(|(source, node)| create_pod(client, shape, *source, node))
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// Makes the Services of the families and reads their addresses. A family the cluster has no Service
/// addresses of is left out.
///
/// # Errors
/// Not allowed to, or no API server.
pub async fn create_services(
    client: &Client,
    shape: &Shape,
    families: &[Family],
    dual: bool,
) -> Result<Vec<Services>, UserError> {
    let api = Api::<Service>::namespaced(client.clone(), &shape.namespace);
    let make = async |family: Family| {
        let [main, headless] = shape.services(family, dual);
        let (main, headless) = (typed::<Service>(main)?, typed::<Service>(headless)?);
        let (main, headless) = futures_util::join!(create(&api, &main), create(&api, &headless));
        let main = match (main, headless) {
            (Ok(main), Ok(_)) => main,
            // 422: a family the API server does not hand out.
            (Err(kube::Error::Api(status)), _) | (_, Err(kube::Error::Api(status)))
                if status.code == 422 =>
            {
                tracing::debug!(%family, message = status.message, "no Service of this family");
                return Ok(None);
            }
            (Err(error), _) | (_, Err(error)) => {
                return Err(api_error(
                    "a Service for the checks cannot be created",
                    error,
                ));
            }
        };
        Ok(services_of(&main, family))
    };
    let made: Vec<Result<Option<Services>, UserError>> =
        futures_util::future::join_all(families.iter().map(|f| make(*f))).await;
    made.into_iter().filter_map(Result::transpose).collect()
}

fn services_of(service: &Service, family: Family) -> Option<Services> {
    let cluster_ip = cluster_ips(service)
        .into_iter()
        .find(|ip| Family::of(*ip) == family)?;
    let port = service
        .spec
        .as_ref()?
        .ports
        .iter()
        .flatten()
        .find(|p| p.name.as_deref() == Some("tcp"))?
        .node_port?;
    Some(Services {
        family,
        cluster_ip,
        node_port: u16::try_from(port).ok()?,
        name: service_name(family),
        headless: headless_name(family),
    })
}

/// Events of pods whose network the runtime could not set up.
const REFUSED: &str = "reason=FailedCreatePodSandBox";

/// Waits until every pod runs, or cannot, or the limit is reached. Pods whose network could not be
/// set up are not waited for longer than `patience` after the last of them was refused: the kubelet
/// tries again, but what it meets rarely changes.
///
/// # Errors
/// The API server is gone.
pub async fn wait(
    client: &Client,
    namespace: &str,
    pods: &[(Source, String)],
    limit: Duration,
    patience: Option<Duration>,
    mut progress: impl FnMut(usize, usize),
) -> Result<BTreeMap<Source, PodState>, UserError> {
    let by_name: BTreeMap<String, Source> = pods
        .iter()
        .map(|(source, _)| (pod_name(*source), *source))
        .collect();
    let mut states = BTreeMap::new();
    let mut refused = BTreeSet::new();
    let watched = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut watched = std::pin::pin!(
        watcher(watched, watcher::Config::default().labels(LABEL))
            .default_backoff()
            .applied_objects()
    );
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    let mut refusals = std::pin::pin!(
        watcher(events.clone(), watcher::Config::default().fields(REFUSED))
            .default_backoff()
            .applied_objects()
    );
    let mut end = Instant::now() + limit;
    while states.len() < by_name.len() {
        // Both watchers reconnect by themselves, until the end.
        tokio::select! {
            Some(pod) = watched.next() => {
                let Ok(pod) = pod else { continue };
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                if let (Some(source), Some(state)) = (by_name.get(name), state_of(&pod)) {
                    states.insert(*source, state);
                    progress(states.len(), by_name.len());
                }
            }
            Some(event) = refusals.next() => {
                let Ok(event) = event else { continue };
                let name = event.involved_object.name.unwrap_or_default();
                refused.extend(by_name.get(&name).copied());
            }
            () = tokio::time::sleep_until(end) => break,
        }
        let mut waiting = by_name.values().filter(|s| !states.contains_key(s));
        if let Some(patience) = patience
            && waiting.all(|source| refused.contains(source))
        {
            end = end.min(Instant::now() + patience);
        }
    }
    let late: Vec<&Source> = by_name
        .values()
        .filter(|s| !states.contains_key(s))
        .collect();
    if !late.is_empty() {
        let events = events
            .list(&ListParams::default())
            .await
            .map_or_else(|_| Vec::new(), |list| list.items);
        let late: Vec<Source> = late.into_iter().copied().collect();
        for source in late {
            let why = last_warning(&events, &pod_name(source))
                .unwrap_or_else(|| "did not start in time".to_owned());
            states.insert(source, PodState::Broken(why));
        }
    }
    Ok(states)
}

/// State of a pod; none while it may still become something else.
fn state_of(pod: &Pod) -> Option<PodState> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.iter().flatten().next();
    let waiting = container
        .and_then(|c| c.state.as_ref())
        .and_then(|s| s.waiting.as_ref());
    if let Some(waiting) = waiting
        && let Some(reason) = waiting.reason.as_deref()
        && STUCK.contains(&reason)
        && !waiting.message.as_deref().is_some_and(is_slow)
    {
        return Some(PodState::Broken(match waiting.message.as_deref() {
            Some(message) => format!("{reason}: {message}"),
            None => reason.to_owned(),
        }));
    }
    if let Some("Failed" | "Succeeded") = status.phase.as_deref() {
        let ended = container
            .and_then(|c| c.state.as_ref())
            .and_then(|s| s.terminated.as_ref());
        let why = status
            .message
            .clone()
            .or_else(|| ended.and_then(|e| e.message.clone()))
            .or_else(|| status.reason.clone())
            .or_else(|| ended.map(|e| format!("the probe ended with code {}", e.exit_code)))
            .unwrap_or_else(|| "the pod ended".to_owned());
        return Some(PodState::Broken(why));
    }
    let running = container
        .and_then(|c| c.state.as_ref()?.running.as_ref())
        .is_some();
    let ips: Vec<IpAddr> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.as_str())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    (running && !ips.is_empty()).then_some(PodState::Running(ips))
}

/// Reasons a container waits that do not go away within a run.
const STUCK: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// Whether a runtime only took too long, or has not noticed yet that it was done at the first
/// attempt: the kubelet tries again, and on a busy machine succeeds.
fn is_slow(message: &str) -> bool {
    ["DeadlineExceeded", "deadline exceeded", "is reserved for"]
        .iter()
        .any(|sign| message.contains(sign))
}

fn last_warning(events: &[Event], pod: &str) -> Option<String> {
    let event = events
        .iter()
        .filter(|e| e.involved_object.name.as_deref() == Some(pod))
        .filter(|e| e.type_.as_deref() == Some("Warning"))
        .max_by_key(|e| e.last_timestamp.as_ref().map(|t| t.0))?;
    let reason = event.reason.as_deref().unwrap_or("Warning");
    Some(format!(
        "{reason}: {}",
        event.message.as_deref().unwrap_or_default()
    ))
}

fn typed<T: DeserializeOwned + Serialize + Resource>(
    value: serde_json::Value,
) -> Result<T, UserError> {
    serde_json::from_value(value)
        .map_err(|e| UserError::failure("an object of the checks is malformed").source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("CreateContainerError", "no such file", true)]
    #[case("CreateContainerError", "context deadline exceeded", false)]
    #[case(
        "CreateContainerError",
        "failed to reserve container name: name \"a\" is reserved for \"b\"",
        false
    )]
    #[case("ContainerCreating", "", false)]
    fn only_what_lasts_breaks_a_pod(#[case] reason: &str, #[case] why: &str, #[case] broken: bool) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "status": {
            "phase": "Pending",
            "containerStatuses": [{"state": {"waiting": {"reason": reason, "message": why}}}],
        }}))
        .unwrap();
        assert_eq!(state_of(&pod).is_some(), broken);
    }

    #[rstest]
    #[case(503, true)]
    #[case(429, true)]
    #[case(403, false)]
    #[case(422, false)]
    fn what_may_pass(#[case] code: u16, #[case] passes: bool) {
        let status = serde_json::from_value(json!({"code": code})).unwrap();
        assert_eq!(may_pass(&kube::Error::Api(Box::new(status))), passes);
    }
}
