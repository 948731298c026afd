//! Takes kindnet off a cluster.

use std::time::Duration;

use kindnet_ui::{Ui, UserError};
use kube::Client;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// How to uninstall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UninstallOptions {
    /// Image whose `kindnetd uninstall` cleans the nodes; the installed one when absent.
    pub image: Option<String>,
    /// How long each step may take.
    pub timeout: Duration,
}

impl Default for UninstallOptions {
    fn default() -> Self {
        Self {
            image: None,
            timeout: Duration::from_secs(120),
        }
    }
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UninstallSummary {
    /// Nodes whose kernel and CNI directory were cleaned.
    pub nodes_cleaned: usize,
    /// Nodes that do not answer, and keep what is on them until they restart.
    pub nodes_skipped: Vec<String>,
    /// Objects that were removed, as `Kind/name`; empty when kindnet was not installed.
    pub removed: Vec<String>,
}

/// Removes the agents, cleans every node, then removes every object, the CRD last. May be repeated,
/// also after an interrupted run.
///
/// # Errors
/// The API server does not answer or refuses; a node was not cleaned in time; cancelled.
pub async fn uninstall(
    client: &Client,
    options: &UninstallOptions,
    ui: &Ui,
    cancel: &CancellationToken,
) -> Result<UninstallSummary, UserError> {
    let _ = (client, options, ui, cancel);
    Err(UserError::failure("nothing removed"))
}
