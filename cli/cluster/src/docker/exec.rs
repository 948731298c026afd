//! Commands inside a container.

use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bytes::Bytes;
use futures_util::StreamExt as _;
use kindnet_ui::UserError;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Engine, LineBuffer};
use crate::error::{Doing as _, Result};

/// How long a busy daemon may take to notice the end of a command.
const EXIT_PATIENCE: Duration = Duration::from_secs(60);

/// What a command left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i64,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// The standard output of a command that succeeded.
    ///
    /// # Errors
    /// The command failed; the error holds the last line it wrote to standard error.
    pub fn success(self, what: impl FnOnce() -> String) -> Result<Vec<u8>> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
        let cause = match last {
            Some(line) => line.trim().to_owned(),
            None => format!("exit code {}", self.code),
        };
        Err(UserError::failure(what()).source(std::io::Error::other(cause)))
    }
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

type Chunks =
    Pin<Box<dyn futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

impl Engine {
    /// Runs a command and collects what it writes.
    ///
    /// # Errors
    /// The command cannot be started. Its own failure is in the [`Output`].
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<Output> {
        let mut output = Output::default();
        output.code = self
            .exec_chunks(container, command, |stream, chunk| match stream {
                Stream::Stdout => output.stdout.extend_from_slice(chunk),
                Stream::Stderr => output.stderr.extend_from_slice(chunk),
            })
            .await?;
        Ok(output)
    }

    /// Runs a command and hands over its lines as they come. Returns the exit code.
    ///
    /// # Errors
    /// The command cannot be started.
    pub async fn exec_lines(
        &self,
        container: &str,
        command: &[&str],
        mut line: impl FnMut(Stream, &str),
    ) -> Result<i64> {
        let (mut stdout, mut stderr) = (LineBuffer::default(), LineBuffer::default());
        let code = self
            .exec_chunks(container, command, |stream, chunk| match stream {
                Stream::Stdout => stdout.push(chunk, |text| line(stream, text)),
                Stream::Stderr => stderr.push(chunk, |text| line(stream, text)),
            })
            .await?;
        stdout.finish(|text| line(Stream::Stdout, text));
        stderr.finish(|text| line(Stream::Stderr, text));
        Ok(code)
    }

    /// Runs a command and hands over the bytes it writes as they come. Returns the exit code.
    ///
    /// # Errors
    /// The command cannot be started.
    pub async fn exec_chunks(
        &self,
        container: &str,
        command: &[&str],
        mut chunk: impl FnMut(Stream, &[u8]),
    ) -> Result<i64> {
        let (id, mut chunks, _input) = self.start(container, command, false).await?;
        while let Some(output) = chunks.next().await {
            let output = output.doing(|| lost(container, command))?;
            deliver(&output, &mut chunk);
        }
        self.exit_code(container, command, &id).await
    }

    /// Runs a command that reads what comes through `input`, until that is closed.
    ///
    /// # Errors
    /// The command cannot be started.
    pub async fn exec_stdin(
        &self,
        container: &str,
        command: &[&str],
        mut input: mpsc::Receiver<Bytes>,
    ) -> Result<Output> {
        let (id, mut chunks, mut stdin) = self.start(container, command, true).await?;
        let mut output = Output::default();
        let write = async {
            // A command that ends early breaks the pipe; its exit code and message tell more.
            while let Some(bytes) = input.recv().await {
                if stdin.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = stdin.shutdown().await;
            // The receiver closes only now: a sender must not block on a command that has ended.
            drop(input);
        };
        let read = async {
            while let Some(part) = chunks.next().await {
                let part = part.doing(|| lost(container, command))?;
                deliver(&part, &mut |stream, chunk| match stream {
                    Stream::Stdout => output.stdout.extend_from_slice(chunk),
                    Stream::Stderr => output.stderr.extend_from_slice(chunk),
                });
            }
            Ok::<_, UserError>(())
        };
        let ((), read) = tokio::join!(write, read);
        read?;
        output.code = self.exit_code(container, command, &id).await?;
        Ok(output)
    }

    async fn start(
        &self,
        container: &str,
        command: &[&str],
        stdin: bool,
    ) -> Result<(String, Chunks, Input)> {
        let what = || format!("cannot run {} on {container}", program(command));
        let options = CreateExecOptions {
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            privileged: Some(true),
            cmd: Some(command.iter().map(|part| (*part).to_owned()).collect()),
            ..CreateExecOptions::<String>::default()
        };
        let exec = self
            .docker
            .create_exec(container, options)
            .await
            .doing(what)?;
        match self.docker.start_exec(&exec.id, None).await.doing(what)? {
            StartExecResults::Attached { output, input } => Ok((exec.id, output, input)),
            StartExecResults::Detached => Err(UserError::failure(what())),
        }
    }

    /// The daemon notices the end of a command a moment after its output ended.
    async fn exit_code(&self, container: &str, command: &[&str], exec: &str) -> Result<i64> {
        let what = || lost(container, command);
        let deadline = Instant::now() + EXIT_PATIENCE;
        while Instant::now() < deadline {
            let state = self.docker.inspect_exec(exec).await.doing(what)?;
            if state.running != Some(true)
                && let Some(code) = state.exit_code
            {
                return Ok(code);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(UserError::failure(what()))
    }
}

fn deliver(output: &LogOutput, chunk: &mut impl FnMut(Stream, &[u8])) {
    match output {
        LogOutput::StdErr { message } => chunk(Stream::Stderr, message),
        LogOutput::StdOut { message }
        | LogOutput::Console { message }
        | LogOutput::StdIn { message } => chunk(Stream::Stdout, message),
    }
}

fn program<'a>(command: &[&'a str]) -> &'a str {
    command.first().copied().unwrap_or_default()
}

fn lost(container: &str, command: &[&str]) -> String {
    format!("lost {} on {container}", program(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_standard_error_is_the_cause() {
        let output = Output {
            code: 2,
            stderr: b"a\nthe cause\n\n".to_vec(),
            ..Output::default()
        };
        let error = output.success(|| "cannot".into()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "the cause");
    }
}
