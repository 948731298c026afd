//! The objects a run makes. All of them live in one namespace of their own.

use kindnet_api::node::Family;
use serde_json::{Value, json};

use crate::plan::{CONF_MOUNT, pod_name};
use crate::topology::{Role, Source, suffix};

/// Label of everything a run makes.
pub const LABEL: &str = "kindnet.io/verify";

/// Name of the one container of each check pod.
pub const CONTAINER: &str = "probe";

/// ServiceAccount of the check pods. One of our own, because the default one of a new namespace
/// appears only after a while.
const ACCOUNT: &str = "check";

/// What the objects are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Name of the namespace.
    pub namespace: String,
    /// Image of the check pods.
    pub image: String,
    /// Port of servers on the pod network.
    pub pod_port: u16,
    /// Port of servers on the host network.
    pub host_network_port: u16,
    /// hostPort of servers on the pod network; none for servers without.
    pub host_port: Option<u16>,
}

impl Shape {
    /// The namespace. Check pods use the host network and a hostPath, which only the level
    /// `privileged` of the Pod Security Standards allows.
    #[must_use]
    pub fn namespace(&self) -> Value {
        let level = "privileged";
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": {
                LABEL: "true",
                "pod-security.kubernetes.io/enforce": level,
                "pod-security.kubernetes.io/audit": level,
                "pod-security.kubernetes.io/warn": level,
            }},
        })
    }

    /// The ServiceAccount, which may do nothing.
    #[must_use]
    pub fn account(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT, "namespace": self.namespace},
            "automountServiceAccountToken": false,
        })
    }

    /// A check pod. Bound to its node without the scheduler, and tolerating whatever keeps others
    /// away: the network has to work on every node.
    #[must_use]
    pub fn pod(&self, source: Source, node: &str) -> Value {
        let host = source.role == Role::Host;
        let port = if host {
            self.host_network_port
        } else {
            self.pod_port
        };
        let mut container = json!({
            "name": CONTAINER,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["kindnet-probe", "serve", "--port", port.to_string()],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "runAsUser": 0,
                "capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]},
            },
        });
        let mut spec = json!({
            "nodeName": node,
            "serviceAccountName": ACCOUNT,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
        });
        if let (Role::Server, Some(host_port)) = (source.role, self.host_port) {
            container["ports"] = json!([
                {"name": "tcp", "containerPort": port, "hostPort": host_port, "protocol": "TCP"},
                {"name": "udp", "containerPort": port, "hostPort": host_port, "protocol": "UDP"},
            ]);
        }
        if host {
            container["volumeMounts"] = json!([
                {"name": "cni-conf", "mountPath": CONF_MOUNT, "readOnly": true},
            ]);
            spec["volumes"] = json!([
                {"name": "cni-conf", "hostPath": {"path": kindnet_api::names::CNI_CONF_DIR}},
            ]);
            spec["hostNetwork"] = json!(true);
            // The resolver of the node itself: it tells whether names outside resolve at all.
            spec["dnsPolicy"] = json!("Default");
        }
        spec["containers"] = json!([container]);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod_name(source),
                "namespace": self.namespace,
                "labels": {LABEL: "true", "kindnet.io/verify-role": source.role.name()},
            },
            "spec": spec,
        })
    }

    /// The Services of a family: one with a ClusterIP and a NodePort, and a headless one.
    ///
    /// Only a dual-stack cluster is told the family: API servers before 1.20 and those without dual
    /// stack know only one.
    #[must_use]
    pub fn services(&self, family: Family, dual: bool) -> [Value; 2] {
        [
            self.service(&service_name(family), family, dual, false),
            self.service(&headless_name(family), family, dual, true),
        ]
    }

    fn service(&self, name: &str, family: Family, dual: bool, headless: bool) -> Value {
        let port = self.pod_port;
        let mut spec = json!({
            "selector": {"kindnet.io/verify-role": Role::Server.name()},
            "ports": [
                {"name": "tcp", "port": port, "targetPort": port, "protocol": "TCP"},
                {"name": "udp", "port": port, "targetPort": port, "protocol": "UDP"},
            ],
        });
        if headless {
            spec["clusterIP"] = json!("None");
        } else {
            spec["type"] = json!("NodePort");
        }
        if dual {
            spec["ipFamilyPolicy"] = json!("SingleStack");
            spec["ipFamilies"] = json!([family.to_string()]);
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": self.namespace, "labels": {LABEL: "true"},
            },
            "spec": spec,
        })
    }
}

/// Name of the Service with a ClusterIP and a NodePort.
#[must_use]
pub fn service_name(family: Family) -> String {
    format!("echo-{}", suffix(family))
}

/// Name of the headless Service.
#[must_use]
pub fn headless_name(family: Family) -> String {
    format!("pods-{}", suffix(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            namespace: "kindnet-verify-abc123".into(),
            image: "example.test/kindnet:v1".into(),
            pod_port: 7100,
            host_network_port: 21001,
            host_port: Some(21002),
        }
    }

    #[test]
    fn objects_of_a_node() {
        let shape = shape();
        let mut text = String::new();
        let pods = [Role::Client, Role::Server, Role::Host]
            .map(|role| shape.pod(Source { node: 0, role }, "kind-worker"));
        for object in [shape.namespace(), shape.account()]
            .into_iter()
            .chain(pods)
            .chain(shape.services(Family::V6, true))
        {
            text.push_str("---\n");
            text.push_str(&kindnet_api::yaml::to_string(&object).unwrap());
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_objects_are_what_the_api_takes() {
        use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
        let shape = shape();
        serde_json::from_value::<Namespace>(shape.namespace()).unwrap();
        serde_json::from_value::<ServiceAccount>(shape.account()).unwrap();
        for role in [Role::Client, Role::Server, Role::Host] {
            let pod = shape.pod(Source { node: 1, role }, "n");
            let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
            // Nothing is lost on the way through the types, so no field is misspelt.
            let mut back = serde_json::to_value(typed).unwrap();
            back["spec"]["containers"][0]["env"] = pod["spec"]["containers"][0]["env"].clone();
            assert_eq!(back["spec"], pod["spec"]);
        }
        for service in shape.services(Family::V4, true) {
            let typed: Service = serde_json::from_value(service.clone()).unwrap();
            assert_eq!(
                serde_json::to_value(typed).unwrap()["spec"],
                service["spec"]
            );
        }
        let single = shape.services(Family::V4, false);
        assert!(single[0]["spec"].get("ipFamilies").is_none());
    }
}
