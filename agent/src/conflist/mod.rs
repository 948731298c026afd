//! The CNI configuration.
//!
//! The runtime reports the node Ready once the file is there. It is written when everything else is
//! in place, put back when somebody removes or changes it, and left alone when the agent stops:
//! running pods do not need the agent, and their removal needs the file.

mod file;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kindnet_api::CniPlugin;
use kindnet_core::conflist::{ConflistPlan, plan, shadowing};
use tokio::sync::watch as channel;

pub use file::{ConflistFile, Removal};
use watch::FolderWatch;

use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::progress::Tracker;
use crate::uplink::Mtu;

const RESYNC: Duration = Duration::from_secs(60);

/// Shortest time between two writes, so that two programs that both insist on the file do not keep
/// the disk busy, and before a failed one is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The feature.
pub struct ConflistSync {
    pub cluster: Cluster,
    pub dir: PathBuf,
    pub plugin: CniPlugin,
    pub mtu: channel::Receiver<Mtu>,
    pub progress: Tracker,
    pub metrics: Metrics,
}

/// Where things stand; logged when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Something has to happen first.
    Waiting(Wait),
    /// The file is as it should be; names of files that come before it.
    InPlace(Vec<String>),
    /// It could not be read or written.
    Trouble(String),
}

/// What has to happen first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wait {
    OwnNode,
    Mtu,
    /// A pod subnet, for the node of this name.
    PodCidr(String),
    /// Other features.
    Features(String),
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OwnNode => f.write_str("this node's entry in the API"),
            Self::Mtu => f.write_str("the MTU of the uplink"),
            Self::PodCidr(node) => write!(
                f,
                "a pod subnet: spec.podCIDRs of node {node} is empty; if it stays so, the \
                 controller manager runs without --allocate-node-cidrs"
            ),
            Self::Features(names) => f.write_str(names),
        }
    }
}

impl ConflistSync {
    /// Keeps the file as it should be for ever.
    ///
    /// # Errors
    /// The folder was removed under its mount, and only a new container gets it back.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let file = ConflistFile::new(&self.dir);
        let mut folder = FolderWatch::new(&self.dir);
        let mut changes = self.cluster.subscribe();
        let mut progress = self.progress.subscribe();
        let mut standing = None;
        let mut written: Option<Instant> = None;
        file.remove_leftovers();
        loop {
            changes.mark_unchanged();
            progress.mark_unchanged();
            self.mtu.mark_unchanged();
            // Before the look at the file, so that no change falls between the two.
            folder.arm();
            let now = self.sync(&file, &mut written).await?;
            let retry = match now {
                Standing::Trouble(_) => PAUSE,
                _ => RESYNC,
            };
            if standing.as_ref() != Some(&now) {
                now.log();
                standing = Some(now);
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = progress.changed() => {}
                _ = self.mtu.changed() => {}
                () = folder.changed() => {}
                () = tokio::time::sleep(retry) => {}
            }
        }
    }

    async fn sync(
        &self,
        file: &ConflistFile,
        written: &mut Option<Instant>,
    ) -> anyhow::Result<Standing> {
        let Some(own) = self.cluster.own() else {
            return Ok(Standing::Waiting(Wait::OwnNode));
        };
        let Mtu::Known(mtu) = *self.mtu.borrow() else {
            return Ok(Standing::Waiting(Wait::Mtu));
        };
        let ConflistPlan::Write(conflist) = plan(&own, self.plugin, mtu) else {
            return Ok(Standing::Waiting(Wait::PodCidr(own.name)));
        };
        let missing = self.progress.get().missing_for(&own.pod_cidrs);
        if !missing.is_empty() {
            return Ok(Standing::Waiting(Wait::Features(missing.join(", "))));
        }
        let content = conflist.to_json();
        match file.read() {
            Ok(Some(present)) if present == content => {}
            Ok(present) => {
                if let Some(elapsed) = written.map(|at| at.elapsed()) {
                    tokio::time::sleep(PAUSE.saturating_sub(elapsed)).await;
                }
                *written = Some(Instant::now());
                // Once more at once: the folder may have been removed and made anew in between.
                if let Err(error) = file.write(&content).or_else(|_| file.write(&content)) {
                    return self.trouble(&error);
                }
                self.metrics.conflist_writes.inc();
                let before = if present.is_some() {
                    "different"
                } else {
                    "absent"
                };
                tracing::info!(file = %file.path().display(), before, plugin = %self.plugin, mtu_bytes = mtu, pod_cidrs = ?own.pod_cidrs, "CNI configuration written");
            }
            Err(error) => return self.trouble(&error),
        }
        self.progress.record(|p| p.conflist = true);
        let names = file.neighbours();
        let before = shadowing(names.iter().map(String::as_str));
        Ok(Standing::InPlace(
            before.into_iter().map(str::to_owned).collect(),
        ))
    }

    fn trouble(&self, error: &std::io::Error) -> anyhow::Result<Standing> {
        self.metrics.conflist_errors.inc();
        let dir = self.dir.display();
        anyhow::ensure!(
            !file::is_orphaned(&self.dir, error),
            "{dir} was removed while it is mounted here; a new container gets the new one"
        );
        // Not the whole error: it names a temporary file, another one each time.
        Ok(Standing::Trouble(format!("{dir}: {}", error.kind())))
    }
}

impl Standing {
    fn log(&self) {
        match self {
            // The other features take milliseconds, and say so themselves when they do not.
            Self::Waiting(Wait::Features(names)) => {
                tracing::debug!(waiting_for = names, "CNI configuration not written yet");
            }
            Self::Waiting(wait) => {
                tracing::info!(waiting_for = %wait, "CNI configuration not written yet");
            }
            Self::InPlace(before) if before.is_empty() => {}
            Self::InPlace(before) => tracing::warn!(
                ?before,
                "other CNI configuration sorts before ours; the runtime uses the first"
            ),
            Self::Trouble(error) => {
                tracing::warn!(error, "cannot write the CNI configuration, will retry");
            }
        }
    }
}
