//! Everything there is to read about a cluster, in the layout of `kind export logs`.

use std::path::Path;

use futures_util::future::join_all;
use kindnet_ui::{Step, Ui, UserError};

use crate::docker::{Engine, Stream, plain_lines};
use crate::error::{Doing as _, Result};
use crate::list::Node;

/// Commands whose output is kept, by file name.
const COMMANDS: [(&str, &[&str]); 5] = [
    ("kubernetes-version.txt", &["cat", "/kind/version"]),
    ("journal.log", &["journalctl", "--no-pager"]),
    (
        "kubelet.log",
        &["journalctl", "--no-pager", "-u", "kubelet.service"],
    ),
    (
        "containerd.log",
        &["journalctl", "--no-pager", "-u", "containerd.service"],
    ),
    ("images.log", &["crictl", "images"]),
];

impl Engine {
    /// Writes the logs of all nodes below a folder. What cannot be had of a node is left out with
    /// a warning; a node that does not run has its container's log only.
    ///
    /// # Errors
    /// There is no such cluster, or the folder cannot be written.
    pub async fn export_logs(
        &self,
        cluster: &str,
        version: &str,
        to: &Path,
        ui: &Ui,
    ) -> Result<()> {
        let nodes = self.existing_nodes(cluster).await?;
        let cannot = || format!("cannot write logs to {}", to.display());
        fs_err::create_dir_all(to).doing(cannot)?;
        // The name a reader of kind's exports looks for.
        fs_err::write(
            to.join("kind-version.txt"),
            format!("kindnetctl {version}\n"),
        )
        .doing(cannot)?;
        let info = self
            .docker
            .info()
            .await
            .doing(|| "cannot ask the daemon".into())?;
        let info = serde_json::to_vec_pretty(&info).unwrap_or_default();
        fs_err::write(to.join("docker-info.txt"), info).doing(cannot)?;

        let step = ui.step(format!("Exporting the logs of cluster {cluster}"));
        let exports = nodes
            .iter()
            .filter(|node| node.role.is_node())
            .map(|node| self.export_node(node, to.join(&node.name), ui, &step));
        let results: Vec<Result<(), UserError>> = join_all(exports).await;
        results.into_iter().collect::<Result<()>>()?;
        step.done_with(to.display().to_string());
        Ok(())
    }

    async fn export_node(
        &self,
        node: &Node,
        folder: std::path::PathBuf,
        ui: &Ui,
        step: &Step,
    ) -> Result<()> {
        let cannot = || format!("cannot write logs to {}", folder.display());
        fs_err::create_dir_all(&folder).doing(cannot)?;
        let child = step.child(&node.name);
        let inspected = serde_json::to_vec_pretty(&[self.inspect(&node.id).await?]);
        fs_err::write(folder.join("inspect.json"), inspected.unwrap_or_default()).doing(cannot)?;
        let serial = self.log(&node.id, None).await?;
        fs_err::write(folder.join("serial.log"), serial).doing(cannot)?;
        // A command would hang on a paused node and fails on a stopped one.
        if !node.is_running() {
            child.done_with(node.state.clone());
            return Ok(());
        }
        for (file, command) in COMMANDS {
            let output = self.exec(&node.id, command).await?;
            if output.code != 0 {
                ui.warn(format!(
                    "{}: {} failed on the node",
                    node.name,
                    command.join(" ")
                ));
            }
            fs_err::write(folder.join(file), &output.stdout).doing(cannot)?;
        }
        if let Err(error) = self.export_var_log(node, &folder).await {
            ui.warn(format!("{}: /var/log is not complete: {error}", node.name));
        }
        child.done();
        Ok(())
    }

    /// Copies what is below /var/log, with symbolic links followed on the node.
    async fn export_var_log(&self, node: &Node, folder: &Path) -> Result<()> {
        let spool = tempfile::tempfile().doing(|| "cannot make a temporary file".into())?;
        let mut writer = std::io::BufWriter::new(&spool);
        let mut written = Ok(());
        let command = [
            "tar",
            "--hard-dereference",
            "-C",
            "/var/log",
            "-chf",
            "-",
            ".",
        ];
        // tar's exit code says only that files changed while it read them.
        self.exec_chunks(&node.id, &command, |stream, chunk| {
            if stream == Stream::Stdout && written.is_ok() {
                written = std::io::Write::write_all(&mut writer, chunk);
            }
        })
        .await?;
        written
            .and_then(|()| std::io::Write::flush(&mut writer))
            .and_then(|()| std::io::Seek::rewind(&mut &spool))
            .and_then(|()| {
                let mut archive = tar::Archive::new(std::io::BufReader::new(&spool));
                archive.set_preserve_permissions(false);
                archive.unpack(folder)
            })
            .doing(|| format!("cannot unpack /var/log of {}", node.name))
    }

    /// The last lines of a node's kubelet and containerd that speak of a failure, for who has to
    /// find out why a node did not come up.
    pub async fn diagnose(&self, node: &str) -> Vec<String> {
        let command = [
            "journalctl",
            "--no-pager",
            "-q",
            "-o",
            "cat",
            "-n",
            "400",
            "-u",
            "kubelet",
            "-u",
            "containerd",
        ];
        match self.exec(node, &command).await {
            Ok(output) => failures(&plain_lines(&output.stdout)),
            // The container is gone or never ran: its own log is all there is.
            Err(_) => plain_lines(&self.log(node, Some(12)).await.unwrap_or_default()),
        }
    }
}

/// At most this many lines are shown.
const SHOWN: usize = 8;

/// What every node says while it starts.
const USUAL: [&str; 4] = [
    "no network config found in /etc/cni/net.d",
    "NetworkPluginNotReady",
    "skipping pod synchronization",
    "while getting AWS credentials",
];

/// The last different failures among the lines of klog and logrus; the last lines where none is.
fn failures(lines: &[String]) -> Vec<String> {
    let is_failure = |line: &str| {
        if USUAL.iter().any(|usual| line.contains(usual)) {
            return false;
        }
        let mut bytes = line.bytes();
        let klog = matches!(bytes.next(), Some(b'E' | b'F'))
            && bytes.next().is_some_and(|byte| byte.is_ascii_digit());
        klog || line.contains("level=error")
            || line.contains("level=fatal")
            || line.starts_with("Error:")
            || line.contains("panic:")
    };
    let mut seen: Vec<&str> = Vec::new();
    let mut shown: Vec<String> = Vec::new();
    for line in lines.iter().rev().filter(|line| is_failure(line)) {
        // Repetitions differ in the time only, which comes before the message.
        let message = line
            .split_once("] ")
            .map_or(line.as_str(), |(_, message)| message);
        let message = message.get(..60).unwrap_or(message);
        if !seen.contains(&message) {
            seen.push(message);
            shown.insert(0, line.clone());
        }
        if shown.len() == SHOWN {
            break;
        }
    }
    if shown.is_empty() {
        shown = lines.iter().rev().take(SHOWN).rev().cloned().collect();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_shown_once() {
        let lines: Vec<String> = [
            "I1124 07:00:00.000000     1 server.go:1] started",
            "E1124 07:00:01.000000     1 kubelet.go:1] node \"a\" not found",
            "E1124 07:00:02.000000     1 kubelet.go:1] node \"a\" not found",
            "time=\"2026\" level=error msg=\"no snapshotter\"",
            "Etcd is not a klog line",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(failures(&lines), [lines[2].clone(), lines[3].clone()]);
    }

    #[test]
    fn without_failures_the_last_lines_are_shown() {
        let lines: Vec<String> = (0..20).map(|i| format!("line {i}")).collect();
        assert_eq!(failures(&lines).len(), SHOWN);
        assert_eq!(failures(&lines).last().unwrap(), "line 19");
    }
}
