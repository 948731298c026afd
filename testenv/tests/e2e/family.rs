//! What every cluster has to do, in each address family.

use std::time::Duration;

use anyhow::{Result, ensure};
use kindnet_testenv::{Family, eventually};

use crate::suite::{Stage, Suite};
use crate::{damage, plugins};

/// The suite of one family.
pub fn suite(name: &'static str, family: Family) -> Suite {
    Suite {
        name,
        family,
        tests: vec![
            ("up", up),
            ("verify_passes", verify_passes),
            ("agent_repairs_routes", damage::agent_repairs_routes),
            ("agent_repairs_masquerade", damage::agent_repairs_masquerade),
            ("agent_repairs_conflist", damage::agent_repairs_conflist),
            (
                "verify_sees_a_missing_route",
                damage::verify_sees_a_missing_route,
            ),
            (
                "verify_sees_flushed_masquerade",
                damage::verify_sees_flushed_masquerade,
            ),
            ("verify_sees_a_small_mtu", damage::verify_sees_a_small_mtu),
            (
                "verify_sees_a_blocked_port",
                damage::verify_sees_a_blocked_port,
            ),
            ("agent_repairs_everything", damage::agent_repairs_everything),
            (
                "controller_repairs_the_daemonset",
                controller_repairs_the_daemonset,
            ),
            (
                "controller_reports_a_bad_configuration",
                controller_reports_a_bad_configuration,
            ),
            ("uninstall_leaves_no_trace", uninstall_leaves_no_trace),
            ("install_brings_it_back", install_brings_it_back),
            ("addresses_come_back", plugins::addresses_come_back),
            (
                "plugins_change_under_running_pods",
                plugins::change_under_running_pods,
            ),
            ("down", down),
        ],
    }
}

fn up(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let nodes = cluster
        .kubectl(&[
            "get",
            "nodes",
            "-o",
            "jsonpath={.items[*].status.conditions[-1:].status}",
        ])?
        .success()?;
    ensure!(nodes == "True True", "not every node is Ready: {nodes}");
    let containers =
        cluster.kindnetctl(&["get", "nodes", "--name", &cluster.name, "-o", "json"])?;
    let containers = containers.success()?;
    for node in cluster.nodes() {
        ensure!(
            containers.contains(&node.name),
            "{} is not in {containers}",
            node.name
        );
    }
    Ok(())
}

fn verify_passes(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let report = cluster.verify(&[])?;
    report.all_passed()?;
    ensure!(
        report.passed().len() >= 15,
        "only {:?} were checked",
        report.passed()
    );
    Ok(())
}

fn controller_repairs_the_daemonset(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    cluster
        .kubectl(&["-n", "kube-system", "delete", "daemonset", "kindnetd"])?
        .success()?;
    eventually(
        "the DaemonSet is back and ready",
        Duration::from_secs(60),
        || {
            let counts = cluster
                .kubectl(&[
                    "-n",
                    "kube-system",
                    "get",
                    "daemonset",
                    "kindnetd",
                    "-o",
                    "jsonpath={.status.desiredNumberScheduled}/{.status.numberReady}",
                ])?
                .success()?;
            ensure!(counts == "2/2", "{counts}");
            Ok(())
        },
    )?;
    Ok(())
}

fn controller_reports_a_bad_configuration(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let path = r#"jsonpath={.status.conditions[?(@.type=="Degraded")].status}"#;
    let get = [
        "-n",
        "kube-system",
        "get",
        "configuration",
        "kindnet",
        "-o",
        path,
    ];
    let degraded = |expected: &'static str| {
        eventually("the condition follows", Duration::from_secs(60), || {
            let status = cluster.kubectl(&get)?.success()?;
            ensure!(status == expected, "Degraded is {status:?}");
            Ok(())
        })
    };
    cluster.configure(r#"{"masquerade":{"nonMasqueradeCIDRs":["10.0.0.0/99"]}}"#)?;
    degraded("True")?;
    cluster.configure(r#"{"masquerade":{"nonMasqueradeCIDRs":[]}}"#)?;
    degraded("False")?;
    Ok(())
}

fn uninstall_leaves_no_trace(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let context = format!("kind-{}", cluster.name);
    cluster
        .kindnetctl(&["uninstall", "--context", &context])?
        .success()?;
    for node in cluster.nodes() {
        let left = node.shell(
            "ls /etc/cni/net.d; ip -4 route show proto 107; ip -6 route show proto 107; \
             iptables-save | grep KINDNET; ip6tables-save | grep KINDNET; true",
        )?;
        ensure!(left.trim().is_empty(), "left on {}:\n{left}", node.name);
    }
    let objects = cluster
        .kubectl(&[
            "get",
            "crd,clusterrole,clusterrolebinding,deploy,ds,sa,role,rolebinding,lease",
            "-A",
            "-o",
            "name",
        ])?
        .success()?;
    let ours: Vec<_> = objects.lines().filter(|o| o.contains("kindnet")).collect();
    ensure!(ours.is_empty(), "left in the API: {ours:?}");
    Ok(())
}

fn install_brings_it_back(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    cluster.install()?;
    cluster.verify(&[])?.all_passed()
}

fn down(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    cluster
        .kindnetctl(&["down", "--name", &cluster.name])?
        .success()?;
    // Once more: there is nothing left to do, and that is no error.
    cluster
        .kindnetctl(&["down", "--name", &cluster.name])?
        .success()?;
    let clusters = cluster.kindnetctl(&["get", "clusters"])?.success()?;
    ensure!(!clusters.contains(&cluster.name), "{clusters}");
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).unwrap_or_default();
    ensure!(
        !kubeconfig.contains(&cluster.name),
        "still in the kubeconfig:\n{kubeconfig}"
    );
    Ok(())
}
