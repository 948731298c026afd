//! Why a pod is not ready, in a few lines.

use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kindnet_api::names;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::timeout;

/// Lines of a log that are shown.
const LOG_LINES: i64 = 4;
/// Pods that are described; on a big cluster the rest fails for the same reason.
const PODS: usize = 4;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Describes the pods with this label that are not ready, each with its node, its reason and the
/// end of its log. Empty when all are ready or nothing can be found out.
pub(crate) async fn pods(client: &Client, selector: &str) -> String {
    let api = Api::<Pod>::namespaced(client.clone(), names::NAMESPACE);
    let params = ListParams::default().labels(selector);
    let Ok(Ok(list)) = timeout(REQUEST_TIMEOUT, api.list(&params)).await else {
        return String::new();
    };
    let failing: Vec<&Pod> = list.iter().filter(|pod| !is_ready(pod)).collect();
    let mut text = String::new();
    for pod in failing.iter().take(PODS) {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
        let _ = write!(
            text,
            "\n  pod {} on {}: {}",
            pod.name_any(),
            node.unwrap_or("no node"),
            reason(pod)
        );
        for line in log(&api, pod).await {
            let _ = write!(text, "\n    | {line}");
        }
    }
    if failing.len() > PODS {
        let _ = write!(text, "\n  and {} more", failing.len() - PODS);
    }
    text
}

/// Describes the nodes that are not Ready.
pub(crate) fn nodes<'a>(nodes: impl Iterator<Item = &'a Node>) -> String {
    let mut text = String::new();
    for node in nodes {
        let Some(condition) = ready_condition(node).filter(|c| c.0 != "True") else {
            continue;
        };
        let _ = write!(text, "\n  node {}: {}", node.name_any(), condition.1);
    }
    text
}

/// Status and message of the condition Ready.
pub(crate) fn ready_condition(node: &Node) -> Option<(&str, &str)> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
    Some((
        &ready.status,
        ready.message.as_deref().unwrap_or("not Ready"),
    ))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    })
}

/// The most telling thing the API server knows about a pod that is not ready.
fn reason(pod: &Pod) -> String {
    for container in statuses(pod) {
        let state = container.state.as_ref();
        let waiting = state.and_then(|s| s.waiting.as_ref());
        if let Some(waiting) = waiting
            && waiting.reason.as_deref() != Some("PodInitializing")
        {
            let mut text = waiting.reason.clone().unwrap_or_else(|| "waiting".into());
            if let Some(message) = &waiting.message {
                let _ = write!(text, ": {message}");
            }
            return text;
        }
        if let Some(ended) = state.and_then(|s| s.terminated.as_ref())
            && ended.exit_code != 0
        {
            return format!("exited with code {}", ended.exit_code);
        }
    }
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let unscheduled = conditions
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(message) = unscheduled.and_then(|c| c.message.as_deref()) {
        return format!("not scheduled: {message}");
    }
    if statuses(pod).any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some())) {
        return "running, but its readiness probe fails".into();
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.unwrap_or("unknown").to_lowercase()
}

async fn log(api: &Api<Pod>, pod: &Pod) -> Vec<String> {
    let Some(container) = statuses(pod).find(|c| !c.ready && !c.image_id.is_empty()) else {
        return Vec::new();
    };
    // While a container waits to be restarted, what it said before it ended is what matters.
    let state = container.state.as_ref();
    let params = LogParams {
        container: Some(container.name.clone()),
        tail_lines: Some(LOG_LINES),
        previous: container.restart_count > 0 && state.is_some_and(|s| s.waiting.is_some()),
        ..LogParams::default()
    };
    match timeout(REQUEST_TIMEOUT, api.logs(&pod.name_any(), &params)).await {
        Ok(Ok(text)) => text.lines().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": status })).unwrap()
    }

    #[rstest]
    #[case::pull(
        json!({ "containerStatuses": [{ "state": { "waiting": {
            "reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\"" } } }] }),
        "ImagePullBackOff: Back-off pulling image \"x\""
    )]
    #[case::init(
        json!({
            "initContainerStatuses": [{ "state": { "waiting": { "reason": "CrashLoopBackOff" } } }],
            "containerStatuses": [{ "state": { "waiting": { "reason": "PodInitializing" } } }],
        }),
        "CrashLoopBackOff"
    )]
    #[case::unscheduled(
        json!({ "phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available" }] }),
        "not scheduled: 0/1 nodes are available"
    )]
    #[case::probe(
        json!({ "containerStatuses": [{ "state": { "running": {} } }] }),
        "running, but its readiness probe fails"
    )]
    #[case::nothing(json!({ "phase": "Pending" }), "pending")]
    fn reasons(#[case] status: Value, #[case] expected: &str) {
        assert_eq!(reason(&pod(status)), expected);
    }

    #[test]
    fn a_node_is_described_by_its_condition() {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": "n" },
            "status": { "conditions": [{ "type": "Ready", "status": "False",
                "message": "cni plugin not initialized" }] },
        }))
        .unwrap();
        let text = nodes([&node].into_iter());
        assert_eq!(text, "\n  node n: cni plugin not initialized");
    }
}
