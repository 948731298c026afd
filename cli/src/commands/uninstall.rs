//! `kindnetctl uninstall`

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use kindnet_install::UninstallOptions;
use kindnet_ui::{OutputFormat, Table, Ui, emit};
use tokio_util::sync::CancellationToken;

use crate::args::duration;
use crate::commands::Target;

/// Remove kindnet from a cluster, with every trace on its nodes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kindnetctl uninstall
  kindnetctl uninstall --name test")]
pub struct UninstallArgs {
    #[command(flatten)]
    pub target: Target,
    /// Image that cleans the nodes [default: the installed one]
    #[arg(long, value_name = "IMAGE")]
    pub kindnet_image: Option<String>,
    /// How long each step may take
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = duration)]
    pub timeout: Duration,
    /// Print what was removed as data
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

pub async fn run(args: UninstallArgs, ui: &Ui, cancel: &CancellationToken) -> Result<()> {
    let client = args.target.connect().await?;
    let options = UninstallOptions {
        image: args.kindnet_image,
        timeout: args.timeout,
    };
    let summary = kindnet_install::uninstall(&client, &options, ui, cancel).await?;
    if summary.removed.is_empty() {
        ui.info("kindnet was not installed.");
    }
    for node in &summary.nodes_skipped {
        ui.warn(format!(
            "{node} does not answer and keeps what is on it until it restarts"
        ));
    }
    match args.output {
        None => Ok(()),
        Some(format) => emit(format, &summary, || {
            let mut table = Table::new(["removed"]);
            for object in &summary.removed {
                table.row([object]);
            }
            table
        }),
    }
}
