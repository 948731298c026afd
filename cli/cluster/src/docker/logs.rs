//! The log of a container.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use kindnet_ui::UserError;
use tokio::time::{Instant, timeout_at};

use super::{Engine, LineBuffer, plain_lines};
use crate::error::{Doing as _, Result};

/// How long a node on cgroup v1 may take from its first words to the end of its boot before it is
/// used anyway.
const V1_PATIENCE: Duration = Duration::from_secs(20);

/// Pause before a log that ended is followed again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

impl Engine {
    /// The log as it is, with escape sequences.
    ///
    /// # Errors
    /// The daemon refuses.
    pub async fn log(&self, container: &str, tail: Option<usize>) -> Result<Vec<u8>> {
        let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(&tail)
            .build();
        let mut stream = self.docker.logs(container, Some(options));
        let mut log = Vec::new();
        while let Some(part) = stream
            .try_next()
            .await
            .doing(|| format!("cannot read the log of {container}"))?
        {
            log.extend_from_slice(&part.into_bytes());
        }
        Ok(log)
    }

    /// Follows the log until a line says that the node has booted.
    ///
    /// On cgroup v2 no command may run before: its process would land in the root cgroup and keep
    /// systemd from delegating controllers (kind's #2409). On cgroup v1 that does no harm, and kind
    /// goes on at once; here kubeadm would then meet a systemd that is not up yet, so a moment is
    /// given to it there, too.
    ///
    /// # Errors
    /// The container ended, or said nothing in time; with the last lines of the log.
    pub async fn wait_for_boot(&self, container: &str, limit: Duration) -> Result<()> {
        let mut stream = self.follow(container);
        let mut buffer = LineBuffer::default();
        let mut deadline = Instant::now() + limit;
        let mut v1 = false;
        let what = loop {
            let part = match timeout_at(deadline, stream.next()).await {
                Ok(Some(part)) => part.doing(|| format!("cannot read the log of {container}"))?,
                // Daemons lose a follower now and then; the log begins anew then, which does no harm.
                Ok(None) if Instant::now() < deadline && self.is_running(container).await => {
                    tokio::time::sleep(FOLLOW_PAUSE).await;
                    stream = self.follow(container);
                    buffer = LineBuffer::default();
                    continue;
                }
                Ok(None) => break format!("{container} ended while it booted"),
                Err(_) if v1 => return Ok(()),
                Err(_) => break format!("{container} did not boot in time"),
            };
            let mut booted = false;
            let mut found_v1 = false;
            buffer.push(&part.into_bytes(), |line| {
                booted |= reached_multi_user(line);
                found_v1 |= line.contains("detected cgroup v1");
            });
            if booted {
                return Ok(());
            }
            if found_v1 && !v1 {
                v1 = true;
                deadline = deadline.min(Instant::now() + V1_PATIENCE);
            }
        };
        let tail = self.log(container, Some(15)).await.unwrap_or_default();
        let tail = plain_lines(&tail).join("\n    ");
        Err(
            UserError::failure(format!("{what}; its last lines:\n    {tail}")).hint(
                "most often inotify limits or cgroups of the host are the cause: \
             `sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288`",
            ),
        )
    }
}

impl Engine {
    fn follow(
        &self,
        container: &str,
    ) -> BoxStream<'static, Result<LogOutput, bollard::errors::Error>> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(true)
            .tail("all")
            .build();
        self.docker.logs(container, Some(options)).boxed()
    }

    async fn is_running(&self, container: &str) -> bool {
        let inspected = self.inspect(container).await;
        inspected.is_ok_and(|c| c.state.is_some_and(|state| state.running == Some(true)))
    }
}

fn reached_multi_user(line: &str) -> bool {
    line.split_once("Reached target ")
        .is_some_and(|(_, target)| target.contains("Multi-User System"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("[  OK  ] Reached target Multi-User System.", true)]
    #[case("[  OK  ] Reached target multi-user.target - Multi-User System.", true)]
    #[case("INFO: detected cgroup v2", false)]
    #[case("[  OK  ] Reached target Basic System.", false)]
    fn boot_lines(#[case] line: &str, #[case] booted: bool) {
        assert_eq!(reached_multi_user(line), booted);
    }
}
