//! Command line and environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use kindnet_api::{CniPlugin, names};

/// Where the manifest mounts the node's /proc/sys/net: the container's own is read-only.
const HOST_SYSCTLS: &str = "/host/proc/sys/net";

/// The kindnet node agent: CNI configuration, routes, masquerading and forwarding of one node.
#[derive(Debug, Parser)]
#[command(name = "kindnetd", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub run: RunArgs,

    #[command(flatten)]
    pub logging: LogArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent (the default).
    Run(RunArgs),
    /// Remove everything the agent has set up on this node.
    Uninstall(UninstallArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Name of the Node this agent runs on.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// API server to try first, as https://host:port: it answers before kube-proxy has set up the
    /// Service address. Its certificate has to be valid for that host.
    #[arg(
        long,
        env = "CONTROL_PLANE_ENDPOINT",
        value_name = "URL",
        default_value = ""
    )]
    pub control_plane_endpoint: String,

    /// Use this kubeconfig instead of the service account of the pod.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Give pod traffic that leaves the cluster the address of the node.
    #[arg(long, env = "KINDNET_MASQUERADE", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub masquerade: bool,

    /// Destination besides the pods that sees the pod's own address. Repeatable.
    #[arg(
        long = "no-masquerade-cidr",
        env = "KINDNET_NO_MASQUERADE_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub no_masquerade_cidrs: Vec<IpNet>,

    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "KINDNET_METRICS_BIND_ADDRESS", value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], names::AGENT_METRICS_PORT)))]
    pub metrics_bind_address: SocketAddr,

    /// What attaches pods to the network: kindnet (the plugin shipped with the agent) or standard
    /// (ptp, host-local and portmap, which the node has to have).
    #[arg(long, env = "KINDNET_CNI_PLUGIN", value_name = "PLUGIN", default_value_t = CniPlugin::Kindnet)]
    pub cni_plugin: CniPlugin,

    #[command(flatten)]
    pub paths: PathArgs,

    /// Where the node's /proc/sys/net is [default: /host/proc/sys/net if it exists, else
    /// /proc/sys/net].
    #[arg(long, env = "KINDNET_SYSCTL_ROOT", value_name = "DIR")]
    pub sysctl_root: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
pub struct PathArgs {
    /// Folder of the CNI configuration.
    #[arg(long, env = "KINDNET_CNI_CONF_DIR", value_name = "DIR", default_value = names::CNI_CONF_DIR)]
    pub cni_conf_dir: PathBuf,

    /// Folder of CNI plugins.
    #[arg(long, env = "KINDNET_CNI_BIN_DIR", value_name = "DIR", default_value = names::CNI_BIN_DIR)]
    pub cni_bin_dir: PathBuf,

    /// State of our own plugin.
    #[arg(long, env = "KINDNET_CNI_STATE_DIR", value_name = "DIR", default_value = names::CNI_STATE_DIR)]
    pub cni_state_dir: PathBuf,

    /// State of the plugin host-local.
    #[arg(long, env = "KINDNET_IPAM_STATE_DIR", value_name = "DIR", default_value = names::IPAM_STATE_DIR)]
    pub ipam_state_dir: PathBuf,
}

#[derive(Debug, Clone, clap::Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    pub paths: PathArgs,

    /// Stay alive afterwards until told to stop, so that a DaemonSet can report all nodes done.
    #[arg(long)]
    pub wait: bool,

    /// Where to answer /healthz and /readyz while waiting.
    #[arg(long, env = "KINDNET_METRICS_BIND_ADDRESS", value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], names::AGENT_METRICS_PORT)))]
    pub metrics_bind_address: SocketAddr,
}

#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or a filter such as info,kindnet_net=debug.
    #[arg(
        long,
        env = "KINDNET_LOG",
        value_name = "LEVEL",
        default_value = "info",
        global = true
    )]
    pub log_level: String,

    /// Format of the log.
    #[arg(long, env = "KINDNET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line an event.
    Text,
    /// One JSON object an event.
    Json,
}

impl RunArgs {
    /// Root of the sysctls.
    pub fn sysctl_root(&self) -> PathBuf {
        self.sysctl_root.clone().unwrap_or_else(|| {
            let host = Path::new(HOST_SYSCTLS);
            if host.is_dir() {
                host
            } else {
                Path::new("/proc/sys/net")
            }
            .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_setting_is_in_the_readme_with_its_variable() {
        let readme = include_str!("../README.md");
        for argument in Args::command().get_arguments() {
            let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else {
                continue;
            };
            let row = format!("| `--{flag}` | `{}` |", variable.to_string_lossy());
            assert!(readme.contains(&row), "{row}");
        }
    }

    #[test]
    fn running_is_the_default_and_lists_may_be_repeated_or_joined() {
        let args = Args::parse_from([
            "kindnetd",
            "--node-name=a",
            "--masquerade=false",
            "--no-masquerade-cidr=10.0.0.0/8,fd00::/8",
            "--no-masquerade-cidr=192.168.0.0/16",
        ]);
        assert!(args.command.is_none());
        assert!(!args.run.masquerade);
        assert_eq!(args.run.no_masquerade_cidrs.len(), 3);
    }

    #[test]
    fn subcommands_take_their_own_options() {
        let args = Args::parse_from(["kindnetd", "uninstall", "--wait", "--log-format=json"]);
        assert!(matches!(args.command, Some(Command::Uninstall(u)) if u.wait));
        assert_eq!(args.logging.log_format, LogFormat::Json);
    }
}
