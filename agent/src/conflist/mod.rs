//! The CNI configuration.
//!
//! The runtime reports the node Ready once the file is there. It is written when everything else is
//! in place, put back when somebody removes or changes it, and left alone when the agent stops:
//! running pods do not need the agent, and their removal needs the file.

mod file;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kindnet_core::conflist::{ConflistPlan, plan, shadowing};
use tokio::sync::watch as channel;

pub use file::{ConflistFile, Removal};
use watch::FolderWatch;

use crate::cluster::{Cluster, chain};
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
    pub mtu: channel::Receiver<Mtu>,
    pub progress: Tracker,
    pub metrics: Metrics,
}

/// Where things stand; logged when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Something has to happen first.
    Waiting(String),
    /// The file is as it should be; names of files that come before it.
    InPlace(Vec<String>),
    /// It could not be read or written.
    Trouble(String),
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
        let mut standing = Standing::Waiting(String::new());
        let mut written: Option<Instant> = None;
        file.remove_leftovers();
        loop {
            changes.mark_unchanged();
            progress.mark_unchanged();
            self.mtu.mark_unchanged();
            // Before the look at the file, so that no change falls between the two.
            folder.arm();
            let now = self.sync(&file, &mut written).await?;
            if now != standing {
                now.log();
                standing = now;
            }
            let retry = match standing {
                Standing::Trouble(_) => PAUSE,
                _ => RESYNC,
            };
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
            return Ok(Standing::Waiting("this node's entry in the API".to_owned()));
        };
        let Mtu::Known(mtu) = *self.mtu.borrow() else {
            return Ok(Standing::Waiting("the MTU".to_owned()));
        };
        let ConflistPlan::Write(conflist) = plan(&own, mtu) else {
            return Ok(Standing::Waiting(format!(
                "a pod subnet: spec.podCIDRs of node {} is empty; if it stays so, the controller \
                 manager runs without --allocate-node-cidrs",
                own.name
            )));
        };
        let missing = self.progress.get().missing_for(&own.pod_cidrs);
        if !missing.is_empty() {
            return Ok(Standing::Waiting(missing.join(", ")));
        }
        let content = conflist.to_json();
        match file.read() {
            Ok(Some(present)) if present == content => {}
            Ok(present) => {
                if let Some(elapsed) = written.map(|at| at.elapsed()) {
                    tokio::time::sleep(PAUSE.saturating_sub(elapsed)).await;
                }
                *written = Some(Instant::now());
                if let Err(error) = file.write(&content) {
                    return self.trouble(&error);
                }
                self.metrics.conflist_writes.inc();
                let before = if present.is_some() {
                    "different"
                } else {
                    "absent"
                };
                tracing::info!(file = %file.path().display(), before, mtu_bytes = mtu, pod_cidrs = ?own.pod_cidrs, "CNI configuration written");
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
        if file::is_orphaned(&self.dir) {
            return Err(std::io::Error::from(error.kind())).with_context(|| {
                format!(
                    "{} was removed while mounted here; a new container gets the new one",
                    self.dir.display()
                )
            });
        }
        Ok(Standing::Trouble(chain(error)))
    }
}

impl Standing {
    fn log(&self) {
        match self {
            Self::Waiting(what) => {
                tracing::info!(waiting_for = what, "CNI configuration not written yet");
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
