//! kindnet-controller: turns the one `Configuration` object into the agents' DaemonSet and reports
//! back in its status.
//!
//! Runs on the host network of a control-plane node, before any pod network exists. Touches only the
//! DaemonSet `kindnetd`, its own Lease, the status of Configurations, and events.

mod args;
mod connect;
mod daemonset;
mod election;
mod events;
mod health;
mod metrics;
mod reconcile;
mod run;
mod status;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, LogFormat};

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    init_log(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(run::run(args));
    // A watch that never answered must not keep the process alive after it was told to stop.
    runtime.shutdown_background();
    result
}

fn init_log(args: &Args) -> anyhow::Result<()> {
    // The client logs every failed request as an error although its caller handles it.
    let filter = EnvFilter::try_new(format!("{},kube_client::client=off", args.log_level))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
