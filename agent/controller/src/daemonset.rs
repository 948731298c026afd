//! The agents' DaemonSet: a pure function of the `Configuration` and the API server's address.

use k8s_openapi::api::apps::v1::DaemonSet;
use kindnet_api::{Configuration, endpoint, names};
use kube::Resource as _;
use serde_json::{Value, json};

/// Where the host's `/proc/sys/net` is mounted. The copy in the container's own /proc is read-only
/// unless the container is privileged.
const SYSCTL_ROOT: &str = "/host/proc/sys/net";

/// The DaemonSet a `Configuration` asks for. Holds only fields kindnet decides about, because it is
/// sent by server-side apply: whatever else a cluster's owner or its admission plug-ins add, stays.
///
/// # Errors
/// Never for a `Configuration` that came from an API server; the JSON built here is checked by
/// golden files.
pub fn daemonset(
    configuration: &Configuration,
    control_plane_endpoint: Option<&str>,
) -> Result<DaemonSet, serde_json::Error> {
    let spec = &configuration.spec;
    let labels = json!({
        "app.kubernetes.io/name": names::AGENT_NAME,
        "app.kubernetes.io/part-of": "kindnet",
        "app.kubernetes.io/managed-by": names::CONTROLLER_NAME,
    });
    let selector = json!({ "app.kubernetes.io/name": names::AGENT_NAME });
    serde_json::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": names::AGENT_NAME,
            "namespace": names::NAMESPACE,
            "labels": labels,
            "ownerReferences": configuration.controller_owner_ref(&()).into_iter().collect::<Vec<_>>(),
        },
        "spec": {
            "selector": { "matchLabels": selector },
            // An agent that restarts leaves its routes and rules in place, so several nodes at once
            // are safe; a tenth keeps a bad image away from the rest of the cluster.
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": { "maxUnavailable": "10%" },
            },
            "template": {
                "metadata": { "labels": labels },
                "spec": pod(&spec.kindnetd_image, &arguments(configuration), control_plane_endpoint),
            },
        },
    }))
}

/// Command line of the agent.
fn arguments(configuration: &Configuration) -> Vec<String> {
    let masquerade = &configuration.spec.masquerade;
    let mut arguments = vec![
        format!("--cni-plugin={}", configuration.spec.cni.plugin),
        format!("--masquerade={}", masquerade.enabled),
        format!("--sysctl-root={SYSCTL_ROOT}"),
        format!(
            "--metrics-bind-address=127.0.0.1:{}",
            names::AGENT_METRICS_PORT
        ),
    ];
    arguments.extend(
        masquerade
            .non_masquerade_cidrs
            .iter()
            .map(|cidr| format!("--no-masquerade-cidr={cidr}")),
    );
    arguments
}

fn pod(image: &str, arguments: &[String], control_plane_endpoint: Option<&str>) -> Value {
    let mut env = vec![
        json!({ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }),
        json!({ "name": "HOST_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } }),
    ];
    if let Some(endpoint) = control_plane_endpoint {
        env.push(json!({ "name": endpoint::ENDPOINT_ENV, "value": endpoint }));
    }
    let probe = |path: &str, period_seconds: u32, failures: u32| {
        json!({
            "httpGet": { "host": "127.0.0.1", "port": names::AGENT_METRICS_PORT, "path": path },
            "periodSeconds": period_seconds,
            "timeoutSeconds": 3,
            "failureThreshold": failures,
        })
    };
    json!({
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "priorityClassName": "system-node-critical",
        "serviceAccountName": names::AGENT_NAME,
        "terminationGracePeriodSeconds": 5,
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [{ "operator": "Exists" }],
        "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": names::AGENT_NAME,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": [names::AGENT_NAME],
            "args": arguments,
            "env": env,
            // No limits: a limit close to the working set makes the kernel drop and reread the
            // binary's pages, and a throttled agent is an outage of the node's network.
            "resources": { "requests": { "cpu": "100m", "memory": "50Mi" } },
            "livenessProbe": probe("/healthz", 10, 6),
            "readinessProbe": probe("/readyz", 2, 2),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"] },
            },
            "volumeMounts": [
                { "name": "cni-conf", "mountPath": names::CNI_CONF_DIR },
                { "name": "cni-bin", "mountPath": names::CNI_BIN_DIR },
                { "name": "cni-state", "mountPath": names::CNI_STATE_DIR },
                { "name": "ipam-state", "mountPath": names::IPAM_STATE_DIR },
                { "name": "xtables-lock", "mountPath": "/run/xtables.lock" },
                { "name": "lib-modules", "mountPath": "/lib/modules", "readOnly": true },
                { "name": "sysctl-net", "mountPath": SYSCTL_ROOT },
            ],
        }],
        "volumes": [
            host_path("cni-conf", names::CNI_CONF_DIR, "DirectoryOrCreate"),
            host_path("cni-bin", names::CNI_BIN_DIR, "DirectoryOrCreate"),
            host_path("cni-state", names::CNI_STATE_DIR, "DirectoryOrCreate"),
            host_path("ipam-state", names::IPAM_STATE_DIR, "DirectoryOrCreate"),
            host_path("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
            host_path("lib-modules", "/lib/modules", "DirectoryOrCreate"),
            host_path("sysctl-net", "/proc/sys/net", "Directory"),
        ],
    })
}

fn host_path(name: &str, path: &str, kind: &str) -> Value {
    json!({ "name": name, "hostPath": { "path": path, "type": kind } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kindnet_api::{CniPlugin, CniSpec, ConfigurationSpec, MasqueradeSpec};

    fn configuration(spec: ConfigurationSpec) -> Configuration {
        let mut configuration = Configuration::new(names::CONFIGURATION_NAME, spec);
        configuration.metadata.namespace = Some(names::NAMESPACE.into());
        configuration.metadata.uid = Some("00000000-0000-0000-0000-000000000001".into());
        configuration
    }

    #[test]
    fn plain() {
        let configuration = configuration(ConfigurationSpec {
            kindnetd_image: "example.test/kindnet:v1".into(),
            ..Default::default()
        });
        insta::assert_yaml_snapshot!(daemonset(&configuration, None).unwrap());
    }

    #[test]
    fn with_everything_set() {
        let configuration = configuration(ConfigurationSpec {
            kindnetd_image: "example.test/kindnet:v2".into(),
            control_plane_endpoint: None,
            masquerade: MasqueradeSpec {
                enabled: false,
                non_masquerade_cidrs: vec!["192.168.0.0/16".into(), "fd00::/8".into()],
            },
            cni: CniSpec {
                plugin: CniPlugin::Standard,
            },
        });
        let daemonset = daemonset(&configuration, Some("https://[fc00::2]:6443")).unwrap();
        let container = &daemonset.spec.unwrap().template.spec.unwrap().containers[0];
        insta::assert_yaml_snapshot!((&container.image, &container.args, &container.env));
    }
}
