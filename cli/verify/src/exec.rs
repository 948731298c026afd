//! Runs probes inside check pods. Exec goes through API server and kubelet, so it works where the
//! pod network does not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kindnet_probe::wire::{Action, Answer, Batch, Probe};
use kube::api::AttachParams;
use kube::{Api, Client};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::evaluate::Answers;
use crate::objects::CONTAINER;
use crate::plan::{Key, pod_name};
use crate::topology::{PodState, Role, Source, Topology};

/// What an exec may take beyond its probes: a busy node starts processes slowly.
const OVERHEAD: Duration = Duration::from_secs(15);

/// Default of kube is 1 KiB, less than a single answer of a host.
const BUFFER: usize = 64 << 10;

/// Longest wait for links that are a moment old; duplicate address detection takes one to two
/// seconds (RFC 4862, section 5.4).
const SETTLE: Duration = Duration::from_secs(2);

/// Longest wait for a name outside of the cluster; the first question may have to travel far.
const UPSTREAM: Duration = Duration::from_secs(5);

/// How long probes try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Before the first attempt, for links that are a moment old.
    pub settle: Duration,
    /// One attempt.
    pub attempt: Duration,
    /// All attempts.
    pub deadline: Duration,
}

impl Patience {
    /// Attempts of at most a second, on links that may be a moment old.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self {
            settle: SETTLE,
            ..Self::on_old_links(deadline)
        }
    }

    /// Attempts of at most a second.
    #[must_use]
    pub fn on_old_links(deadline: Duration) -> Self {
        Self {
            settle: Duration::ZERO,
            attempt: deadline.min(Duration::from_secs(1)),
            deadline,
        }
    }
}

/// Asks every pod that runs for its batch, all pods at once.
pub async fn ask_all(
    client: &Client,
    topology: &Topology,
    batches: BTreeMap<Source, Vec<Action>>,
    patience: Patience,
) -> Answers {
    let asked = batches
        .iter()
        .filter(|(source, _)| {
            let pod = topology.nodes[source.node].pod(source.role);
            matches!(pod, PodState::Running(_))
        })
        .map(async |(source, actions)| {
            let mut heard: Vec<(Key, Answer)> = Vec::new();
            let listen = |key, answer| heard.push((key, answer));
            let batch = batch(actions, patience, settle(topology, *source));
            let namespace = &topology.namespace;
            let result = ask(client, namespace, *source, actions, &batch, listen).await;
            (*source, heard, result)
        });
    let mut answers = Answers::default();
    for (source, heard, result) in join_all(asked).await {
        answers.answers.extend(heard);
        if let Err(why) = result {
            answers.unreachable.insert(source, why);
        }
    }
    answers
}

/// Asks a check pod for all of its probes at once; `answered` sees each answer as it arrives.
///
/// # Errors
/// Why the pod could not be asked, or what was missing at the end.
async fn ask(
    client: &Client,
    namespace: &str,
    source: Source,
    actions: &[Action],
    batch: &Batch,
    mut answered: impl FnMut(Key, Answer),
) -> Result<(), String> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut heard = false;
        let attempt = once(client, namespace, source, batch, |answer| {
            heard = true;
            if let Some(action) = actions.get(answer.id as usize) {
                let action = action.clone();
                answered(Key { source, action }, answer);
            }
        });
        let longest = batch
            .probes
            .iter()
            .map(|p| p.deadline_ms.saturating_add(p.attempt_ms))
            .max();
        let millis = longest.unwrap_or_default().saturating_add(batch.settle_ms);
        let limit = Duration::from_millis(millis.into()) + OVERHEAD;
        let result = match tokio::time::timeout(limit, attempt).await {
            Ok(result) => result,
            Err(_) => Err(format!("exec did not end within {} s", limit.as_secs())),
        };
        match result {
            Ok(()) => return Ok(()),
            // A container that has only just started is not always known to the runtime's exec yet.
            Err(error) if !heard && tries < 3 => {
                tracing::debug!(?source, error, "exec failed, trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What has to answer before the probes of a pod begin: its own node and the servers.
fn settle(topology: &Topology, source: Source) -> Vec<IpAddr> {
    let mut hosts = Vec::new();
    for family in &topology.families {
        if source.role != Role::Host {
            hosts.extend(topology.nodes[source.node].address(*family));
        }
        let servers = topology.chosen().map(|node| &topology.nodes[node].server);
        hosts.extend(servers.filter_map(|server| server.address(*family)));
    }
    hosts
}

fn batch(actions: &[Action], patience: Patience, settle: Vec<IpAddr>) -> Batch {
    let millis = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
    Batch {
        settle,
        settle_ms: millis(patience.settle),
        probes: (0..)
            .zip(actions)
            .map(|(id, action)| Probe {
                id,
                attempt_ms: millis(patience.attempt),
                deadline_ms: millis(match action {
                    // Nobody promises that such a name resolves, so nobody waits long for it.
                    Action::Dns { expect, .. } if expect.is_empty() => {
                        patience.deadline.min(UPSTREAM)
                    }
                    _ => patience.deadline,
                }),
                action: action.clone(),
            })
            .collect(),
    }
}

async fn once(
    client: &Client,
    namespace: &str,
    source: Source,
    batch: &Batch,
    mut answered: impl FnMut(Answer),
) -> Result<(), String> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let params = AttachParams::default()
        .container(CONTAINER)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .max_stdin_buf_size(BUFFER)
        .max_stdout_buf_size(BUFFER);
    let mut process = pods
        .exec(&pod_name(source), ["kindnet-probe", "run"], &params)
        .await
        .map_err(|e| e.to_string())?;
    let missing = || "exec gave no streams".to_owned();
    // Dropping standard input would end the connection on API servers before protocol v5.
    let mut stdin = process.stdin().ok_or_else(missing)?;
    let stdout = process.stdout().ok_or_else(missing)?;
    let mut stderr = process.stderr().ok_or_else(missing)?;
    let status = process.take_status();

    let mut line = serde_json::to_vec(batch).map_err(|e| e.to_string())?;
    line.push(b'\n');
    let send = async {
        stdin.write_all(&line).await?;
        stdin.flush().await
    };
    let receive = async {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str::<Answer>(&line) {
                Ok(answer) if answer.id == Answer::END => return true,
                Ok(answer) => answered(answer),
                Err(error) => tracing::debug!(line, %error, "not an answer"),
            }
        }
        false
    };
    let (sent, complete) = futures_util::join!(send, receive);
    if complete {
        return Ok(());
    }
    let mut complaint = String::new();
    let _ = tokio::time::timeout(
        Duration::from_secs(1),
        (&mut stderr).take(4096).read_to_string(&mut complaint),
    )
    .await;
    if let Some(line) = complaint.lines().find(|l| !l.trim().is_empty()) {
        return Err(line.trim().to_owned());
    }
    if let Some(status) = status
        && let Some(message) = status.await.and_then(|s| s.message)
    {
        return Err(message);
    }
    match sent {
        Err(error) => Err(format!("exec ended early: {error}")),
        Ok(()) => Err("exec ended before all probes had answered".to_owned()),
    }
}
