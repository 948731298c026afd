//! `kindnetctl up`

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use kindnet_cluster::create::{self, Created, Proof, UpOptions};
use kindnet_cluster::kubeconfig::Files;
use kindnet_cluster::{ClusterSpec, Engine, Settings};
use kindnet_ui::{OutputFormat, Table, Timing, Ui, emit, emit_text};
use kindnet_verify::QuickOptions;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{ClusterName, Family, KubeconfigFile, duration};

/// Make a cluster with kindnet in it
///
/// Everything is checked before anything is made. When something fails or is interrupted, what was
/// made is removed again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kindnetctl up
  kindnetctl up --name test --ipfamily dual --workers 2
  kindnetctl up --image kindest/node:v1.34.0 --kindnet-image localhost/kindnet:dev
  kindnetctl up --pod-subnet 10.200.0.0/16 --service-subnet 10.201.0.0/16
  kindnetctl up -o json --timings")]
pub struct UpArgs {
    #[command(flatten)]
    pub cluster: ClusterName,
    /// Address families
    #[arg(long, value_enum, default_value = "ipv4", value_name = "FAMILY")]
    pub ipfamily: Family,
    /// Number of worker nodes, beside the one control plane
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=100))]
    pub workers: u16,
    /// Node image [default: the kindest/node this version was made for]
    #[arg(long)]
    pub image: Option<String>,
    /// Image of agent and controller, from the local Docker Engine or a registry
    #[arg(long, value_name = "IMAGE")]
    pub kindnet_image: Option<String>,
    /// How long the cluster may take to be ready once its API server answers; 0 does not wait
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = duration)]
    pub wait: Duration,
    /// Keep the nodes when something fails, to look into it
    #[arg(long)]
    pub retain: bool,
    #[command(flatten)]
    pub kubeconfig: KubeconfigFile,
    /// Prefix of pods, or one per family with a comma between
    #[arg(long, value_name = "CIDR[,CIDR]")]
    pub pod_subnet: Option<String>,
    /// Prefix of Services, or one per family with a comma between
    #[arg(long, value_name = "CIDR[,CIDR]")]
    pub service_subnet: Option<String>,
    /// Print how long each step took
    #[arg(long)]
    pub timings: bool,
    /// Print the cluster as data
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    #[serde(flatten)]
    cluster: Created,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timings: Vec<Timing>,
}

pub async fn run(args: UpArgs, ui: &Ui, cancel: &CancellationToken) -> Result<()> {
    let spec = ClusterSpec::new(&Settings {
        name: args.cluster.name,
        family: args.ipfamily.into(),
        workers: args.workers.into(),
        image: args.image,
        kindnet_image: args.kindnet_image,
        pod_subnet: args.pod_subnet,
        service_subnet: args.service_subnet,
    })?;
    let files = Files::find(args.kubeconfig.kubeconfig.as_deref())?;
    let engine = tokio::select! {
        engine = Engine::connect() => engine?,
        () = cancel.cancelled() => return Err(kindnet_ui::UserError::interrupted().into()),
    };
    let options = UpOptions {
        wait: args.wait,
        retain: args.retain,
        files,
        proof: Some(proof(&spec, args.wait, cancel)),
    };
    let created = create::up(&engine, &spec, options, ui, cancel).await?;

    let summary = Summary {
        cluster: created,
        seconds: ui.elapsed().as_secs_f64(),
        timings: if args.timings {
            ui.timings()
        } else {
            Vec::new()
        },
    };
    let cluster = &summary.cluster;
    let state = if cluster.ready { "ready" } else { "starting" };
    let (name, context) = (&cluster.name, &cluster.context);
    ui.info(format!(
        "\nCluster {name} is {state} after {:.1} s. Next:",
        summary.seconds
    ));
    ui.info(format!("  kubectl --context {context} get nodes"));
    ui.info(format!("  kindnetctl verify --name {name}"));
    ui.info(format!("  kindnetctl down --name {name}"));
    match args.output {
        Some(format) => emit(format, &summary, || nodes(cluster)),
        None if args.timings => emit_text(&timings(&summary.timings).render()),
        None => Ok(()),
    }
}

/// Pods on every node reach each other; runs beside everything else that still has to start.
fn proof(spec: &ClusterSpec, timeout: Duration, cancel: &CancellationToken) -> Proof {
    let options = QuickOptions {
        nodes: spec.nodes().into_iter().map(|(name, _)| name).collect(),
        image: spec.kindnet_image.clone(),
        timeout,
    };
    let cancel = cancel.clone();
    Box::new(move |client| Box::pin(kindnet_verify::quick(client, options, cancel)))
}

fn nodes(cluster: &Created) -> Table {
    super::get::node_table(&cluster.nodes)
}

fn timings(timings: &[Timing]) -> Table {
    let mut table = Table::new(["step", "start", "duration"]);
    table.right(1).right(2);
    for timing in timings {
        table.row([
            timing.name.clone(),
            format!("{:.1}", timing.start_secs),
            format!("{:.1}", timing.duration_secs),
        ]);
    }
    table
}
