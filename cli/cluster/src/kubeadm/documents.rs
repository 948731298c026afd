//! The single documents.

use serde_json::{Map, Value, json};

use super::{ApiVersion, Input};
use crate::names::{self, Role};
use crate::spec::IpFamily;

pub(super) fn all(input: &Input<'_>) -> Vec<Value> {
    vec![
        cluster(input),
        init(input),
        join(input),
        kubelet(input),
        kube_proxy(input),
    ]
}

/// Command-line arguments of a component: a map until v1beta3, a list from v1beta4 on.
fn extra_args(input: &Input<'_>, arguments: &[(&str, String)]) -> Value {
    if ApiVersion::of(input.version) >= ApiVersion::V1Beta4 {
        let list = arguments
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}));
        Value::Array(list.collect())
    } else {
        let map = arguments
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)));
        Value::Object(map.collect())
    }
}

/// Feature gates of all components.
fn feature_gates(input: &Input<'_>) -> Map<String, Value> {
    let mut gates = Map::new();
    if input.rootless {
        gates.insert("KubeletInUserNamespace".into(), json!(true));
    }
    gates
}

fn feature_gate_argument(input: &Input<'_>) -> Option<(&'static str, String)> {
    let gates: Vec<String> = feature_gates(input)
        .iter()
        .map(|(name, on)| format!("{name}={on}"))
        .collect();
    (!gates.is_empty()).then(|| ("feature-gates", gates.join(",")))
}

fn joined(nets: &[ipnet::IpNet]) -> String {
    let texts: Vec<String> = nets.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn cluster(input: &Input<'_>) -> Value {
    let v6_only = input.family == IpFamily::Ipv6;
    let gates = feature_gate_argument(input);

    let mut api_server = vec![("runtime-config", String::new())];
    api_server.extend(gates.clone());

    let mut controller_manager = vec![("enable-hostpath-provisioner", "true".to_owned())];
    controller_manager.extend(gates.clone());
    if v6_only {
        controller_manager.push(("bind-address", "::".into()));
    }

    let mut scheduler: Vec<(&str, String)> = gates.into_iter().collect();
    if v6_only {
        scheduler.push(("bind-address", "::1".into()));
    }

    let mut document = json!({
        "apiVersion": ApiVersion::of(input.version).group_version(),
        "kind": "ClusterConfiguration",
        "kubernetesVersion": input.version.to_string(),
        "clusterName": input.cluster,
        "controlPlaneEndpoint": input.endpoint(),
        "apiServer": {
            "certSANs": ["localhost", input.family.api_server_address().to_string()],
            "extraArgs": extra_args(input, &api_server),
        },
        "controllerManager": {"extraArgs": extra_args(input, &controller_manager)},
        "scheduler": {"extraArgs": extra_args(input, &scheduler)},
        "networking": {
            "podSubnet": joined(input.pod_subnets),
            "serviceSubnet": joined(input.service_subnets),
        },
    });
    // kubeadm's own gate: alpha in 1.20, on by default in 1.21.
    if input.version.is(1, 20) {
        document["featureGates"] = json!({"IPv6DualStack": true});
    }
    document
}

fn node_registration(input: &Input<'_>) -> Value {
    let arguments = [
        ("node-ip", input.node_ip()),
        (
            "provider-id",
            format!("kind://docker/{}/{}", input.cluster, input.node),
        ),
        ("node-labels", String::new()),
    ];
    json!({
        "criSocket": "unix:///run/containerd/containerd.sock",
        "kubeletExtraArgs": extra_args(input, &arguments),
    })
}

fn local_api_endpoint(input: &Input<'_>) -> Value {
    let advertise = input
        .addresses
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    json!({"advertiseAddress": advertise, "bindPort": names::API_PORT})
}

fn skip_phases(input: &Input<'_>, document: &mut Value) {
    if ApiVersion::of(input.version) >= ApiVersion::V1Beta3 {
        document["skipPhases"] = json!(["preflight"]);
    }
}

fn init(input: &Input<'_>) -> Value {
    let mut document = json!({
        "apiVersion": ApiVersion::of(input.version).group_version(),
        "kind": "InitConfiguration",
        "bootstrapTokens": [{"token": names::BOOTSTRAP_TOKEN}],
        "localAPIEndpoint": local_api_endpoint(input),
        "nodeRegistration": node_registration(input),
    });
    skip_phases(input, &mut document);
    document
}

fn join(input: &Input<'_>) -> Value {
    let mut document = json!({
        "apiVersion": ApiVersion::of(input.version).group_version(),
        "kind": "JoinConfiguration",
        "nodeRegistration": node_registration(input),
        "discovery": {"bootstrapToken": {
            "apiServerEndpoint": input.endpoint(),
            "token": names::BOOTSTRAP_TOKEN,
            "unsafeSkipCAVerification": true,
        }},
    });
    if input.role == Role::ControlPlane {
        document["controlPlane"] = json!({"localAPIEndpoint": local_api_endpoint(input)});
    }
    skip_phases(input, &mut document);
    document
}

fn kubelet(input: &Input<'_>) -> Value {
    let driver = if input.version.at_least(1, 24) {
        "systemd"
    } else {
        "cgroupfs"
    };
    let mut document = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": driver,
        "cgroupRoot": "/kubelet",
        "failSwapOn": false,
        // The disk is the host's: nothing the kubelet could free would help.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
    });
    if input.family == IpFamily::Ipv6 {
        document["address"] = json!("::");
        document["healthzBindAddress"] = json!("::");
    }
    // Newer kubelets report at once when they become Ready, older ones every ten seconds. What has
    // not changed is still sent every five minutes only.
    if !input.version.at_least(1, 27) {
        document["nodeStatusUpdateFrequency"] = json!("1s");
        document["nodeStatusReportFrequency"] = json!("5m0s");
    }
    if input.cgroup_v1 && input.version.at_least(1, 35) {
        document["failCgroupV1"] = json!(false);
    }
    let gates = feature_gates(input);
    if !gates.is_empty() {
        document["featureGates"] = Value::Object(gates);
    }
    document
}

fn kube_proxy(input: &Input<'_>) -> Value {
    // The limit is global: setting it from a node would change the host.
    let mut conntrack = json!({"maxPerCore": 0});
    if input.rootless {
        conntrack["tcpEstablishedTimeout"] = json!("0s");
        conntrack["tcpCloseWaitTimeout"] = json!("0s");
    }
    let mut document = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "iptables": {"minSyncPeriod": "1s"},
        "conntrack": conntrack,
    });
    let gates = feature_gates(input);
    if !gates.is_empty() {
        document["featureGates"] = Value::Object(gates);
    }
    document
}
