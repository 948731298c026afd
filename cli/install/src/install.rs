//! Applies the manifests.

use std::time::Duration;

use kindnet_ui::{Ui, UserError};
use kube::Client;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::wait::Readiness;

/// What to install.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstallOptions {
    /// Image of agent and controller; [`kindnet_api::names::DEFAULT_IMAGE`] when absent.
    pub image: Option<String>,
    /// `https://host:port` of the API server as the nodes reach it. Taken from the cluster's
    /// `kube-public/cluster-info` when absent.
    pub control_plane_endpoint: Option<String>,
    /// Sets `spec.masquerade.enabled`; an existing Configuration keeps its value when absent.
    pub masquerade: Option<bool>,
    /// Sets `spec.masquerade.nonMasqueradeCIDRs`; an existing Configuration keeps its list when
    /// absent.
    pub no_masquerade_cidrs: Option<Vec<String>>,
    /// Install next to another network plugin.
    pub force: bool,
    /// How long [`install`] waits for the network to be ready; not at all when absent.
    pub wait: Option<Duration>,
}

/// What was sent to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Image of agent and controller.
    pub image: String,
    /// Endpoint given to the controller.
    pub control_plane_endpoint: Option<String>,
    /// Objects that were made or changed, as `Kind/name`.
    pub changed: Vec<String>,
    /// Number of objects that were as they should be already.
    pub unchanged: usize,
}

/// The result of [`install`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// What was sent.
    pub applied: Applied,
    /// What came of it; absent when nobody waited.
    pub ready: Option<Readiness>,
}

/// Sends the manifests and the Configuration. Waits up to a minute for an API server that is still
/// starting, but for nothing else: no node has to be Ready.
///
/// # Errors
/// Bad options; another network plugin is present and `force` is not set; the API server does not
/// answer or refuses an object; cancelled.
pub async fn apply(
    client: &Client,
    options: &InstallOptions,
    ui: &Ui,
    cancel: &CancellationToken,
) -> Result<Applied, UserError> {
    let _ = (client, options, ui, cancel);
    Err(UserError::failure("nothing applied"))
}

/// [`apply`], then [`crate::wait_ready`] where `options.wait` asks for it.
///
/// # Errors
/// As the two.
pub async fn install(
    client: &Client,
    options: &InstallOptions,
    ui: &Ui,
    cancel: &CancellationToken,
) -> Result<Summary, UserError> {
    let applied = apply(client, options, ui, cancel).await?;
    let ready = match options.wait {
        Some(limit) => Some(crate::wait::wait_ready(client, limit, ui, cancel).await?),
        None => None,
    };
    Ok(Summary { applied, ready })
}
