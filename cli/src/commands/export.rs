//! `kindnetctl export`

use anyhow::Result;
use clap::{Args, Subcommand};
use kindnet_cluster::Engine;
use kindnet_cluster::kubeconfig::Files;
use kindnet_ui::Ui;

use crate::args::{ClusterName, KubeconfigFile};
use crate::commands::logs::{self, LogsArgs};

/// Write the logs or the kubeconfig of a cluster
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct ExportArgs {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    Logs(LogsArgs),
    /// Put a cluster into the kubeconfig and make it the current context
    #[command(after_help = "Examples:
  kindnetctl export kubeconfig
  kindnetctl export kubeconfig --name test --kubeconfig ./config")]
    Kubeconfig {
        #[command(flatten)]
        cluster: ClusterName,
        #[command(flatten)]
        kubeconfig: KubeconfigFile,
        /// With the address other containers of the Docker network use
        #[arg(long)]
        internal: bool,
    },
}

pub async fn run(args: ExportArgs, ui: &Ui) -> Result<()> {
    match args.what {
        What::Logs(args) => logs::run(args, ui).await,
        What::Kubeconfig {
            cluster,
            kubeconfig,
            internal,
        } => {
            let files = Files::find(kubeconfig.kubeconfig.as_deref())?;
            let engine = Engine::connect().await?;
            let config = engine.kubeconfig_entry(&cluster.name, internal).await?;
            let path = files.merge(&config).await?;
            let context = kindnet_cluster::names::context(&cluster.name);
            ui.info(format!(
                "The current context of {} is {context}.",
                path.display()
            ));
            Ok(())
        }
    }
}
