//! The CNI plugins under real pods.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kindnet_testenv::{Cluster, eventually};
use serde_json::Value;

use crate::suite::Stage;

/// Pods of a crowd; enough to be attached and detached at the same time.
const CROWD: usize = 20;

/// A pod of the kindnet image on a node.
fn pod(cluster: &Cluster, name: &str, node: &str, command: &str) -> String {
    let image = &cluster.environment.kindnet_image;
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{crowd: e2e}}}}
spec:
  nodeName: {node}
  containers:
  - {{name: probe, image: '{image}', command: {command}}}
"
    )
}

const SERVE: &str = "[kindnet-probe, serve, --port, '7200']";

/// Pods of the pod network on a node, as the API knows them.
fn pods_on(cluster: &Cluster, node: &str) -> Result<usize> {
    let selector = format!("--field-selector=spec.nodeName={node}");
    let text = cluster
        .kubectl(&["get", "pods", "-A", &selector, "-o", "json"])?
        .success()?;
    let list: Value = serde_json::from_str(&text)?;
    let items = list["items"].as_array().context("no list")?;
    Ok(items
        .iter()
        .filter(|pod| pod["spec"]["hostNetwork"] != true)
        .count())
}

/// Pods that run, crash over and over, and are deleted by force: every address returns, and so does
/// every link.
pub fn addresses_come_back(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let worker = cluster.worker();
    let mut manifest = pod(cluster, "crash", &worker.name, "['false']");
    for n in 0..CROWD {
        write!(
            manifest,
            "{}",
            pod(cluster, &format!("crowd-{n}"), &worker.name, SERVE)
        )?;
    }
    cluster.apply(&manifest)?;
    eventually("the crowd runs", Duration::from_secs(120), || {
        let get = [
            "get",
            "pods",
            "-l",
            "crowd=e2e",
            "-o",
            "jsonpath={.items[*].status.phase}",
        ];
        let phases = cluster.kubectl(&get)?.success()?;
        let running = phases
            .split_whitespace()
            .filter(|p| *p == "Running")
            .count();
        ensure!(running >= CROWD, "{phases}");
        Ok(())
    })?;
    let delete = [
        "delete",
        "pods",
        "-l",
        "crowd=e2e",
        "--grace-period=0",
        "--force",
    ];
    cluster.kubectl(&delete)?.success()?;
    let count = |what: &str| -> Result<usize> { Ok(worker.shell(what)?.trim().parse()?) };
    eventually(
        "nothing is left of the crowd",
        Duration::from_secs(60),
        || {
            let pods = pods_on(cluster, &worker.name)?;
            let attachments = count("ls /run/kindnet-cni/kindnet/attachments | wc -l")?;
            let links = count("ip -o link show type veth | grep -c ' kn-' || true")?;
            ensure!(
                attachments == pods && links == pods,
                "{pods} pods, {attachments} attachments, {links} links"
            );
            Ok(())
        },
    )?;
    Ok(())
}

/// To the standard plugins and back, with a pod that must not notice, and whose address nobody else
/// may get.
pub fn change_under_running_pods(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    cluster.apply(&pod(cluster, "bystander", &cluster.worker().name, SERVE))?;
    let get = |path: &str| {
        cluster
            .kubectl(&["get", "pod", "bystander", "-o", &format!("jsonpath={path}")])?
            .success()
    };
    let state = "{.status.phase} {.status.podIPs} {.status.containerStatuses[0].restartCount}";
    eventually("the bystander runs", Duration::from_secs(60), || {
        let now = get(state)?;
        ensure!(now.starts_with("Running"), "{now}");
        Ok(())
    })?;
    let before = get(state)?;
    for (plugin, marker) in [("standard", "host-local"), ("kindnet", "kindnet-cni")] {
        cluster.configure(&format!(r#"{{"cni":{{"plugin":"{plugin}"}}}}"#))?;
        eventually(
            "every node uses the plugin",
            Duration::from_secs(120),
            || {
                for node in cluster.nodes() {
                    let conflist = node.shell("cat /etc/cni/net.d/10-kindnet.conflist")?;
                    ensure!(conflist.contains(marker), "{}: {conflist}", node.name);
                }
                Ok(())
            },
        )?;
        cluster
            .verify(&[])?
            .all_passed()
            .with_context(|| format!("with {plugin}"))?;
        let now = get(state)?;
        ensure!(now == before, "the bystander was {before}, and is {now}");
    }
    let delete = ["delete", "pod", "bystander", "--grace-period=0", "--force"];
    cluster.kubectl(&delete)?.success().map(drop)
}
