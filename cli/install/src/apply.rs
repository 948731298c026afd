//! Server-side apply of any objects.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kindnet_api::{names, yaml};
use kindnet_ui::UserError;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{explain, is_status, is_transient, request_failed};

/// Requests under way at once.
const PARALLEL: usize = 8;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LIMIT: Duration = Duration::from_secs(2);

/// How to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Owner of the fields that are set.
    pub field_manager: &'static str,
    /// How long to try again while the API server is still starting.
    pub patience: Duration,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            field_manager: names::CLI_FIELD_MANAGER,
            patience: Duration::from_secs(20),
        }
    }
}

/// An object that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedObject {
    /// `Kind/name`, or `Kind/namespace/name`.
    pub name: String,
    /// Whether anything changed in the cluster.
    pub changed: bool,
}

/// Applies every document of a YAML stream; see [`apply_objects`].
///
/// # Errors
/// The text is not YAML or holds something that is no Kubernetes object; otherwise as there.
pub async fn apply_yaml(
    client: &Client,
    text: &str,
    options: &ApplyOptions,
) -> Result<Vec<AppliedObject>, UserError> {
    let objects = yaml::documents::<DynamicObject>(text)
        .map_err(|error| UserError::usage("this is no Kubernetes object").source(error))?;
    apply_objects(client, objects, options).await
}

/// Applies objects: first namespaces and CRDs, then what others refer to, then workloads and objects
/// of those CRDs. What does not depend on each other is sent at the same time. Fields others set
/// stay; fields set here are taken over.
///
/// # Errors
/// The API server refuses an object, or does not answer within the patience.
pub async fn apply_objects(
    client: &Client,
    objects: Vec<DynamicObject>,
    options: &ApplyOptions,
) -> Result<Vec<AppliedObject>, UserError> {
    let until = Instant::now() + options.patience;
    let mut waves: [Vec<DynamicObject>; 3] = Default::default();
    for object in objects {
        waves[wave(&object)].push(object);
    }
    let mut applied = Vec::new();
    let mut kinds = HashMap::new();
    for wave in waves {
        let crds: Vec<String> = wave
            .iter()
            .filter(|o| kind(o) == "CustomResourceDefinition")
            .map(ResourceExt::name_any)
            .collect();
        for gvk in wave.iter().filter_map(gvk) {
            let what = format!("find out about {}", gvk.kind);
            if let Entry::Vacant(entry) = kinds.entry(gvk) {
                let kind = entry.key();
                let found = retry(until, &what, || pinned_kind(client, kind)).await?;
                entry.insert(found);
            }
        }
        let done: Vec<AppliedObject> = stream::iter(&wave)
            .map(|object| apply_one(client, object, &kinds, options, until))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        applied.extend(done);
        for crd in crds {
            established(client, &crd, until).await?;
        }
    }
    Ok(applied)
}

/// An object that was deleted, as `Kind/name`.
pub(crate) struct Deleted(pub(crate) String);

/// Deletes objects one after the other; those that are gone already are left out of the result.
pub(crate) async fn delete_objects(
    client: &Client,
    objects: &[DynamicObject],
    until: Instant,
) -> Result<Vec<Deleted>, UserError> {
    let mut deleted = Vec::new();
    for object in objects {
        let Some(gvk) = gvk(object) else { continue };
        let name = object.name_any();
        let title = format!("{}/{name}", gvk.kind);
        let what = format!("delete {title}");
        let found = retry(until, &what, || async {
            match pinned_kind(client, &gvk).await {
                Ok(found) => Ok(Some(found)),
                // Without the kind there can be no object of it.
                Err(error) if is_status(&error, 404) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let Some((resource, capabilities)) = found.await? else {
            continue;
        };
        let api = api(client, object, &resource, &capabilities);
        let was_there = retry(until, &what, || async {
            match api.delete(&name, &DeleteParams::background()).await {
                Ok(_) => Ok(true),
                Err(error) if is_status(&error, 404) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await?;
        if was_there {
            deleted.push(Deleted(title));
        }
    }
    Ok(deleted)
}

/// Which of three groups an object belongs to.
fn wave(object: &DynamicObject) -> usize {
    let group = gvk(object).map(|gvk| gvk.group).unwrap_or_default();
    match kind(object) {
        "Namespace" | "CustomResourceDefinition" => 0,
        "Deployment" | "DaemonSet" | "StatefulSet" | "Job" | "CronJob" | "Pod" => 2,
        // Groups of Kubernetes itself have no dot, or end like this.
        _ if !group.contains('.') || group.ends_with(".k8s.io") => 1,
        _ => 2,
    }
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}

fn gvk(object: &DynamicObject) -> Option<GroupVersionKind> {
    GroupVersionKind::try_from(object.types.as_ref()?).ok()
}

async fn apply_one(
    client: &Client,
    object: &DynamicObject,
    kinds: &HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>,
    options: &ApplyOptions,
    until: Instant,
) -> Result<AppliedObject, UserError> {
    let Some((resource, capabilities)) = gvk(object).and_then(|gvk| kinds.get(&gvk)) else {
        return Err(UserError::usage("an object has no apiVersion and kind"));
    };
    let object = &in_scope(object, &capabilities.scope);
    let api = api(client, object, resource, capabilities);
    let name = object.name_any();
    let full_name = match object.namespace() {
        Some(namespace) => format!("{}/{namespace}/{name}", resource.kind),
        None => format!("{}/{name}", resource.kind),
    };
    let what = format!("apply {full_name}");
    let before = retry(until, &what, || api.get_metadata_opt(&name)).await?;
    let params = PatchParams::apply(options.field_manager).force();
    let patch = Patch::Apply(object);
    let after = retry(until, &what, || api.patch(&name, &params, &patch)).await?;
    Ok(AppliedObject {
        name: full_name,
        changed: before.is_none_or(|b| b.metadata.resource_version != after.resource_version()),
    })
}

/// The object without a namespace where its kind has none: the storage class of kind's node images
/// comes with one all the same.
fn in_scope(object: &DynamicObject, scope: &Scope) -> DynamicObject {
    let mut object = object.clone();
    if *scope == Scope::Cluster {
        object.metadata.namespace = None;
    }
    object
}

fn api(
    client: &Client,
    object: &DynamicObject,
    resource: &ApiResource,
    capabilities: &ApiCapabilities,
) -> Api<DynamicObject> {
    match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, resource),
            None => Api::default_namespaced_with(client.clone(), resource),
        },
    }
}

async fn established(client: &Client, crd: &str, until: Instant) -> Result<(), UserError> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = await_condition(api.clone(), crd, conditions::is_crd_established());
        match timeout(left, wait).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(%error, crd, "watch failed, will retry");
                sleep(RETRY_FIRST).await;
            }
            Err(_) => {
                return Err(UserError::failure(format!(
                    "the API server did not establish the CRD {crd} in time"
                ))
                .hint(format!("see its conditions: kubectl describe crd {crd}")));
            }
        }
    }
}

/// Repeats a request as long as its failure may pass, but not after `until`.
pub(crate) async fn retry<T, F, Fut>(until: Instant, what: &str, request: F) -> Result<T, UserError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let mut pause = RETRY_FIRST;
    loop {
        let cause = match timeout(REQUEST_TIMEOUT, request()).await {
            Ok(Ok(value)) => return Ok(value),
            // A role that the API server has not bootstrapped yet looks like a missing right.
            Ok(Err(error)) if is_transient(&error) || is_status(&error, 403) => {
                tracing::debug!(error = explain(&error), what, "will retry");
                if is_status(&error, 403) && pause > Duration::from_secs(1) {
                    return Err(request_failed(what, &error));
                }
                Some(error)
            }
            Ok(Err(error)) => return Err(request_failed(what, &error)),
            Err(_) => None,
        };
        if Instant::now() + pause >= until {
            return Err(match cause {
                Some(error) => request_failed(what, &error),
                None => UserError::failure(format!("cannot {what}"))
                    .source("the API server did not answer in time")
                    .hint("is the cluster running? `kubectl cluster-info` shows"),
            });
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[rstest]
    #[case("v1", "Namespace", 0)]
    #[case("apiextensions.k8s.io/v1", "CustomResourceDefinition", 0)]
    #[case("v1", "ServiceAccount", 1)]
    #[case("rbac.authorization.k8s.io/v1", "ClusterRole", 1)]
    #[case("apps/v1", "Deployment", 2)]
    #[case("kindnet.io/v1alpha1", "Configuration", 2)]
    fn order(#[case] api_version: &str, #[case] kind: &str, #[case] expected: usize) {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": api_version, "kind": kind, "metadata": { "name": "x" }
        }))
        .unwrap();
        assert_eq!(wave(&object), expected);
    }

    #[test]
    fn what_belongs_to_no_namespace_is_sent_without_one() {
        let class: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": { "name": "standard", "namespace": "kube-system" },
            "provisioner": "rancher.io/local-path",
        }))
        .unwrap();
        assert_eq!(in_scope(&class, &Scope::Cluster).namespace(), None);
        let kept = in_scope(&class, &Scope::Namespaced);
        assert_eq!(kept.namespace().as_deref(), Some("kube-system"));
    }

    fn refusal(code: u16) -> kube::Error {
        let status = serde_json::from_value(json!({ "code": code, "message": "no" })).unwrap();
        kube::Error::Api(Box::new(status))
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_asked_again() {
        let asked = AtomicU32::new(0);
        let until = Instant::now() + Duration::from_secs(60);
        let answer = retry(until, "x", || async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0..4 => Err(refusal(503)),
                n => Ok(n),
            }
        })
        .await;
        assert_eq!(answer.unwrap(), 4);
    }

    #[rstest]
    #[case(422, 0, 0)]
    #[case(403, 1, 3)]
    #[case(503, 55, 60)]
    #[tokio::test(start_paused = true)]
    async fn patience_depends_on_the_answer(
        #[case] code: u16,
        #[case] least: u64,
        #[case] most: u64,
    ) {
        let began = Instant::now();
        let until = began + Duration::from_secs(60);
        let answer: Result<(), _> = retry(until, "x", || async { Err(refusal(code)) }).await;
        let error = answer.unwrap_err();
        assert!(error.to_string().starts_with("cannot x"), "{error}");
        let took = began.elapsed().as_secs();
        assert!((least..=most).contains(&took), "{took} s");
    }
}
