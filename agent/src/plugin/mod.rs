//! The CNI plugin of pods.
//!
//! Our own one is put into the node's folder of plugins before the CNI configuration names it. Its
//! state outlives the agent and its pods do not, so whatever belongs to sandboxes that are gone is
//! freed at every start and every minute, also after a change to the standard plugins.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kindnet_api::{CniPlugin, names};
use kindnet_cni::agent::{Network, install};
use kindnet_core::conflist::names_our_plugin;

use crate::args::PathArgs;
use crate::metrics::{Kind, Metrics};
use crate::progress::Tracker;

/// Nothing tells of a sandbox that went without DEL, or of flushed rules.
const RESYNC: Duration = Duration::from_secs(60);

/// Before a failed attempt is repeated.
const RETRY: Duration = Duration::from_secs(1);

/// The feature.
pub struct PluginSync {
    pub plugin: CniPlugin,
    pub paths: PathArgs,
    pub progress: Tracker,
    pub metrics: Metrics,
}

impl PluginSync {
    /// Looks after the plugin for ever.
    pub async fn run(self) {
        let mut reported = None;
        loop {
            let paths = self.paths.clone();
            let (plugin, metrics) = (self.plugin, self.metrics.clone());
            let round = tokio::task::spawn_blocking(move || round(plugin, &paths, &metrics))
                .await
                .map_err(anyhow::Error::new)
                .flatten();
            let pause = match round {
                Ok(()) => {
                    reported = None;
                    self.progress.record(|p| p.plugin = true);
                    RESYNC
                }
                Err(error) => {
                    self.metrics.plugin_errors.inc();
                    let text = format!("{error:#}");
                    if reported.as_ref() != Some(&text) {
                        tracing::warn!(
                            error = text,
                            "CNI plugin is not as it should be, will retry"
                        );
                        reported = Some(text);
                    }
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// One look at everything. Blocking.
fn round(plugin: CniPlugin, paths: &PathArgs, metrics: &Metrics) -> anyhow::Result<()> {
    let network = Network::new(&paths.cni_state_dir, names::CNI_NETWORK);
    let updated = match plugin {
        CniPlugin::Kindnet => {
            let updated = install(&program()?, &paths.cni_bin_dir)?;
            if updated {
                let folder = paths.cni_bin_dir.display();
                tracing::info!(%folder, "{} installed", names::CNI_PLUGIN);
            }
            updated
        }
        CniPlugin::Standard => {
            let kept = hand_over(&network, &paths.cni_conf_dir, &paths.ipam_state_dir)?;
            if kept > 0 {
                tracing::info!(
                    addresses = kept,
                    "addresses of running pods handed to host-local"
                );
            }
            false
        }
    };
    let reclaimed = network.reclaim()?;
    if !reclaimed.attachments.is_empty() {
        let count = u64::try_from(reclaimed.addresses).unwrap_or(u64::MAX);
        metrics
            .plugin_changes
            .get_or_create(&Kind { kind: "reclaimed" })
            .inc_by(count);
        tracing::info!(
            addresses = reclaimed.addresses,
            attachments = ?reclaimed.attachments,
            "addresses of vanished sandboxes freed"
        );
    }
    if updated {
        // A new version may want other rules.
        network.restore_host_ports()?;
    } else if network.repair_host_ports()? {
        metrics
            .plugin_changes
            .get_or_create(&Kind { kind: "host_ports" })
            .inc();
        tracing::info!("host ports were gone and are back");
    }
    metrics
        .plugin_attachments
        .set(i64::try_from(network.attachments()?).unwrap_or(i64::MAX));
    Ok(())
}

/// Before the standard plugins take over: host-local must not give the addresses of running pods to
/// new ones. As long as the CNI configuration names our plugin nobody else uses host-local's folder.
/// Returns how many addresses were reserved.
fn hand_over(network: &Network, conf_dir: &Path, ipam_dir: &Path) -> anyhow::Result<usize> {
    match std::fs::read_to_string(conf_dir.join(names::CONFLIST_FILE)) {
        Ok(text) if names_our_plugin(&text) => Ok(network.hand_over_to_host_local(ipam_dir)?),
        Ok(_) => Ok(0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).context("read the CNI configuration"),
    }
}

/// The plugin is shipped beside the agent.
fn program() -> anyhow::Result<PathBuf> {
    let agent = std::env::current_exe().context("find the agent's own program")?;
    Ok(agent.with_file_name(names::CNI_PLUGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_crates_mean_the_same_places() {
        assert_eq!(names::CNI_PLUGIN, kindnet_cni::agent::PLUGIN);
        assert_eq!(names::CNI_STATE_DIR, kindnet_cni::config::DEFAULT_DATA_DIR);
    }

    #[test]
    fn without_our_configuration_there_is_nothing_to_hand_over() {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new(folder.path(), names::CNI_NETWORK);
        assert_eq!(
            hand_over(&network, folder.path(), folder.path()).unwrap(),
            0
        );
        std::fs::write(folder.path().join(names::CONFLIST_FILE), "{}").unwrap();
        assert_eq!(
            hand_over(&network, folder.path(), folder.path()).unwrap(),
            0
        );
    }
}
