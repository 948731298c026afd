//! Damage done on purpose: `kindnetctl verify` has to name it, and the agent has to repair it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kindnet_testenv::{Cluster, Node, VerifyReport, eventually};

use crate::suite::Stage;

/// How long the agent may take to see and mend damage.
const REPAIR: Duration = Duration::from_secs(15);

/// iptables command of an IP version.
fn iptables(version: &str) -> &'static str {
    if version == "4" {
        "iptables"
    } else {
        "ip6tables"
    }
}

/// The routes of the agent on a node.
fn routes(node: &Node, version: &str) -> Result<BTreeSet<String>> {
    let text = node.shell(&format!("ip -{version} route show proto 107"))?;
    Ok(text.lines().map(|l| l.trim().to_owned()).collect())
}

fn masquerade(node: &Node, version: &str) -> Result<String> {
    node.shell(&format!(
        "{}-save -t nat | grep -E 'KINDNET-MASQ' | grep -v '^:' ; true",
        iptables(version)
    ))
}

pub fn agent_repairs_routes(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let worker = cluster.worker();
    for version in cluster.family.versions() {
        let before = routes(&worker, version)?;
        ensure!(
            before.len() == 1,
            "expected one route to the other node: {before:?}"
        );
        worker.shell(&format!("ip -{version} route flush proto 107"))?;
        let took = eventually("the route is back", REPAIR, || {
            let now = routes(&worker, version)?;
            ensure!(now == before, "{now:?}");
            Ok(())
        })?;
        eprintln!("IPv{version} route back after {took:?}");
    }
    Ok(())
}

pub fn agent_repairs_masquerade(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let worker = cluster.worker();
    for version in cluster.family.versions() {
        let before = masquerade(&worker, version)?;
        ensure!(before.contains("MASQUERADE"), "no masquerading: {before}");
        let table = iptables(version);
        for damage in [
            format!("{table} -t nat -F KINDNET-MASQ"),
            format!("{table} -t nat -F POSTROUTING"),
        ] {
            worker.shell(&damage)?;
            let took = eventually(&damage, REPAIR, || {
                let now = masquerade(&worker, version)?;
                ensure!(now == before, "{now}");
                Ok(())
            })?;
            eprintln!("`{damage}` mended after {took:?}");
        }
    }
    Ok(())
}

pub fn agent_repairs_conflist(stage: &mut Stage) -> Result<()> {
    let worker = stage.cluster()?.worker();
    let file = "/etc/cni/net.d/10-kindnet.conflist";
    let before = worker.shell(&format!("cat {file}"))?;
    for damage in [
        format!("rm {file}"),
        format!("echo '{{}}' > {file}"),
        format!("rm -r {}", "/etc/cni/net.d/*"),
    ] {
        worker.shell(&damage)?;
        let took = eventually(&damage, REPAIR, || {
            let now = worker.shell(&format!("cat {file}"))?;
            ensure!(now == before, "{now}");
            Ok(())
        })?;
        eprintln!("`{damage}` mended after {took:?}");
    }
    Ok(())
}

/// Removes the agents without a trace of repair: the Configuration goes, its DaemonSet with it, and
/// what they did to the kernels stays.
fn stop_agents(cluster: &Cluster) -> Result<()> {
    cluster
        .kubectl(&[
            "-n",
            "kube-system",
            "delete",
            "configuration",
            "kindnet",
            "--ignore-not-found",
        ])?
        .success()?;
    eventually("the agents are gone", Duration::from_secs(60), || {
        let pods = cluster
            .kubectl(&[
                "-n",
                "kube-system",
                "get",
                "pods",
                "-l",
                "app.kubernetes.io/name=kindnetd",
                "-o",
                "name",
            ])?
            .success()?;
        ensure!(pods.trim().is_empty(), "{pods}");
        Ok(())
    })?;
    Ok(())
}

/// The report of a run that has to fail.
fn failing(cluster: &Cluster) -> Result<VerifyReport> {
    let report = cluster.verify(&[])?;
    ensure!(report.code == 1, "expected failed checks: {}", report.text);
    Ok(report)
}

/// The failed checks have to be these, no more and no fewer.
fn expect_failed(report: &VerifyReport, expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let failed = report.failed();
    ensure!(
        failed == expected,
        "failed: {failed:?}\nexpected to fail: {expected:?}\n{}",
        report.text
    );
    Ok(())
}

pub fn verify_sees_a_missing_route(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    stop_agents(cluster)?;
    let worker = cluster.worker();
    let mut lost = Vec::new();
    for version in cluster.family.versions() {
        let route = routes(&worker, version)?
            .into_iter()
            .next()
            .context("no route to delete")?;
        worker.shell(&format!("ip -{version} route flush proto 107"))?;
        lost.push((version, route));
    }
    let report = failing(cluster)?;
    for (version, route) in lost {
        worker.shell(&format!("ip -{version} route add {route}"))?;
    }
    expect_failed(&report, &[])
}

pub fn verify_sees_flushed_masquerade(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    stop_agents(cluster)?;
    for node in cluster.nodes() {
        for version in cluster.family.versions() {
            node.shell(&format!("{} -t nat -F KINDNET-MASQ", iptables(version)))?;
        }
    }
    let report = failing(cluster)?;
    expect_failed(&report, &[])
}

pub fn verify_sees_a_small_mtu(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    stop_agents(cluster)?;
    let worker = cluster.worker();
    worker.shell("ip link set eth0 mtu 1400")?;
    let report = failing(cluster);
    worker.shell("ip link set eth0 mtu 1500")?;
    expect_failed(&report?, &[])
}

pub fn verify_sees_a_blocked_port(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    stop_agents(cluster)?;
    let worker = cluster.worker();
    let report = failing(cluster)?;
    drop(worker);
    expect_failed(&report, &[])
}

/// The Configuration comes back: the agents take over what was left broken.
pub fn agent_repairs_everything(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let context = format!("kind-{}", cluster.name);
    let image = cluster.environment.kindnet_image.clone();
    cluster
        .kindnetctl(&["install", "--context", &context, "--image", &image])?
        .success()?;
    let report = cluster.verify(&[])?;
    ensure!(report.code == 0, "{}", report.text);
    Ok(())
}
