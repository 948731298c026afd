//! Flags of the controller.

use std::net::SocketAddr;

use kindnet_api::{endpoint, names};

/// Turns the Configuration into the agents' DaemonSet and reports back in its status.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = names::CONTROLLER_NAME, version)]
pub struct Args {
    /// API server to use while the cluster's own Service address does not work yet, as
    /// https://host:port. The Service address is used where this one does not answer.
    #[arg(long, env = endpoint::ENDPOINT_ENV, value_name = "URL", value_parser = endpoint_value)]
    pub control_plane_endpoint: Option<Endpoint>,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDRESS", default_value_t = default_bind_address())]
    pub bind_address: SocketAddr,

    /// Name in the leader election; unique among the replicas.
    #[arg(long, env = "POD_NAME", default_value_t = process_identity())]
    pub identity: String,

    /// Format of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Filter of the log, for example info or kindnet_controller=debug.
    #[arg(long, env = "KINDNET_LOG", default_value = "info")]
    pub log_level: String,
}

/// An optional endpoint: an empty value, as a manifest may hold, means none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub Option<http::Uri>);

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn endpoint_value(text: &str) -> Result<Endpoint, String> {
    if text.is_empty() {
        return Ok(Endpoint(None));
    }
    if !endpoint::is_endpoint(text) {
        return Err("not of the form https://host:port".into());
    }
    text.parse()
        .map(|uri| Endpoint(Some(uri)))
        .map_err(|error: http::uri::InvalidUri| error.to_string())
}

fn default_bind_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], names::CONTROLLER_METRICS_PORT))
}

fn process_identity() -> String {
    format!("{}-{}", names::CONTROLLER_NAME, std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_empty_endpoint_means_none() {
        let args =
            Args::try_parse_from(["kindnet-controller", "--control-plane-endpoint="]).unwrap();
        assert_eq!(args.control_plane_endpoint, Some(Endpoint(None)));
    }

    #[test]
    fn an_endpoint_without_port_is_refused() {
        let error = Args::try_parse_from([
            "kindnet-controller",
            "--control-plane-endpoint",
            "https://api.example.test",
        ])
        .unwrap_err();
        assert!(error.to_string().contains("https://host:port"), "{error}");
    }
}
