//! The cluster through its API server: when does it answer, can nodes join, is everything ready.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kindnet_install::{ConnectOptions, Kubeconfig};
use kindnet_ui::UserError;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::error::{Doing as _, Result};
use crate::names;

/// How long the API server may take from its certificates to its first answer. kubeadm gives up
/// before, with more to say.
const API_LIMIT: Duration = Duration::from_secs(300);

/// Pause between two attempts to reach an API server that is starting.
const API_PAUSE: Duration = Duration::from_millis(100);

/// A starting server may accept a connection and say nothing; a slow one needs longer for the first
/// answer. The first attempt may take the shorter time, later ones up to the longer.
const API_ATTEMPT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));

/// Pause before a request that failed is sent again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

const CONTROL_PLANE_TAINTS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

const NO_LOAD_BALANCER_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A client from a kubeconfig. Nothing is sent yet.
pub(super) async fn client(kubeconfig: String) -> Result<Client> {
    kindnet_install::connect(&ConnectOptions {
        kubeconfig: Kubeconfig::Text(kubeconfig),
        ..ConnectOptions::default()
    })
    .await
}

/// Returns as soon as the server answers with the rights of the administrator: kubeadm from 1.29 on
/// grants them only after the first answer.
pub(super) async fn answers(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut last = "it says nothing".to_owned();
    let answers = async {
        let mut patience = API_ATTEMPT.0;
        loop {
            let attempt = tokio::time::timeout(patience, namespaces.get("kube-system"));
            match attempt.await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => {
                    "it says nothing".clone_into(&mut last);
                    patience = (patience * 2).min(API_ATTEMPT.1);
                }
            }
            tracing::trace!(last, "API server not ready");
            tokio::time::sleep(API_PAUSE).await;
        }
    };
    let answered = tokio::time::timeout(API_LIMIT, answers).await;
    answered.map_err(|_| {
        UserError::failure(format!(
            "the API server was not ready within {} seconds",
            API_LIMIT.as_secs()
        ))
        .source(last)
    })
}

/// Returns when nodes can join: kube-public/cluster-info is there and signed with the token.
pub(super) async fn joinable(client: &Client) -> Result<()> {
    let signature = format!("jws-kubeconfig-{}", names::BOOTSTRAP_TOKEN_ID);
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let config = watcher::Config::default().fields("metadata.name=cluster-info");
    let mut changes = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
    loop {
        match changes.try_next().await {
            Ok(Some(found))
                if found
                    .data
                    .as_ref()
                    .is_some_and(|d| d.contains_key(&signature)) =>
            {
                return Ok(());
            }
            Ok(Some(_)) => {}
            Ok(None) => return Err(UserError::failure("the watch on cluster-info ended")),
            // The watcher starts over by itself.
            Err(error) => tracing::debug!(%error, "watching cluster-info"),
        }
    }
}

/// Returns when all nodes have registered.
pub(super) async fn registered(client: &Client, nodes: &[String]) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let mut missing: BTreeSet<&str> = nodes.iter().map(String::as_str).collect();
    let changes = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut changes = std::pin::pin!(changes);
    while !missing.is_empty() {
        match changes.try_next().await {
            Ok(Some(node)) => {
                missing.remove(node.name_any().as_str());
            }
            Ok(None) => return Err(UserError::failure("the watch on nodes ended")),
            Err(error) => tracing::debug!(%error, "watching nodes"),
        }
    }
    Ok(())
}

/// Returns when CoreDNS has all its replicas.
pub(super) async fn dns_ready(client: &Client) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let config = watcher::Config::default().labels("k8s-app=kube-dns");
    let mut changes = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
    loop {
        match changes.try_next().await {
            Ok(Some(deployment)) if is_complete(&deployment) => return Ok(()),
            Ok(Some(_)) => {}
            Ok(None) => return Err(UserError::failure("the watch on CoreDNS ended")),
            Err(error) => tracing::debug!(%error, "watching CoreDNS"),
        }
    }
}

fn is_complete(deployment: &Deployment) -> bool {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let status = deployment.status.as_ref();
    status.and_then(|status| status.ready_replicas).unwrap_or(0) >= wanted
}

/// What is not ready and why, for who waited in vain: nodes that are missing or not Ready, and
/// pods of kube-system that do not run.
pub(super) async fn not_ready(client: &Client, nodes: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    match Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
    {
        Ok(listed) => {
            for name in nodes {
                match listed.items.iter().find(|node| &node.name_any() == name) {
                    None => found.push(format!("node {name} has not joined")),
                    Some(node) => found.extend(node_problem(node)),
                }
            }
        }
        Err(error) => found.push(format!("the API server does not answer: {error}")),
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    if let Ok(listed) = pods.list(&ListParams::default()).await {
        found.extend(listed.items.iter().filter_map(pod_problem));
    }
    found
}

fn node_problem(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    (ready.status != "True").then(|| {
        let message = ready
            .message
            .as_deref()
            .or(ready.reason.as_deref())
            .unwrap_or("unknown");
        format!("node {} is not Ready: {message}", node.name_any())
    })
}

fn pod_problem(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let failing: Vec<_> = conditions.filter(|c| c.status != "True").collect();
    if failing.is_empty() || status.phase.as_deref() == Some("Succeeded") {
        return None;
    }
    let waiting = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .find_map(|waiting| waiting.message.clone().or_else(|| waiting.reason.clone()));
    let reason = waiting
        .or_else(|| {
            failing
                .iter()
                .find_map(|c| c.message.clone().filter(|m| !m.is_empty()))
        })
        .unwrap_or_else(|| status.phase.clone().unwrap_or_default());
    Some(format!("pod {}: {reason}", pod.name_any()))
}

/// Lets pods and load balancers use the only node of a cluster.
pub(super) async fn open_single_node(client: &Client, name: &str) -> Result<()> {
    const ATTEMPTS: usize = 10;
    let what = || format!("cannot open {name} for pods");
    let api: Api<Node> = Api::all(client.clone());
    for attempt in 1.. {
        let node = match api.get(name).await {
            Ok(node) => node,
            Err(error) if attempt < ATTEMPTS => {
                tracing::debug!(%error, "will retry");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error).doing(what),
        };
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let kept: Vec<_> = taints
            .into_iter()
            .filter(|taint| !CONTROL_PLANE_TAINTS.contains(&taint.key.as_str()))
            .collect();
        // With the version, so that a taint somebody adds meanwhile is not lost.
        let patch = json!({
            "metadata": {
                "resourceVersion": node.metadata.resource_version,
                "labels": {NO_LOAD_BALANCER_LABEL: null},
            },
            "spec": {"taints": kept},
        });
        match api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => break,
            Err(error) if attempt < ATTEMPTS => {
                tracing::debug!(%error, "will retry");
                if !matches!(&error, kube::Error::Api(status) if status.code == 409) {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            Err(error) => return Err(error).doing(what),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of an API server that gives these answers, the last one for ever.
    fn server(answers: Vec<(u16, serde_json::Value)>) -> Client {
        let answers = std::sync::Arc::new(std::sync::Mutex::new(answers));
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let mut answers = answers.lock().unwrap();
            let (code, body) = match answers.len() {
                1 => answers[0].clone(),
                _ => answers.remove(0),
            };
            let response = http::Response::builder()
                .status(code)
                .body(kube::client::Body::from(body.to_string().into_bytes()));
            std::future::ready(response)
        });
        Client::new(service, "default")
    }

    fn refusal(code: u16, reason: &str) -> (u16, serde_json::Value) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": reason, "reason": reason, "code": code});
        (code, status)
    }

    /// What a client meets while kubeadm 1.29 and newer makes the administrator one.
    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_starts_is_waited_for() {
        let namespace = json!({"metadata": {"name": "kube-system"}});
        let client = server(vec![
            refusal(500, "InternalError"),
            refusal(401, "Unauthorized"),
            refusal(403, "Forbidden"),
            refusal(404, "NotFound"),
            (200, namespace),
        ]);
        answers(&client).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_accepts_the_administrator_is_given_up() {
        let began = tokio::time::Instant::now();
        let error = answers(&server(vec![refusal(403, "Forbidden")]))
            .await
            .unwrap_err();
        assert!(began.elapsed() <= API_LIMIT + API_PAUSE);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("Forbidden"), "{cause}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_node_is_opened_in_spite_of_failures() {
        let node = json!({"metadata": {"name": "a", "resourceVersion": "1"}});
        let client = server(vec![
            refusal(404, "NotFound"),
            (200, node.clone()),
            refusal(409, "Conflict"),
            (200, node.clone()),
            refusal(500, "InternalError"),
            (200, node),
        ]);
        open_single_node(&client, "a").await.unwrap();
    }

    #[test]
    fn the_reason_of_a_pod_is_what_its_container_waits_for() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "coredns-1"},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "Ready", "status": "False", "message": "not ready"}],
                "containerStatuses": [{
                    "name": "coredns", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
                }],
            },
        }))
        .unwrap();
        assert_eq!(pod_problem(&pod).unwrap(), "pod coredns-1: no such image");
    }

    #[test]
    fn a_ready_pod_is_no_problem() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        assert_eq!(pod_problem(&pod), None);
    }

    #[test]
    fn a_node_names_its_condition() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "status": {"conditions": [
                {"type": "Ready", "status": "False", "message": "cni plugin not initialized"}]},
        }))
        .unwrap();
        assert_eq!(
            node_problem(&node).unwrap(),
            "node a is not Ready: cni plugin not initialized"
        );
    }
}
