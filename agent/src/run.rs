//! Wiring: one task per feature, until told to stop.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use kindnet_net::netlink::Netlink;
use kindnet_net::sysctl::Sysctl;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::RunArgs;
use crate::cluster::{self, Cluster, Endpoints};
use crate::conflist::ConflistSync;
use crate::forwarding::Forwarding;
use crate::health::{self, Health};
use crate::kernel::Kernel;
use crate::masquerade::MasqueradeSync;
use crate::metrics::Metrics;
use crate::plugin::PluginSync;
use crate::progress::Tracker;
use crate::routes::RouteSync;
use crate::uplink::{self, Mtu};

/// Runs the agent until SIGTERM or SIGINT. What it has set up stays: pods keep their network while
/// the agent is replaced.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    // First, so that a signal during start-up is not lost.
    let stop = stop_signal()?;
    let sysctl = Sysctl::new(args.sysctl_root());
    let RunArgs {
        node_name,
        control_plane_endpoint,
        kubeconfig,
        masquerade,
        no_masquerade_cidrs,
        metrics_bind_address,
        cni_plugin,
        paths,
        sysctl_root: _,
    } = args;
    let node_name = node_name
        .filter(|name| !name.is_empty())
        .context("name this node with --node-name or NODE_NAME")?;
    tracing::info!(
        node = node_name,
        version = env!("CARGO_PKG_VERSION"),
        "kindnetd starts"
    );
    let kubeconfig = kubeconfig.filter(|path| !path.as_os_str().is_empty());
    let endpoints = Endpoints::new(&control_plane_endpoint, kubeconfig.as_deref()).await?;
    let netlink = Netlink::open()?;

    let cluster = Cluster::new(&node_name);
    let progress = Tracker::new();
    let kernel = Kernel::new();
    let (metrics, registry) = Metrics::new();
    let mtu = watch::Sender::new(Mtu::Unknown);
    let mut tasks = Tasks::default();

    tasks.spawn(
        ConflistSync {
            cluster: cluster.clone(),
            dir: paths.cni_conf_dir.clone(),
            plugin: cni_plugin,
            mtu: mtu.subscribe(),
            progress: progress.clone(),
            metrics: metrics.clone(),
        }
        .run(),
    );
    tasks.spawn_endless(
        PluginSync {
            plugin: cni_plugin,
            paths,
            progress: progress.clone(),
            metrics: metrics.clone(),
        }
        .run(),
    );
    tasks.spawn(
        MasqueradeSync {
            cluster: cluster.clone(),
            enabled: masquerade,
            excluded: no_masquerade_cidrs,
            progress: progress.clone(),
            metrics: metrics.clone(),
        }
        .run(),
    );
    tasks.spawn_endless(
        RouteSync {
            cluster: cluster.clone(),
            netlink: netlink.clone(),
            kernel: kernel.clone(),
            progress: progress.clone(),
            metrics: metrics.clone(),
        }
        .run(),
    );
    tasks.spawn_endless(
        Forwarding {
            cluster: cluster.clone(),
            sysctl,
            netlink: netlink.clone(),
            progress: progress.clone(),
            metrics: metrics.clone(),
        }
        .run(),
    );
    tasks.spawn_endless(uplink::run(netlink, kernel.clone(), mtu, metrics.clone()));
    tasks.spawn_endless(kernel.run());
    tasks.spawn_endless(cluster::run(endpoints, cluster.clone(), metrics));
    tasks.spawn_endless(health::run(
        metrics_bind_address,
        Health {
            cluster,
            progress,
            registry: Arc::new(registry),
        },
    ));

    tokio::select! {
        () = stop => {
            tracing::info!("kindnetd stops; routes, masquerading and CNI configuration stay");
            Ok(())
        }
        error = tasks.first_failure() => Err(error),
    }
}

/// Resolves on SIGTERM or SIGINT.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tasks that are meant to run for ever. They end with the agent.
#[derive(Default)]
struct Tasks(JoinSet<anyhow::Result<()>>);

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.0.spawn(task);
    }

    fn spawn_endless(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async {
            task.await;
            Ok(())
        });
    }

    /// A task that ended is one that failed: without it the node would drift unnoticed. The agent
    /// ends and is started again.
    async fn first_failure(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => anyhow::Error::new(error).context("a task was lost"),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("a task ended"),
        }
    }
}
