//! A client for the cluster the user means.

use std::path::PathBuf;

use kindnet_ui::UserError;
use kube::Client;

/// Where the address and the credentials of the cluster come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kubeconfig {
    /// `$KUBECONFIG`, else `~/.kube/config`, as kubectl does.
    #[default]
    Default,
    /// This file.
    Path(PathBuf),
    /// The text of a kubeconfig.
    Text(String),
}

/// Which cluster, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Source of the kubeconfig.
    pub kubeconfig: Kubeconfig,
    /// Context in it; its current context when absent.
    pub context: Option<String>,
}

/// Makes a client. Nothing is sent to the cluster yet.
///
/// # Errors
/// The kubeconfig is missing or broken, or does not have the context.
pub async fn connect(options: &ConnectOptions) -> Result<Client, UserError> {
    let _ = options;
    Err(UserError::failure("not connected"))
}
