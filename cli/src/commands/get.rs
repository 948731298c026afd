//! `kindnetctl get`

use anyhow::Result;
use clap::{Args, Subcommand};
use kindnet_cluster::Engine;
use kindnet_cluster::list::Node;
use kindnet_ui::{OutputFormat, Table, Ui, emit, emit_text};

use crate::args::ClusterName;

/// Show clusters, their nodes, or a kubeconfig
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct GetArgs {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Show all clusters, made by kindnetctl or by kind
    #[command(after_help = "Examples:
  kindnetctl get clusters
  kindnetctl get clusters -o json")]
    Clusters {
        #[command(flatten)]
        format: Format,
    },
    /// Show the nodes of a cluster
    #[command(after_help = "Examples:
  kindnetctl get nodes
  kindnetctl get nodes --all -o yaml")]
    Nodes {
        #[command(flatten)]
        cluster: ClusterName,
        /// Of all clusters
        #[arg(short = 'A', long, conflicts_with = "name")]
        all: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Print the kubeconfig of a cluster
    #[command(after_help = "Examples:
  kindnetctl get kubeconfig > config
  kindnetctl get kubeconfig --internal    for use inside the Docker network")]
    Kubeconfig {
        #[command(flatten)]
        cluster: ClusterName,
        /// With the address other containers of the Docker network use
        #[arg(long)]
        internal: bool,
    },
}

#[derive(Debug, Args)]
pub struct Format {
    /// Format of the data
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: OutputFormat,
}

pub async fn run(args: GetArgs, ui: &Ui) -> Result<()> {
    let engine = Engine::connect().await?;
    match args.what {
        What::Clusters { format } => {
            let clusters = engine.clusters().await?;
            if clusters.is_empty() && format.output == OutputFormat::Table {
                ui.info("There are no clusters; make one with `kindnetctl up`.");
                return Ok(());
            }
            emit(format.output, &clusters, || {
                let mut table = Table::new(["name", "nodes", "running"]);
                table.right(1).right(2);
                for cluster in &clusters {
                    let running = cluster
                        .nodes
                        .iter()
                        .filter(|node| node.is_running())
                        .count();
                    let counts = [cluster.nodes.len().to_string(), running.to_string()];
                    let [nodes, running] = counts;
                    table.row([cluster.name.clone(), nodes, running]);
                }
                table
            })
        }
        What::Nodes {
            cluster,
            all,
            format,
        } => {
            let nodes = if all {
                engine
                    .clusters()
                    .await?
                    .into_iter()
                    .flat_map(|cluster| cluster.nodes)
                    .collect()
            } else {
                engine.existing_nodes(&cluster.name).await?
            };
            emit(format.output, &nodes, || node_table(&nodes))
        }
        What::Kubeconfig { cluster, internal } => {
            emit_text(&engine.kubeconfig(&cluster.name, internal).await?)
        }
    }
}

/// Nodes as a table.
pub fn node_table(nodes: &[Node]) -> Table {
    let mut table = Table::new(["name", "role", "state", "ipv4", "ipv6"]);
    for node in nodes {
        let shown = |ip: Option<std::net::IpAddr>| ip.map_or("-".to_owned(), |ip| ip.to_string());
        table.row([
            node.name.clone(),
            node.role.label().to_owned(),
            node.state.clone(),
            shown(node.ipv4),
            shown(node.ipv6),
        ]);
    }
    table
}
