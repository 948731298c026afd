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

/// Runs the checks on a broken cluster; the failed ones have to be these, no more and no fewer.
fn expect_failed(cluster: &Cluster, expected: &[&str]) -> Result<VerifyReport> {
    let report = cluster.verify(&[])?;
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let failed = report.failed();
    ensure!(
        report.code == 1 && failed == expected,
        "failed: {failed:?}\nexpected to fail: {expected:?}\n{}",
        report.text
    );
    Ok(report)
}

/// One node no longer knows the way to the pods of the other. Whatever crosses the nodes without
/// being masqueraded fails; everything inside a node and everything through a node's address works.
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
    // DNS and Services pick a pod that may be on either side, so they are not asked.
    let report = cluster.verify(&["--only", "pod.*", "--only", "node.*"])?;
    for (version, route) in lost {
        worker.shell(&format!("ip -{version} route add {route} proto 107"))?;
    }
    let expected = BTreeSet::from([
        "node.routes",
        "node.to-remote-pod",
        "pod.cross-node.body",
        "pod.cross-node.icmp",
        "pod.cross-node.mtu",
        "pod.cross-node.tcp",
        "pod.cross-node.udp",
    ]);
    ensure!(
        report.code == 1 && report.failed() == expected,
        "{}",
        report.text
    );
    let peer = cluster.worker().name;
    ensure!(
        report.text.contains("no route") && report.text.contains(&peer),
        "nothing says that {peer} has no route: {}",
        report.text
    );
    Ok(())
}

/// Pods leave the cluster with their own addresses.
pub fn verify_sees_flushed_masquerade(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    stop_agents(cluster)?;
    let saved = "/root/kindnet-masq";
    let each = |script: &dyn Fn(&str) -> String| -> Result<()> {
        for node in cluster.nodes() {
            for version in cluster.family.versions() {
                node.shell(&script(iptables(version)))?;
            }
        }
        Ok(())
    };
    each(&|table| {
        format!(
            "(echo '*nat'; {table}-save -t nat | grep -e '-A KINDNET-MASQ'; echo COMMIT) > \
             {saved}.{table} && {table} -t nat -F KINDNET-MASQ"
        )
    })?;
    let result = expect_failed(cluster, &["outside.source"]);
    each(&|table| format!("{table}-restore --noflush < {saved}.{table}"))?;
    result.map(drop)
}

/// The link between the nodes carries less than the pods were told. TCP finds out by itself (path
/// MTU discovery), a full packet with DF does not get through.
pub fn verify_sees_a_small_mtu(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    stop_agents(cluster)?;
    let set = |mtu: u32| -> Result<()> {
        for node in cluster.nodes() {
            node.shell(&format!("ip link set eth0 mtu {mtu}"))?;
        }
        Ok(())
    };
    set(1400)?;
    let result = expect_failed(cluster, &["node.conflist", "pod.cross-node.mtu"]);
    set(1500)?;
    result.map(drop)
}

/// A filter on a node drops what is sent to its NodePorts.
pub fn verify_sees_a_blocked_port(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    stop_agents(cluster)?;
    let worker = cluster.worker();
    let rule = |verb: &str| -> Result<()> {
        for version in cluster.family.versions() {
            let table = iptables(version);
            worker.shell(&format!(
                "{table} -t raw {verb} PREROUTING -p tcp --dport 30000:32767 -m addrtype \
                 --dst-type LOCAL -j DROP"
            ))?;
        }
        Ok(())
    };
    rule("-I")?;
    let result = expect_failed(cluster, &["service.node-port"]);
    rule("-D")?;
    result.map(drop)
}

/// The Configuration comes back: the agents take over what was left broken.
pub fn agent_repairs_everything(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    cluster.install()?;
    cluster.verify(&[])?.all_passed()
}
