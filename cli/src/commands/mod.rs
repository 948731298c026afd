//! One file a verb: an arguments struct and what it does.

pub mod completion;
pub mod down;
pub mod export;
pub mod get;
pub mod install;
pub mod load;
pub mod logs;
pub mod uninstall;
pub mod up;
pub mod verify;
pub mod version;

use anyhow::Result;
use kindnet_cluster::{Engine, names};
use kindnet_install::{ConnectOptions, Kubeconfig};
use kindnet_ui::{ExitCode, Ui, UserError};
use tokio_util::sync::CancellationToken;

use crate::args::Command;

/// Runs a command.
///
/// # Errors
/// Whatever it meets; shown by the caller.
pub async fn run(command: Command, ui: &Ui, cancel: &CancellationToken) -> Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args, ui, cancel).await?,
        Command::Down(args) => down::run(args, ui).await?,
        Command::Get(args) => stoppable(get::run(args, ui), cancel).await?,
        Command::Install(args) => install::run(args, ui, cancel).await?,
        Command::Uninstall(args) => uninstall::run(args, ui, cancel).await?,
        Command::Verify(args) => return verify::run(args, ui, cancel).await,
        Command::Load(args) => stoppable(load::run(args, ui), cancel).await?,
        Command::Export(args) => stoppable(export::run(args, ui), cancel).await?,
        Command::Logs(args) => stoppable(logs::run(args, ui), cancel).await?,
        Command::Version(args) => version::run(&args)?,
        Command::Completion(args) => completion::run(&args)?,
    }
    Ok(ExitCode::Success)
}

/// For what leaves nothing behind when it is dropped.
async fn stoppable(
    work: impl Future<Output = Result<()>>,
    cancel: &CancellationToken,
) -> Result<()> {
    tokio::select! {
        result = work => result,
        () = cancel.cancelled() => Err(UserError::interrupted().into()),
    }
}

/// The cluster of a kubeconfig context, or one in Docker.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Kubeconfig [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long)]
    pub context: Option<String>,
    /// Name of a cluster made by kindnetctl or kind, instead of a context
    #[arg(short, long, conflicts_with = "context", value_name = "NAME")]
    pub name: Option<String>,
}

impl Target {
    /// A client for the cluster, which answers.
    ///
    /// # Errors
    /// The kubeconfig cannot be used, there is no such cluster, or it does not answer.
    pub async fn connect(&self) -> Result<kube::Client, UserError> {
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::Path(path.clone()),
            None => Kubeconfig::Default,
        };
        let context = match &self.name {
            Some(name) => Some(names::context(name)),
            None => self.context.clone(),
        };
        let mut options = ConnectOptions {
            kubeconfig,
            context,
        };
        if let (Some(name), None) = (&self.name, &self.kubeconfig) {
            // Its own node knows best: an entry in the kubeconfig may be missing, or of an older
            // cluster of this name. A cluster on another machine has nothing but its entry.
            match of_node(name).await {
                Ok(text) => options.kubeconfig = Kubeconfig::Text(text),
                Err(error) if kindnet_install::connect(&options).await.is_err() => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        kindnet_install::reach(&options).await
    }
}

async fn of_node(cluster: &str) -> Result<String, UserError> {
    let engine = Engine::connect().await?;
    engine.kubeconfig(cluster, false).await
}
