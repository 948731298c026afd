//! `kindnetctl down`

use anyhow::Result;
use clap::Args;
use kindnet_cluster::Engine;
use kindnet_cluster::kubeconfig::Files;
use kindnet_ui::{OutputFormat, Table, Ui, emit};

use crate::args::{ClusterName, KubeconfigFile};

/// Take a cluster down, made by kindnetctl or by kind
///
/// A cluster that does not exist is no error. The Docker network stays: other clusters use it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kindnetctl down
  kindnetctl down --name test")]
pub struct DownArgs {
    #[command(flatten)]
    pub cluster: ClusterName,
    #[command(flatten)]
    pub kubeconfig: KubeconfigFile,
    /// Print what was removed as data
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// Is not stopped by the first Ctrl-C: half a cluster is worth nothing.
pub async fn run(args: DownArgs, ui: &Ui) -> Result<()> {
    let files = Files::find(args.kubeconfig.kubeconfig.as_deref())?;
    let engine = Engine::connect().await?;
    let deleted = engine.delete(&args.cluster.name, &files, ui).await?;
    if deleted.nodes.is_empty() {
        ui.info(format!(
            "There is no cluster named {:?}; nothing to do.",
            deleted.name
        ));
    }
    match args.output {
        None => Ok(()),
        Some(format) => emit(format, &deleted, || {
            let mut table = Table::new(["removed"]);
            for node in &deleted.nodes {
                table.row([node]);
            }
            table
        }),
    }
}
