//! The checks: one function each, an error with cause and cure or nothing.

use kindnet_ui::UserError;

use super::Observed;
use crate::docker;
use crate::spec::{ClusterSpec, IpFamily};
use crate::version::KubeVersion;

type Check = fn(&ClusterSpec, &Observed) -> Result<(), UserError>;

pub(super) const ALL: [Check; 9] = [
    local_daemon,
    runtime,
    rootless,
    no_such_cluster,
    free_names,
    network_has_v6,
    host_has_v6,
    subnets_are_apart,
    inotify,
];

/// inotify instances a node needs: systemd, containerd, kubelet, kube-proxy and the control plane
/// hold about 20, pods come on top.
const INSTANCES_PER_NODE: u64 = 30;

/// inotify watches a node needs; a node at rest holds a few hundred.
const WATCHES_PER_NODE: u64 = 2000;

/// What kind's page of known issues recommends.
const GOOD_LIMITS: (u64, u64) = (512, 524_288);

const RAISE_INOTIFY: &str =
    "sudo sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288";

fn local_daemon(_: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    match &observed.remote {
        None => Ok(()),
        Some(url) => Err(UserError::usage(format!(
            "the Docker daemon {url} is on another machine, whose loopback address the API server \
             would be published on"
        ))
        .hint("run kindnetctl on that machine")),
    }
}

fn runtime(_: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    // Sandboxing runtimes give a node a kernel that cannot run another container runtime.
    let runtime = observed.facts.runtime.as_str();
    if ["runsc", "kata", "kata-runtime", "kata-qemu", "sysbox-runc"].contains(&runtime) {
        return Err(UserError::usage(format!(
            "Docker's default runtime {runtime} cannot run nodes"
        ))
        .hint("set \"default-runtime\": \"runc\" in /etc/docker/daemon.json"));
    }
    Ok(())
}

fn rootless(_: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    let facts = &observed.facts;
    if !facts.rootless {
        return Ok(());
    }
    if facts.cgroup_v1 {
        return Err(UserError::usage("a rootless Docker daemon needs cgroup v2").hint(
            "boot the host with `systemd.unified_cgroup_hierarchy=1`, or use a daemon with root",
        ));
    }
    if !facts.can_limit {
        return Err(UserError::usage(
            "the rootless Docker daemon may not limit memory, processes and CPU of containers",
        )
        .hint(
            "set `Delegate=yes` for its systemd service: \
             https://kind.sigs.k8s.io/docs/user/rootless/",
        ));
    }
    Ok(())
}

fn no_such_cluster(spec: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    let name = &spec.name;
    if observed.nodes.is_empty() {
        return Ok(());
    }
    Err(
        UserError::usage(format!("there is a cluster named {name:?} already")).hint(format!(
            "take it down with `kindnetctl down --name {name}`, or choose another --name"
        )),
    )
}

fn free_names(spec: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    let ours = |name: &&String| !observed.nodes.iter().any(|node| node.name == **name);
    let taken: Vec<&str> = observed
        .taken
        .iter()
        .filter(ours)
        .map(String::as_str)
        .collect();
    if taken.is_empty() {
        return Ok(());
    }
    let list = taken.join(" ");
    Err(UserError::usage(format!(
        "cluster {:?} needs names that other containers have: {list}",
        spec.name
    ))
    .hint(format!(
        "choose another --name, or remove them with `docker rm -f {list}`"
    )))
}

fn network_has_v6(spec: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    match &observed.network {
        Some(network) => v6_of(spec, network),
        None => Ok(()),
    }
}

/// Whether a Docker network has IPv6 where the cluster needs it.
pub(crate) fn v6_of(spec: &ClusterSpec, network: &docker::Network) -> Result<(), UserError> {
    if network.has_v6 || !spec.family.has_v6() {
        return Ok(());
    }
    let name = &network.name;
    let hint = if network.containers.is_empty() {
        format!("nothing uses it: remove it with `docker network rm {name}`, it is made anew")
    } else {
        format!(
            "it is used by {}; take those down, then `docker network rm {name}`, or choose another \
             network with KIND_EXPERIMENTAL_DOCKER_NETWORK",
            network.containers.join(", ")
        )
    };
    Err(UserError::usage(format!("the Docker network {name:?} has no IPv6")).hint(hint))
}

fn host_has_v6(spec: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    let Some(host) = observed.host.filter(|_| spec.family.has_v6()) else {
        return Ok(());
    };
    if host.v6_disabled {
        let what = format!("--ipfamily {}", spec.family);
        return Err(docker::no_ipv6(what));
    }
    if spec.family == IpFamily::Ipv6 && !host.v6_loopback {
        return Err(UserError::usage(
            "the API server cannot be published: this machine has no IPv6 loopback address",
        )
        .hint("sudo sysctl net.ipv6.conf.lo.disable_ipv6=0"));
    }
    Ok(())
}

fn subnets_are_apart(spec: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    match &observed.network {
        Some(network) => apart_from(spec, network),
        None => Ok(()),
    }
}

/// Whether a Docker network leaves the cluster's subnets alone.
pub(crate) fn apart_from(spec: &ClusterSpec, network: &docker::Network) -> Result<(), UserError> {
    let what = format!("the Docker network {:?}", network.name);
    let found = spec.overlaps_with(&what, &network.subnets);
    if found.is_empty() {
        return Ok(());
    }
    Err(UserError::usage(found.join("\n       "))
        .hint("choose other prefixes with --pod-subnet and --service-subnet"))
}

fn inotify(spec: &ClusterSpec, observed: &Observed) -> Result<(), UserError> {
    let Some(host) = observed.host else {
        return Ok(());
    };
    let nodes = spec.workers as u64 + 1;
    let short = |limit: Option<u64>, per_node: u64| limit.filter(|l| *l < per_node * nodes);
    let problem = if let Some(limit) = short(host.inotify_instances, INSTANCES_PER_NODE) {
        format!("fs.inotify.max_user_instances is {limit}")
    } else if let Some(limit) = short(host.inotify_watches, WATCHES_PER_NODE) {
        format!("fs.inotify.max_user_watches is {limit}")
    } else {
        return Ok(());
    };
    let count = if nodes == 1 {
        "a node".to_owned()
    } else {
        format!("{nodes} nodes")
    };
    Err(UserError::usage(format!("{problem}, too little for {count}")).hint(RAISE_INOTIFY))
}

/// What is unwise but works.
pub(super) fn warnings(
    spec: &ClusterSpec,
    observed: &Observed,
    version: Option<&KubeVersion>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let low = |limit: Option<u64>, good: u64| limit.is_some_and(|limit| limit < good);
    if let Some(host) = observed.host
        && spec.workers > 0
        && (low(host.inotify_instances, 128) || low(host.inotify_watches, GOOD_LIMITS.1 / 8))
    {
        warnings.push(format!("the inotify limits are low; pods may fail with \"too many open files\": {RAISE_INOTIFY}"));
    }
    if observed.facts.cgroup_v1
        && let Some(version) = version
        && version.at_least(1, 35)
    {
        warnings.push(format!(
            "Kubernetes {version} is about to drop cgroup v1, which this host runs; the kubelets \
             are told to bear with it"
        ));
    }
    if std::env::var_os("KIND_EXPERIMENTAL_DOCKER_NETWORK").is_some() {
        warnings.push(format!(
            "KIND_EXPERIMENTAL_DOCKER_NETWORK is set: the Docker network is {:?}",
            spec.network
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
