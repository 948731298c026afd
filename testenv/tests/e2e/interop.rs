//! kind and kindnetctl work on each other's clusters.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kindnet_testenv::{Family, Tool, eventually};

use crate::suite::{Stage, Suite};

/// The suite: a cluster made by kind, with the manifests applied by kubectl, then one of ours
/// handed to kind.
pub fn suite() -> Suite {
    Suite {
        name: "interop",
        family: Family::Dual,
        tests: vec![
            ("kind_makes_a_cluster", kind_makes_a_cluster),
            ("kindnetctl_lists_it", kindnetctl_lists_it),
            ("kindnetctl_loads_into_it", kindnetctl_loads_into_it),
            ("kubectl_installs_kindnet", kubectl_installs_kindnet),
            ("kindnetctl_verifies_it", kindnetctl_verifies_it),
            ("kindnetctl_exports_its_logs", kindnetctl_exports_its_logs),
            ("kindnetctl_deletes_it", kindnetctl_deletes_it),
            ("kind_takes_over_one_of_ours", kind_takes_over_one_of_ours),
        ],
    }
}

const KIND_CONFIG: &str = "
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {ipFamily: dual, disableDefaultCNI: true}
nodes: [{role: control-plane}, {role: worker}]
";

/// Log files both tools write for a node.
const LOGS: [&str; 5] = [
    "inspect.json",
    "serial.log",
    "journal.log",
    "kubelet.log",
    "images.log",
];

fn kind_makes_a_cluster(stage: &mut Stage) -> Result<()> {
    let environment = stage.environment.clone();
    let cluster = stage.adopt()?;
    let kind = environment.kind(&cluster.kubeconfig())?;
    let mut args = vec![
        "create",
        "cluster",
        "--name",
        &cluster.name,
        "--config",
        "-",
    ];
    if let Some(image) = &environment.node_image {
        args.extend(["--image", image]);
    }
    kind.run_with_input(args, KIND_CONFIG)?.success()?;
    Ok(())
}

fn kindnetctl_lists_it(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let clusters = cluster.kindnetctl(&["get", "clusters"])?.success()?;
    ensure!(clusters.contains(&cluster.name), "{clusters}");
    let nodes = cluster
        .kindnetctl(&["get", "nodes", "--name", &cluster.name])?
        .success()?;
    for node in cluster.nodes() {
        ensure!(nodes.contains(&node.name), "{nodes}");
    }
    let kubeconfig = cluster
        .kindnetctl(&["get", "kubeconfig", "--name", &cluster.name])?
        .success()?;
    ensure!(
        kubeconfig.contains(&format!("kind-{}", cluster.name)),
        "{kubeconfig}"
    );
    Ok(())
}

fn kindnetctl_loads_into_it(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let image = cluster.environment.kindnet_image.clone();
    cluster
        .kindnetctl(&["load", "image", &image, "--name", &cluster.name])?
        .success()?;
    for node in cluster.nodes() {
        let images = node.shell("ctr -n k8s.io images ls -q")?;
        ensure!(
            images.lines().any(|l| l == image),
            "{image} is not on {}:\n{images}",
            node.name
        );
    }
    Ok(())
}

fn kubectl_installs_kindnet(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let checkout = &cluster.environment.checkout;
    for file in [
        "manifests/install-kindnet.yaml",
        "docs/default-configuration.yaml",
    ] {
        let text = std::fs::read_to_string(checkout.join(file)).with_context(|| file.to_owned())?;
        let args = [
            "exec",
            "-i",
            &cluster.control_plane().name,
            "kubectl",
            "create",
            "-f",
            "-",
        ];
        Tool::new("docker").run_with_input(args, &text)?.success()?;
    }
    eventually("every node is Ready", Duration::from_secs(120), || {
        cluster
            .kubectl(&[
                "wait",
                "--for=condition=Ready",
                "node",
                "--all",
                "--timeout=1s",
            ])?
            .success()
            .map(drop)
    })?;
    eventually("DNS answers", Duration::from_secs(120), || {
        let args = [
            "-n",
            "kube-system",
            "rollout",
            "status",
            "deploy/coredns",
            "--timeout=1s",
        ];
        cluster.kubectl(&args)?.success().map(drop)
    })?;
    Ok(())
}

fn kindnetctl_verifies_it(stage: &mut Stage) -> Result<()> {
    let report = stage.cluster()?.verify(&[])?;
    ensure!(report.code == 0, "{}", report.text);
    Ok(())
}

fn kindnetctl_exports_its_logs(stage: &mut Stage) -> Result<()> {
    let cluster = stage.cluster()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_string_lossy().into_owned();
    cluster
        .kindnetctl(&["export", "logs", &path, "--name", &cluster.name])?
        .success()?;
    for node in cluster.nodes() {
        for log in LOGS {
            let file = folder.path().join(&node.name).join(log);
            ensure!(file.exists(), "{} is missing", file.display());
        }
    }
    Ok(())
}

fn kindnetctl_deletes_it(stage: &mut Stage) -> Result<()> {
    let environment = stage.environment.clone();
    let cluster = stage.cluster()?;
    cluster
        .kindnetctl(&["down", "--name", &cluster.name])?
        .success()?;
    let clusters = environment
        .kind(&cluster.kubeconfig())?
        .run(["get", "clusters"])?
        .success()?;
    ensure!(!clusters.contains(&cluster.name), "{clusters}");
    Ok(())
}

fn kind_takes_over_one_of_ours(stage: &mut Stage) -> Result<()> {
    let environment = stage.environment.clone();
    let name = stage.name().to_owned();
    let ours = kindnet_testenv::Cluster::up(&environment, &name, Family::Dual)?;
    let kind = environment.kind(&ours.kubeconfig())?;
    let clusters = kind.run(["get", "clusters"])?.success()?;
    ensure!(clusters.lines().any(|l| l == name), "{clusters}");
    let nodes = kind.run(["get", "nodes", "--name", &name])?.success()?;
    for node in ours.nodes() {
        ensure!(nodes.lines().any(|l| l == node.name), "{nodes}");
    }
    let kubeconfig = kind
        .run(["get", "kubeconfig", "--name", &name])?
        .success()?;
    let same = ours
        .kindnetctl(&["get", "kubeconfig", "--name", &name])?
        .success()?;
    let server = |text: &str| {
        text.lines()
            .find(|l| l.contains("server:"))
            .map(str::to_owned)
    };
    ensure!(server(&kubeconfig) == server(&same), "{kubeconfig}\n{same}");

    // A name the nodes do not have yet.
    let image = "kindnet-e2e.local/interop:latest";
    let docker = Tool::new("docker");
    docker
        .run(["tag", &environment.kindnet_image, image])?
        .success()?;
    kind.run(["load", "docker-image", image, "--name", &name])?
        .success()?;
    docker.run(["rmi", image])?.success()?;
    for node in ours.nodes() {
        let images = node.shell("ctr -n k8s.io images ls -q")?;
        ensure!(
            images.lines().any(|l| l == image),
            "{image} is not on {}:\n{images}",
            node.name
        );
    }

    let folder = tempfile::tempdir()?;
    let path = folder.path().to_string_lossy().into_owned();
    kind.run(["export", "logs", &path, "--name", &name])?
        .success()?;
    for node in ours.nodes() {
        for log in LOGS {
            let file = folder.path().join(&node.name).join(log);
            ensure!(file.exists(), "{} is missing", file.display());
        }
    }

    kind.run(["delete", "cluster", "--name", &name])?
        .success()?;
    let clusters = ours.kindnetctl(&["get", "clusters"])?.success()?;
    ensure!(!clusters.contains(&name), "{clusters}");
    Ok(())
}
