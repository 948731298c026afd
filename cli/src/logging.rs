//! Diagnostics for who asked for them: `-v`, or `KINDNET_LOG` with a filter of its own.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Variable with a filter such as `kindnet_cluster=trace`.
const FILTER_VARIABLE: &str = "KINDNET_LOG";

/// `verbose` counts the `-v`.
pub fn init(verbose: u8) {
    let default = match verbose {
        0 => "off",
        1 => {
            "warn,kube_client=off,kindnet_cluster=debug,kindnet_install=debug,kindnet_verify=debug,kindnetctl=debug"
        }
        2 => {
            "info,kube_client=off,kindnet_cluster=trace,kindnet_install=trace,kindnet_verify=trace,kindnetctl=trace"
        }
        _ => "debug",
    };
    let filter =
        EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();
}
