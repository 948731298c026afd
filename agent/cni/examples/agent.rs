//! What an agent does with the library: install the plugin, put right what a crash left behind, and
//! give the node back to the standard plugins.
//!
//! `cargo run -p kindnet-cni --example agent -- install|start|periodic|hand-over|uninstall`

use std::path::Path;
use std::process::ExitCode;

use kindnet_cni::agent::{Network, install};
use kindnet_cni::config::DEFAULT_DATA_DIR;

fn main() -> ExitCode {
    match run(&std::env::args().nth(1).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(command: &str) -> kindnet_cni::Result<()> {
    let plugins = Path::new("/opt/cni/bin");
    let network = Network::new(Path::new(DEFAULT_DATA_DIR), "kindnet");
    match command {
        // Before the configuration that names the plugin is written.
        "install" => install(Path::new("/usr/local/bin/kindnet-cni"), plugins).map(drop),
        "start" => {
            network.reclaim()?;
            network.restore_host_ports()
        }
        "periodic" => {
            network.reclaim()?;
            network.repair_host_ports().map(drop)
        }
        // Before the configuration of the standard plugins is written.
        "hand-over" => network
            .hand_over_to_host_local(Path::new("/run/cni-ipam-state"))
            .map(drop),
        _ => network.uninstall(plugins),
    }
}
