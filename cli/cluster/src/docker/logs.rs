//! The log of a container.

use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{StreamExt as _, TryStreamExt as _};
use kindnet_ui::UserError;

use super::{Engine, LineBuffer, plain_lines};
use crate::error::{Doing as _, Result};

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
    /// systemd from delegating controllers (kind's #2409).
    ///
    /// # Errors
    /// The container ended, or said nothing in time; with the last lines of the log.
    pub async fn wait_for_boot(&self, container: &str, limit: Duration) -> Result<()> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(true)
            .tail("all")
            .build();
        let mut stream = self.docker.logs(container, Some(options));
        let mut buffer = LineBuffer::default();
        let booted = async {
            while let Some(part) = stream.next().await {
                let part = part.doing(|| format!("cannot read the log of {container}"))?;
                let mut found = false;
                buffer.push(&part.into_bytes(), |line| found |= says_booted(line));
                if found {
                    return Ok(true);
                }
            }
            Ok::<_, UserError>(false)
        };
        let what = match tokio::time::timeout(limit, booted).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => format!("{container} ended while it booted"),
            Ok(Err(error)) => return Err(error),
            Err(_) => format!(
                "{container} did not boot within {} seconds",
                limit.as_secs()
            ),
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

/// kind's pattern: `Reached target .*Multi-User System.*|detected cgroup v1`.
fn says_booted(line: &str) -> bool {
    line.contains("detected cgroup v1")
        || line
            .split_once("Reached target ")
            .is_some_and(|(_, target)| target.contains("Multi-User System"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("[  OK  ] Reached target Multi-User System.", true)]
    #[case("[  OK  ] Reached target multi-user.target - Multi-User System.", true)]
    #[case("INFO: detected cgroup v1", true)]
    #[case("INFO: detected cgroup v2", false)]
    #[case("[  OK  ] Reached target Basic System.", false)]
    fn boot_lines(#[case] line: &str, #[case] booted: bool) {
        assert_eq!(says_booted(line), booted);
    }
}
