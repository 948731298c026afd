//! `kindnetctl logs`, which is also `kindnetctl export logs`

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use kindnet_cluster::Engine;
use kindnet_ui::{Ui, emit_text};

use crate::args::ClusterName;

/// Write the logs of all nodes to a folder
///
/// The layout is that of `kind export logs`. The folder is printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kindnetctl logs
  kindnetctl logs ./logs --name test")]
pub struct LogsArgs {
    /// Folder to write to [default: a new one below the temporary folder]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterName,
}

pub async fn run(args: LogsArgs, ui: &Ui) -> Result<()> {
    let engine = Engine::connect().await?;
    // Looked up first, so that a wrong name leaves no empty folder behind.
    engine.existing_nodes(&args.cluster.name).await?;
    let folder = match args.dir {
        Some(folder) => folder,
        None => tempfile::Builder::new()
            .prefix("kindnetctl-logs-")
            .tempdir()
            .context("cannot make a temporary folder")?
            .keep(),
    };
    let version = env!("CARGO_PKG_VERSION");
    engine
        .export_logs(&args.cluster.name, version, &folder, ui)
        .await?;
    emit_text(&format!("{}\n", folder.display()))
}
