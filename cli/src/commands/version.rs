//! `kindnetctl version`

use anyhow::Result;
use clap::Args;
use kindnet_ui::{OutputFormat, Table, emit, emit_text};
use serde::Serialize;

/// Print the version, and the images it uses by default
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kindnetctl version
  kindnetctl version -o json")]
pub struct VersionArgs {
    /// Print it as data, with the default images
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    node_image: &'static str,
    kindnet_image: &'static str,
    platform: String,
}

pub fn run(args: &VersionArgs) -> Result<()> {
    let version = Version {
        version: concat!("v", env!("CARGO_PKG_VERSION")),
        node_image: kindnet_cluster::names::DEFAULT_NODE_IMAGE,
        kindnet_image: kindnet_api::names::DEFAULT_IMAGE,
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    };
    match args.output {
        None => emit_text(&format!(
            "kindnetctl {} {}\n",
            version.version, version.platform
        )),
        Some(format) => emit(format, &version, || {
            let mut table = Table::new(["version", "platform", "node image", "kindnet image"]);
            table.row([
                version.version,
                &version.platform,
                version.node_image,
                version.kindnet_image,
            ]);
            table
        }),
    }
}
