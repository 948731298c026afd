//! `kindnetctl install`

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use kindnet_install::InstallOptions;
use kindnet_ui::{OutputFormat, Table, Ui, emit};
use tokio_util::sync::CancellationToken;

use crate::args::duration;
use crate::commands::Target;

/// Install kindnet onto any cluster, from the manifests in this program
///
/// May be repeated: what is as it should be stays.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kindnetctl install
  kindnetctl install --name test --kindnet-image localhost/kindnet:dev
  kindnetctl install --no-masquerade-cidr 192.168.0.0/16")]
pub struct InstallArgs {
    #[command(flatten)]
    pub target: Target,
    /// Image of agent and controller; the nodes must be able to get it
    #[arg(long, value_name = "IMAGE")]
    pub kindnet_image: Option<String>,
    /// URL of the API server as the nodes reach it [default: from the cluster]
    #[arg(long, value_name = "URL")]
    pub control_plane_endpoint: Option<String>,
    /// Whether what pods send out of the cluster gets the address of its node
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub masquerade: Option<bool>,
    /// Destinations that see the address of the pod; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub no_masquerade_cidr: Vec<String>,
    /// Install next to another network plugin
    #[arg(long)]
    pub force: bool,
    /// How long to wait for the network to be ready; 0 does not wait
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = duration)]
    pub wait: Duration,
    /// Print what was done as data
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

pub async fn run(args: InstallArgs, ui: &Ui, cancel: &CancellationToken) -> Result<()> {
    let client = args.target.connect().await?;
    let cidrs = args.no_masquerade_cidr;
    let options = InstallOptions {
        image: args.kindnet_image,
        control_plane_endpoint: args.control_plane_endpoint,
        masquerade: args.masquerade,
        no_masquerade_cidrs: (!cidrs.is_empty()).then_some(cidrs),
        force: args.force,
        patience: None,
        wait: (!args.wait.is_zero()).then_some(args.wait),
    };
    let summary = kindnet_install::install(&client, &options, ui, cancel).await?;
    match args.output {
        None => Ok(()),
        Some(format) => emit(format, &summary, || {
            let mut table = Table::new(["changed"]);
            for object in &summary.applied.changed {
                table.row([object]);
            }
            table
        }),
    }
}
