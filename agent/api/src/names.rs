//! The names of everything kindnet makes. Whatever carries one of these is ours to change and to
//! remove; whatever does not is somebody else's and is left alone.

/// Namespace of the agent, the controller and the `Configuration`.
pub const NAMESPACE: &str = "kube-system";

/// The one name a `Configuration` may have.
pub const CONFIGURATION_NAME: &str = "kindnet";

/// DaemonSet, ServiceAccount and ClusterRole of the agent.
pub const AGENT_NAME: &str = "kindnetd";

/// Deployment, ServiceAccount and ClusterRole of the controller.
pub const CONTROLLER_NAME: &str = "kindnet-controller";

/// Field manager of everything the controller applies.
pub const FIELD_MANAGER: &str = "kindnet-controller";

/// Field manager of everything `kindnetctl` applies.
pub const CLI_FIELD_MANAGER: &str = "kindnetctl";

/// The image that holds agent, controller and probe, unless another one is named.
pub const DEFAULT_IMAGE: &str = concat!("ghcr.io/kindnet-rs/kindnet:v", env!("CARGO_PKG_VERSION"));

/// Where the kubelet's runtime looks for CNI configuration.
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";

/// File name of our CNI configuration; sorts before most others.
pub const CONFLIST_FILE: &str = "10-kindnet.conflist";

/// Name of the CNI network.
pub const CNI_NETWORK: &str = "kindnet";

/// State of host-local. On tmpfs on purpose: after a reboot no pod is left, so none of its
/// addresses may stay reserved.
pub const IPAM_STATE_DIR: &str = "/run/cni-ipam-state";

/// Folder of CNI plugins on a node.
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";

/// Program of our own CNI plugin, and its `type` in a conflist.
pub const CNI_PLUGIN: &str = "kindnet-cni";

/// State of our own CNI plugin. On tmpfs, as [`IPAM_STATE_DIR`].
pub const CNI_STATE_DIR: &str = "/run/kindnet-cni";

/// Protocol number of the routes we add (`rtm_protocol`, see `ip-route(8)`). Not used by the kernel
/// or by any daemon listed in iproute2's `rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 107;

/// Chain in the `nat` table that decides about masquerading.
pub const MASQUERADE_CHAIN: &str = "KINDNET-MASQ";

/// Port of /healthz and /metrics of the agent, on localhost only.
pub const AGENT_METRICS_PORT: u16 = 19080;

/// Port of /healthz and /metrics of the controller, on localhost only.
pub const CONTROLLER_METRICS_PORT: u16 = 19070;
