//! Waits for the network to work.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::select_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kindnet_api::{Configuration, names};
use kindnet_ui::{Child, Ui, UserError};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::diagnose;
use crate::watch::{follow, listed, until};

/// The state that was waited for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// Nodes that are Ready: all there are.
    pub nodes: usize,
    /// Agents that are ready and run what the Configuration asks for.
    pub agents: usize,
    /// Seconds it took.
    pub seconds: f64,
}

/// Watches until the controller is available, every agent is up to date and ready, and every Node
/// is Ready. One line per kind of thing is shown.
///
/// # Errors
/// `limit` passed, naming the pods and nodes that are not ready and why, with the last lines of
/// their logs; the controller refuses the Configuration; cancelled.
pub async fn wait_ready(
    client: &Client,
    limit: Duration,
    ui: &Ui,
    cancel: &CancellationToken,
) -> Result<Readiness, UserError> {
    cancel
        .run_until_cancelled(wait(client, limit, ui))
        .await
        .unwrap_or_else(|| Err(UserError::interrupted()))
}

async fn wait(client: &Client, limit: Duration, ui: &Ui) -> Result<Readiness, UserError> {
    let began = Instant::now();
    let only = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let (deployments, deployment_changes) = follow(
        Api::<Deployment>::namespaced(client.clone(), names::NAMESPACE),
        only(names::CONTROLLER_NAME),
    );
    let (configurations, configuration_changes) = follow(
        Api::<Configuration>::namespaced(client.clone(), names::NAMESPACE),
        only(names::CONFIGURATION_NAME),
    );
    let (nodes, node_changes) =
        follow(Api::<Node>::all(client.clone()), watcher::Config::default());

    let step = ui.step("Waiting for the network");
    let mut controller_line = Line::new(step.child("controller"));
    let mut agents_line = Line::new(step.child("agents"));
    let mut nodes_line = Line::new(step.child("nodes"));
    let mut last = None;
    let changes = select_all([deployment_changes, configuration_changes, node_changes]);
    let finished = until(changes, limit, || {
        let nodes = listed(&nodes).unwrap_or_default();
        let parts = Parts {
            controller: controller(listed(&deployments).as_deref().and_then(first)),
            agents: agents(listed(&configurations).as_deref().and_then(first)),
            nodes: nodes_ready(&nodes),
        };
        controller_line.show(&parts.controller);
        agents_line.show(&parts.agents);
        nodes_line.show(&parts.nodes);
        let end = match (&parts.controller, &parts.agents, &parts.nodes) {
            (Part::Done(..), Part::Done(agents, _), Part::Done(nodes, _)) => Some(Ok(Readiness {
                nodes: *nodes,
                agents: *agents,
                seconds: began.elapsed().as_secs_f64(),
            })),
            (_, Part::Failed(reason, why), _) => Some(Err(refused(reason, why))),
            _ => None,
        };
        last = Some(parts);
        end
    })
    .await;
    match finished {
        Ok(Ok(readiness)) => {
            step.done();
            Ok(readiness)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            drop((controller_line, agents_line, nodes_line, step));
            Err(timed_out(client, limit, last, &listed(&nodes).unwrap_or_default()).await)
        }
    }
}

fn refused(reason: &str, why: &str) -> UserError {
    if reason == "ApplyFailed" {
        UserError::failure(format!(
            "the API server refuses the agents' DaemonSet: {why}"
        ))
        .hint(
            "one of another origin may be in its way: \
             kubectl -n kube-system delete daemonset kindnetd",
        )
    } else {
        UserError::failure(format!("the controller refuses the Configuration: {why}"))
            .hint("correct it: kubectl -n kube-system edit configurations.kindnet.io kindnet")
    }
}

async fn timed_out(
    client: &Client,
    limit: Duration,
    last: Option<Parts>,
    nodes: &[Arc<Node>],
) -> UserError {
    let mut text = format!("the network is not ready after {} s", limit.as_secs());
    for (what, part) in last.iter().flat_map(Parts::all) {
        if let Part::Waiting(why) = part {
            text.push_str(&format!("\n  {what}: {why}"));
        }
    }
    text.push_str(&diagnose::pods(client, "app.kubernetes.io/part-of=kindnet").await);
    text.push_str(&diagnose::nodes(nodes.iter().map(AsRef::as_ref)));
    UserError::failure(text).hint(
        "`kubectl -n kube-system describe configurations.kindnet.io kindnet` shows what the \
         controller saw; a longer wait may be all it needs",
    )
}

/// How far one of the three things is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// With this many of it.
    Done(usize, String),
    Waiting(String),
    /// Reason and message of the condition Degraded; waiting does not help.
    Failed(String, String),
}

struct Parts {
    controller: Part,
    agents: Part,
    nodes: Part,
}

impl Parts {
    fn all(&self) -> [(&'static str, &Part); 3] {
        [
            ("controller", &self.controller),
            ("agents", &self.agents),
            ("nodes", &self.nodes),
        ]
    }
}

/// Shows a part once it is done, and again should it fall back.
struct Line(Option<Child>);

impl Line {
    const fn new(child: Child) -> Self {
        Self(Some(child))
    }

    fn show(&mut self, part: &Part) {
        match (part, &self.0) {
            (Part::Done(_, text), Some(_)) => {
                if let Some(child) = self.0.take() {
                    child.done_with(text);
                }
            }
            (Part::Waiting(text) | Part::Failed(_, text), Some(child)) => {
                child.message(text.clone())
            }
            (_, None) => {}
        }
    }
}

fn first<K>(objects: &[Arc<K>]) -> Option<&K> {
    objects.first().map(AsRef::as_ref)
}

fn controller(deployment: Option<&Deployment>) -> Part {
    let Some(deployment) = deployment else {
        return Part::Waiting("no Deployment kindnet-controller".into());
    };
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|s| s.replicas)
        .unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let current = status.observed_generation >= deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let total = status.replicas.unwrap_or(0);
    if current && updated >= wanted && available >= wanted && total <= updated {
        Part::Done(usize::try_from(available).unwrap_or(0), "available".into())
    } else {
        Part::Waiting(format!("{available} of {wanted} available"))
    }
}

/// The controller's own word counts, not the DaemonSet: right after a change the DaemonSet may still
/// be the old one, ready and up to date.
fn agents(configuration: Option<&Configuration>) -> Part {
    let Some(configuration) = configuration else {
        return Part::Waiting("no Configuration".into());
    };
    let status = configuration
        .status
        .as_ref()
        .filter(|s| s.observed_generation == configuration.metadata.generation);
    let Some(status) = status else {
        return Part::Waiting("the controller has not seen the Configuration yet".into());
    };
    let is = |kind: &str| {
        let found = status.conditions.iter().find(|c| c.type_ == kind);
        found.filter(|c| c.status == "True")
    };
    if let Some(degraded) = is("Degraded")
        && matches!(
            degraded.reason.as_str(),
            "InvalidConfiguration" | "ApplyFailed"
        )
    {
        return Part::Failed(degraded.reason.clone(), degraded.message.clone());
    }
    let text = format!("{} of {} ready", status.ready_nodes, status.desired_nodes);
    if is("Ready").is_some() && is("Progressing").is_none() && status.desired_nodes > 0 {
        return Part::Done(usize::try_from(status.ready_nodes).unwrap_or(0), text);
    }
    Part::Waiting(text)
}

fn nodes_ready(nodes: &[Arc<Node>]) -> Part {
    let ready = nodes
        .iter()
        .filter(|n| diagnose::ready_condition(n).is_some_and(|c| c.0 == "True"))
        .count();
    let text = format!("{ready} of {} Ready", nodes.len());
    if ready == nodes.len() && ready > 0 {
        Part::Done(ready, text)
    } else {
        Part::Waiting(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// Generation, observed generation, conditions that are True, desired, ready.
    fn configuration(observed: i64, true_ones: &[&str], desired: i32, ready: i32) -> Configuration {
        let condition = |kind: &str| {
            json!({
                "type": kind,
                "status": if true_ones.contains(&kind) { "True" } else { "False" },
                "reason": if kind == "Degraded" { "InvalidConfiguration" } else { "X" },
                "message": "why",
                "lastTransitionTime": "2024-01-01T00:00:00Z",
            })
        };
        let conditions = ["Ready", "Progressing", "Degraded"].map(condition);
        serde_json::from_value(json!({
            "apiVersion": "kindnet.io/v1alpha1", "kind": "Configuration",
            "metadata": { "name": "kindnet", "generation": 2 },
            "spec": { "kindnetdImage": "i" },
            "status": {
                "observedGeneration": observed,
                "desiredNodes": desired, "updatedNodes": desired, "readyNodes": ready,
                "conditions": conditions,
            },
        }))
        .unwrap()
    }

    #[rstest]
    #[case::ready(2, &["Ready"], 2, 2, "done")]
    #[case::stale(1, &["Ready"], 2, 2, "waiting")]
    #[case::rolling(2, &["Ready", "Progressing"], 2, 2, "waiting")]
    #[case::not_ready(2, &["Progressing"], 2, 1, "waiting")]
    #[case::no_agents(2, &["Ready"], 0, 0, "waiting")]
    #[case::refused(2, &["Degraded"], 2, 2, "failed")]
    fn agent_states(
        #[case] observed: i64,
        #[case] true_ones: &[&str],
        #[case] desired: i32,
        #[case] ready: i32,
        #[case] expected: &str,
    ) {
        let part = agents(Some(&configuration(observed, true_ones, desired, ready)));
        let name = match part {
            Part::Done(..) => "done",
            Part::Waiting(_) => "waiting",
            Part::Failed(..) => "failed",
        };
        assert_eq!(name, expected);
    }

    #[rstest]
    #[case::available(2, 2, 1, 1, 1, true)]
    #[case::not_seen(2, 1, 1, 1, 1, false)]
    #[case::old_one_left(2, 2, 2, 1, 2, false)]
    #[case::not_available(2, 2, 1, 1, 0, false)]
    fn controller_states(
        #[case] generation: i64,
        #[case] observed: i64,
        #[case] replicas: i32,
        #[case] updated: i32,
        #[case] available: i32,
        #[case] done: bool,
    ) {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "generation": generation },
            "spec": { "replicas": 1, "selector": {}, "template": {} },
            "status": { "observedGeneration": observed, "replicas": replicas,
                "updatedReplicas": updated, "availableReplicas": available },
        }))
        .unwrap();
        assert_eq!(
            matches!(controller(Some(&deployment)), Part::Done(..)),
            done
        );
    }

    #[test]
    fn a_cluster_without_nodes_is_not_ready() {
        assert_eq!(nodes_ready(&[]), Part::Waiting("0 of 0 Ready".into()));
    }
}
