//! From nothing to a cluster whose pods talk.
//!
//! Everything that does not depend on each other happens at the same time: all nodes boot at once,
//! workers join while the control plane still finishes, images stream into the nodes and manifests
//! are applied meanwhile. What was made is removed again when any part fails or the user stops it.

mod api;
mod boot;
mod janitor;
mod kubeadm;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use kindnet_ui::{Step, Ui, UserError};
use kube::Client;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::docker::{Engine, Network, NetworkOrigin};
use crate::error::Result;
use crate::kubeconfig::Files;
use crate::names::{self, Role};
use crate::preflight;
use crate::spec::{ClusterSpec, IpFamily};
use janitor::Janitor;

/// Work to be done beside the start of a cluster, from the moment its API server answers.
pub type Proof = Box<dyn FnOnce(Client) -> BoxFuture<'static, Result<()>> + Send>;

/// How to make a cluster.
pub struct UpOptions {
    /// How long nodes, agents and CoreDNS may take after the API server answers; nobody waits
    /// when zero.
    pub wait: Duration,
    /// Keep what was made when something fails.
    pub retain: bool,
    /// The kubeconfig.
    pub files: Files,
    /// Proof that the network works, awaited at the end. Dropped when nobody waits.
    pub proof: Option<Proof>,
}

/// A cluster that was made.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// Name.
    pub name: String,
    /// Address families.
    pub ip_family: IpFamily,
    /// Version of Kubernetes.
    pub kubernetes_version: String,
    /// Node image.
    pub image: String,
    /// Image of agent and controller.
    pub kindnet_image: String,
    /// Context in the kubeconfig.
    pub context: String,
    /// The kubeconfig that was written.
    pub kubeconfig: PathBuf,
    /// URL of the API server.
    pub server: String,
    /// Nodes.
    pub nodes: Vec<crate::list::Node>,
    /// Whether everything was seen to be ready.
    pub ready: bool,
}

/// Makes a cluster.
///
/// # Errors
/// Something stands in the way, fails, or is not ready in time; `cancel` fires. Unless `retain` is
/// set, nothing is left behind.
pub async fn up(
    engine: &Engine,
    spec: &ClusterSpec,
    options: UpOptions,
    ui: &Ui,
    cancel: &CancellationToken,
) -> Result<Created> {
    let janitor = Janitor::new(engine.clone());
    let (retain, files) = (options.retain, options.files.clone());
    let result = tokio::select! {
        result = make(engine, spec, options, ui, cancel, &janitor) => result,
        () = cancel.cancelled() => Err(UserError::interrupted()),
    };
    if let Err(error) = &result
        && janitor.has_work().await
    {
        if retain {
            ui.info(format!(
                "Kept what was made (--retain). Look around with `docker exec -it {plane} bash`, or \
                 `kindnetctl export kubeconfig --name {name}` and kubectl where the API server \
                 answers; then `kindnetctl down --name {name}`",
                plane = names::control_plane(&spec.name),
                name = spec.name
            ));
        } else {
            tracing::debug!(%error, "removing what was made");
            let step = ui.step("Removing what was made");
            match janitor.clean(&spec.name, &files).await {
                Ok(()) => step.done(),
                Err(error) => ui.warn(format!(
                    "not everything was removed: {error}; try `kindnetctl down --name {}`",
                    spec.name
                )),
            }
        }
    }
    result
}

async fn make(
    engine: &Engine,
    spec: &ClusterSpec,
    options: UpOptions,
    ui: &Ui,
    cancel: &CancellationToken,
    janitor: &Janitor,
) -> Result<Created> {
    let step = ui.step("Checking this machine");
    options.files.check().await?;
    let observed = preflight::observe(engine, spec).await?;
    preflight::check(spec, &observed, ui)?;
    step.done();

    let (network, ()) = tokio::try_join!(
        network(engine, spec, observed.network.clone(), janitor, ui),
        images(engine, spec, &observed, ui),
    )?;
    preflight::suits(spec, &network)?;
    run::run(engine, spec, options, ui, cancel, janitor, &network).await
}

/// Uses the network that is there, or makes it.
async fn network(
    engine: &Engine,
    spec: &ClusterSpec,
    found: Option<Network>,
    janitor: &Janitor,
    ui: &Ui,
) -> Result<Network> {
    if let Some(network) = found {
        return Ok(network);
    }
    let step = ui.step(format!("Creating the Docker network {}", spec.network));
    let (network, origin) = engine
        .create_network(&spec.network, spec.family.has_v6())
        .await?;
    if origin == NetworkOrigin::Created {
        janitor.made_network(&network.id).await;
    }
    step.done();
    Ok(network)
}

/// Pulls what is not there, both at once.
async fn images(
    engine: &Engine,
    spec: &ClusterSpec,
    observed: &preflight::Observed,
    ui: &Ui,
) -> Result<()> {
    let mut missing = Vec::new();
    if observed.node_image.is_none() {
        missing.push((&spec.image, None));
    }
    if observed.kindnet_image.is_none() {
        let hint = "build it with `just image` and name it with --kindnet-image";
        missing.push((&spec.kindnet_image, Some(hint)));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let step = ui.step("Pulling images");
    let pulls = missing
        .into_iter()
        .map(|(image, hint)| pull(engine, image, hint, &step));
    join_all(pulls).await.into_iter().collect::<Result<()>>()?;
    step.done();
    Ok(())
}

async fn pull(engine: &Engine, image: &str, hint: Option<&str>, step: &Step) -> Result<()> {
    let child = step.child(image.split('@').next().unwrap_or(image));
    let pulled = engine
        .pull(image, |progress| child.bytes(progress.done, progress.total))
        .await;
    match (pulled, hint) {
        (Err(error), Some(hint)) => Err(error.hint(hint)),
        (Err(error), None) => Err(error),
        (Ok(()), _) => {
            child.done();
            Ok(())
        }
    }
}

/// Names of the nodes of a role.
fn of_role(spec: &ClusterSpec, role: Role) -> Vec<String> {
    spec.nodes()
        .into_iter()
        .filter(|node| node.1 == role)
        .map(|node| node.0)
        .collect()
}
