//! kindnetd, the agent on every node.
//!
//! It watches the Nodes and keeps five things of its own node as they should be: the CNI plugin, the
//! CNI configuration, the routes to the pods of other nodes, masquerading of what pods send out of
//! the cluster, and forwarding. Each is a feature in a folder of its own with a task that recomputes
//! when something may have changed, and every minute.

mod args;
mod cluster;
mod conflist;
mod forwarding;
mod health;
mod kernel;
mod logging;
mod masquerade;
mod metrics;
mod plugin;
mod progress;
mod routes;
mod run;
mod uninstall;
mod uplink;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;

use args::{Args, Command};

/// How long tasks in the middle of something get to finish. The datapath does not depend on them.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init(&args.logging);
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(async {
                match args.command {
                    Some(Command::Uninstall(uninstall)) => uninstall::run(uninstall).await,
                    Some(Command::Run(run)) => run::run(run).await,
                    None => run::run(args.run).await,
                }
            });
            runtime.shutdown_timeout(SHUTDOWN_GRACE);
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
