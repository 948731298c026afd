//! `kindnetctl load`

use anyhow::Result;
use clap::{Args, Subcommand};
use kindnet_cluster::Engine;
use kindnet_ui::{OutputFormat, Table, Ui, UserError, emit};

use crate::args::ClusterName;

/// Load images into the nodes of a cluster
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct LoadArgs {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Load images of the local Docker Engine into the nodes that do not have them
    #[command(
        visible_alias = "docker-image",
        after_help = "Examples:
  kindnetctl load image my/app:dev
  kindnetctl load image my/app:dev my/db:dev --name test --nodes test-worker,test-worker2"
    )]
    Image {
        /// Images of the local Docker Engine
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        #[command(flatten)]
        cluster: ClusterName,
        /// Only into these nodes
        #[arg(long, value_delimiter = ',', value_name = "NODE")]
        nodes: Vec<String>,
        /// Print what happened on each node as data
        #[arg(short, long, value_enum, value_name = "FORMAT")]
        output: Option<OutputFormat>,
    },
}

pub async fn run(args: LoadArgs, ui: &Ui) -> Result<()> {
    let What::Image {
        images,
        cluster,
        nodes,
        output,
    } = args.what;
    let engine = Engine::connect().await?;
    let existing = engine.existing_nodes(&cluster.name).await?;
    let existing: Vec<String> = existing
        .into_iter()
        .filter(|node| node.role.is_node())
        .map(|node| node.name)
        .collect();
    if let Some(unknown) = nodes.iter().find(|node| !existing.contains(node)) {
        let error = UserError::usage(format!("cluster {:?} has no node {unknown}", cluster.name))
            .hint(format!("its nodes are {}", existing.join(", ")));
        return Err(error.into());
    }
    let chosen = if nodes.is_empty() { existing } else { nodes };
    let loaded = engine.load(&chosen, &images, ui).await?;
    match output {
        None => Ok(()),
        Some(format) => emit(format, &loaded, || {
            let mut table = Table::new(["node", "imported"]);
            for node in &loaded {
                table.row([node.node.clone(), node.imported.to_string()]);
            }
            table
        }),
    }
}
