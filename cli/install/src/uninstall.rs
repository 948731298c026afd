//! Takes kindnet off a cluster.

use std::time::Duration;

use futures_util::stream::{select, select_all};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kindnet_api::{Configuration, names};
use kindnet_ui::{Child, Ui, UserError};
use kube::api::{DeleteParams, ListParams};
use kube::core::DynamicObject;
use kube::runtime::watcher;
use kube::{Api, Client, CustomResourceExt as _, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::{ApplyOptions, Deleted, apply_objects, delete_objects, retry};
use crate::error::is_status;
use crate::watch::{follow, listed, ticks, until};
use crate::{diagnose, manifests};

const AGENT_PODS: &str = "app.kubernetes.io/name=kindnetd";
const CONTROLLER_PODS: &str = "app.kubernetes.io/name=kindnet-controller";
const CLEANER_PODS: &str = "app.kubernetes.io/name=kindnet-uninstall";

/// Time after the end of a pod's grace period until a container that does not run counts as stopped.
const OVERDUE: SignedDuration = SignedDuration::from_secs(2);

/// How long requests are repeated while the API server does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to uninstall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UninstallOptions {
    /// Image whose `kindnetd uninstall` cleans the nodes; the installed one when absent.
    pub image: Option<String>,
    /// How long each step may take.
    pub timeout: Duration,
}

impl Default for UninstallOptions {
    fn default() -> Self {
        Self {
            image: None,
            timeout: Duration::from_secs(120),
        }
    }
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UninstallSummary {
    /// Nodes whose kernel and CNI directory were cleaned.
    pub nodes_cleaned: usize,
    /// Nodes that do not answer, and keep what is on them until they restart.
    pub nodes_skipped: Vec<String>,
    /// Objects that were removed, as `Kind/name`; empty when kindnet was not installed.
    pub removed: Vec<String>,
}

/// Removes the agents, cleans every node, then removes every object, the CRD last. May be repeated,
/// also after an interrupted run.
///
/// # Errors
/// The API server does not answer or refuses; a node was not cleaned in time; cancelled.
pub async fn uninstall(
    client: &Client,
    options: &UninstallOptions,
    ui: &Ui,
    cancel: &CancellationToken,
) -> Result<UninstallSummary, UserError> {
    let run = Run {
        client: client.clone(),
        options,
    };
    cancel
        .run_until_cancelled(run.all(ui))
        .await
        .unwrap_or_else(|| {
            Err(UserError::interrupted()
                .hint("kindnet is removed in part; run the same command again to finish"))
        })
}

struct Run<'a> {
    client: Client,
    options: &'a UninstallOptions,
}

impl Run<'_> {
    async fn all(&self, ui: &Ui) -> Result<UninstallSummary, UserError> {
        let mut summary = UninstallSummary::default();
        let step = ui.step("Removing kindnet");
        step.message("looking at the cluster");
        let image = self.image().await?;

        if let Some(image) = &image {
            self.apply_cleaner(image, true).await?;
            // Without its Configuration a controller that still runs does not make the agents again.
            let name = names::CONFIGURATION_NAME;
            self.delete::<Configuration>(name, &mut summary).await?;
            self.delete::<DaemonSet>(names::AGENT_NAME, &mut summary)
                .await?;
            self.delete::<Deployment>(names::CONTROLLER_NAME, &mut summary)
                .await?;
            let child = step.child("agents and controller");
            self.pods_gone(AGENT_PODS).await?;
            self.pods_gone(CONTROLLER_PODS).await?;
            child.done();
            let child = step.child("nodes");
            self.clean_nodes(image, child, ui, &mut summary).await?;
        }
        let child = step.child("objects");
        self.delete_rest(&mut summary).await?;
        child.done_with(format!("{} removed", summary.removed.len()));
        if summary.removed.is_empty() {
            step.done_with("it was not installed");
        } else {
            step.done();
        }
        Ok(summary)
    }

    /// Image that knows how to clean up. `None` when nothing of kindnet runs or is meant to run, so
    /// that no node can need cleaning.
    async fn image(&self) -> Result<Option<String>, UserError> {
        let configuration = self
            .get::<Configuration>(names::CONFIGURATION_NAME)
            .await?
            .map(|configuration| configuration.spec.kindnetd_image);
        let daemonset = |name: &'static str| async move {
            let found = self.get::<DaemonSet>(name).await?;
            Ok::<_, UserError>(found.and_then(|d| d.spec?.template.spec?.containers.pop()?.image))
        };
        let deployment = self
            .get::<Deployment>(names::CONTROLLER_NAME)
            .await?
            .and_then(|d| d.spec?.template.spec?.containers.pop()?.image);
        // What ran last on the nodes comes first: it is there, and it knows what it made.
        let found = daemonset(names::AGENT_NAME)
            .await?
            .or(daemonset(manifests::UNINSTALL_NAME).await?)
            .or(configuration)
            .or(deployment);
        Ok(found.and_then(|found| self.options.image.clone().or(Some(found))))
    }

    async fn get<K>(&self, name: &str) -> Result<Option<K>, UserError>
    where
        K: Named,
        K::DynamicType: Default,
    {
        let api = Api::<K>::namespaced(self.client.clone(), names::NAMESPACE);
        let what = format!("read {}/{name}", K::kind(&K::DynamicType::default()));
        retry(deadline(PATIENCE), &what, || async {
            absent_is_none(api.get(name).await)
        })
        .await
    }

    /// Deletes an object; one that is gone already is no failure.
    async fn delete<K>(&self, name: &str, summary: &mut UninstallSummary) -> Result<(), UserError>
    where
        K: Named,
        K::DynamicType: Default,
    {
        let api = Api::<K>::namespaced(self.client.clone(), names::NAMESPACE);
        let title = format!("{}/{name}", K::kind(&K::DynamicType::default()));
        let what = format!("delete {title}");
        let deleted = retry(deadline(PATIENCE), &what, || async {
            absent_is_none(api.delete(name, &DeleteParams::background()).await)
        })
        .await?;
        if deleted.is_some() {
            summary.removed.push(title);
        }
        Ok(())
    }

    /// Waits until the last pod with a label has ended.
    async fn pods_gone(&self, selector: &str) -> Result<(), UserError> {
        let (pods, changes) = follow(
            Api::<Pod>::namespaced(self.client.clone(), names::NAMESPACE),
            watcher::Config::default().labels(selector),
        );
        let silent = self.silent_nodes().await?;
        // The kubelet of a node that does not answer cannot say that a pod has ended.
        let gone = || {
            listed(&pods)?
                .iter()
                .all(|pod| {
                    if has_ended(pod, Timestamp::now()) {
                        return true;
                    }
                    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_ref());
                    node.is_some_and(|node| silent.contains(node))
                })
                .then_some(())
        };
        until(select(changes, ticks()), self.options.timeout, gone)
            .await
            .map_err(|_| {
                UserError::failure(format!("the pods with the label {selector} do not end")).hint(
                    format!("see why: kubectl -n kube-system describe pods -l {selector}"),
                )
            })
    }

    /// Names of the nodes whose kubelet does not report.
    async fn silent_nodes(&self) -> Result<Vec<String>, UserError> {
        let api = Api::<Node>::all(self.client.clone());
        let all = ListParams::default();
        let nodes = retry(deadline(PATIENCE), "list the nodes", || api.list(&all)).await?;
        Ok(silent(nodes.iter()))
    }

    async fn apply_cleaner(&self, image: &str, held: bool) -> Result<(), UserError> {
        let cleaner = manifests::uninstall(image, held)?;
        apply_objects(&self.client, vec![cleaner], &ApplyOptions::default()).await?;
        Ok(())
    }

    /// Runs the cleaner on every node that answers.
    async fn clean_nodes(
        &self,
        image: &str,
        child: Child,
        ui: &Ui,
        summary: &mut UninstallSummary,
    ) -> Result<(), UserError> {
        self.apply_cleaner(image, false).await?;
        let (daemonsets, daemonset_changes) = follow(
            Api::<DaemonSet>::namespaced(self.client.clone(), names::NAMESPACE),
            watcher::Config::default()
                .fields(&format!("metadata.name={}", manifests::UNINSTALL_NAME)),
        );
        let (pods, pod_changes) = follow(
            Api::<Pod>::namespaced(self.client.clone(), names::NAMESPACE),
            watcher::Config::default().labels(CLEANER_PODS),
        );
        let (nodes, node_changes) = follow(
            Api::<Node>::all(self.client.clone()),
            watcher::Config::default(),
        );
        let changes = select_all([daemonset_changes, pod_changes, node_changes]);
        let cleaned = until(changes, self.options.timeout, || {
            let nodes = listed(&nodes)?;
            let silent = silent(nodes.iter().map(AsRef::as_ref));
            let daemonset = listed(&daemonsets)?.pop()?;
            let status = daemonset.status.clone()?;
            if status.observed_generation < daemonset.metadata.generation {
                return None;
            }
            let pods = listed(&pods)?;
            let clean = pods.iter().filter(|pod| is_clean(pod)).count();
            let wanted = usize::try_from(status.desired_number_scheduled).unwrap_or(0);
            child.message(format!("{clean} of {wanted} clean"));
            (clean + silent.len() >= wanted).then_some((clean, silent))
        })
        .await;
        let Ok((clean, silent)) = cleaned else {
            let why = diagnose::pods(&self.client, CLEANER_PODS).await;
            return Err(UserError::failure(format!(
                "not every node was cleaned within {} s{why}",
                self.options.timeout.as_secs()
            ))
            .hint(
                "run the same command again; --image names another image where this one cannot \
                 be pulled",
            ));
        };
        child.done_with(format!("{clean} clean"));
        if !silent.is_empty() {
            ui.warn(format!(
                "these nodes do not answer and keep what is on them until they restart: {}",
                silent.join(", ")
            ));
        }
        summary.nodes_cleaned = clean;
        summary.nodes_skipped = silent;
        let mut unlisted = UninstallSummary::default();
        self.delete::<DaemonSet>(manifests::UNINSTALL_NAME, &mut unlisted)
            .await?;
        if self.pods_gone(CLEANER_PODS).await.is_err() {
            ui.warn("the pods that cleaned the nodes take long to end; they do nothing any more");
        }
        Ok(())
    }

    /// Everything that is left, in the opposite order of its making.
    async fn delete_rest(&self, summary: &mut UninstallSummary) -> Result<(), UserError> {
        self.delete::<Lease>(names::CONTROLLER_NAME, summary)
            .await?;
        let mut objects: Vec<DynamicObject> = manifests::install(names::DEFAULT_IMAGE, "")?;
        objects.reverse();
        let deleted = delete_objects(&self.client, &objects, deadline(PATIENCE)).await?;
        summary
            .removed
            .extend(deleted.into_iter().map(|Deleted(name)| name));
        let (crds, changes) = follow(
            Api::<CustomResourceDefinition>::all(self.client.clone()),
            watcher::Config::default()
                .fields(&format!("metadata.name={}", Configuration::crd_name())),
        );
        let gone = until(changes, self.options.timeout, || {
            listed(&crds)?.is_empty().then_some(())
        });
        gone.await.map_err(|_| {
            UserError::failure("the CRD is not removed")
                .hint("a Configuration with a finalizer holds it: kubectl get configurations.kindnet.io -A")
        })
    }
}

/// A kind of object in a namespace that has a name.
trait Named:
    kube::Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned
{
}

impl<K> Named for K where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned
{
}

/// Neither the object nor, without the CRD, its kind has to exist.
fn absent_is_none<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_status(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn deadline(patience: Duration) -> Instant {
    Instant::now() + patience
}

/// Nodes whose Ready condition is Unknown: the control plane has not heard of them for a while.
fn silent<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<String> {
    nodes
        .filter(|node| diagnose::ready_condition(node).is_some_and(|c| c.0 == "Unknown"))
        .map(ResourceExt::name_any)
        .collect()
}

/// It is being deleted and none of its containers runs. The object itself may stay for another
/// minute: kubelets before 1.22 look every ten seconds whether one can go, and sometimes report
/// stopped containers as waiting; those count once the time to stop is over.
fn has_ended(pod: &Pod, now: Timestamp) -> bool {
    let Some(Time(deadline)) = &pod.metadata.deletion_timestamp else {
        return false;
    };
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref());
    let overdue = now.duration_since(*deadline) >= OVERDUE;
    let stopped = |container: &ContainerStatus| {
        container
            .state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some() || (overdue && state.running.is_none()))
    };
    statuses.is_some_and(|s| !s.is_empty() && s.iter().all(stopped))
}

/// The init container, which cleans, has ended well, and the other one runs. Not before: kubelets
/// of 1.20 forget to stop a container that starts while its pod is being deleted.
fn is_clean(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[test]
    fn only_nodes_that_do_not_answer_are_skipped() {
        let node = |name: &str, ready: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": { "name": name },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap()
        };
        let nodes = [node("a", "True"), node("b", "False"), node("c", "Unknown")];
        assert_eq!(silent(nodes.iter()), ["c"]);
    }

    /// Seconds since the end of the grace period; none for a pod that is not being deleted.
    #[rstest]
    #[case(Some(-5), "terminated", true)]
    #[case(Some(-5), "running", false)]
    #[case(Some(-5), "waiting", false)]
    #[case(Some(2), "waiting", true)]
    #[case(Some(60), "running", false)]
    // A container that crashed will be started again.
    #[case(None, "terminated", false)]
    fn when_a_pod_has_ended(#[case] since: Option<i64>, #[case] state: &str, #[case] ended: bool) {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let deadline = since.map(|s| (now - SignedDuration::from_secs(s)).to_string());
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "deletionTimestamp": deadline },
            "status": { "containerStatuses": [{ "state": { state: { "exitCode": 0 } } }] },
        }))
        .unwrap();
        assert_eq!(has_ended(&pod, now), ended);
    }

    #[test]
    fn a_node_is_clean_once_the_cleaner_is_ready() {
        let pod = |ready: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": {}, "status": { "conditions": [
                { "type": "Ready", "status": ready } ] } }))
            .unwrap()
        };
        assert!(is_clean(&pod("True")));
        assert!(!is_clean(&pod("False")));
    }
}
