//! Running programs: always with a deadline, always with the output at hand when one fails.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Output {
    /// Standard output of a success.
    ///
    /// # Errors
    /// The program failed; the message holds all it printed.
    pub fn success(self) -> Result<String> {
        if self.code == 0 {
            Ok(self.stdout)
        } else {
            bail!("{self}")
        }
    }

    /// The output, if the program ended with this code.
    ///
    /// # Errors
    /// It ended with another one; the message holds all it printed.
    pub fn exit(self, code: i32) -> Result<Self> {
        if self.code == code {
            Ok(self)
        } else {
            bail!("expected exit code {code}: {self}")
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
            took,
        } = self;
        write!(
            f,
            "`{command}` ended with {code} after {:.1} s\n{stderr}{stdout}",
            took.as_secs_f64()
        )
    }
}

/// A program, with environment and deadline.
#[derive(Debug, Clone)]
pub struct Tool {
    program: PathBuf,
    env: Vec<(String, String)>,
    deadline: Duration,
}

impl Tool {
    /// A program by path or by name.
    #[must_use]
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            env: Vec::new(),
            deadline: Duration::from_secs(60),
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// How long a call may take; it is killed after that.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The program cannot be started, or was killed at its deadline.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        self.spawn(args)?.wait()
    }

    /// Runs to the end with text on standard input.
    ///
    /// # Errors
    /// As [`Tool::run`].
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Result<Output> {
        let mut running = self.spawn(args)?;
        let mut stdin = running.child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        // A program that does not read its input is no reason to fail.
        let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = running.wait();
        drop(writer.join());
        output
    }

    /// Starts the program and returns at once.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let line = format!("{command:?}");
        let child = command.spawn().with_context(|| format!("start {line}"))?;
        Ok(Running {
            child,
            line,
            began: Instant::now(),
            deadline: self.deadline,
        })
    }
}

/// A program that runs.
pub struct Running {
    child: Child,
    line: String,
    began: Instant,
    deadline: Duration,
}

impl Running {
    /// Sends SIGINT, as Ctrl-C does.
    ///
    /// # Errors
    /// `kill` cannot be run.
    pub fn interrupt(&self) -> Result<()> {
        Tool::new("kill")
            .run(["-INT", &self.child.id().to_string()])?
            .success()?;
        Ok(())
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The deadline passed; the program was killed.
    pub fn wait(mut self) -> Result<Output> {
        // A program that reads its input finds the end of it.
        drop(self.child.stdin.take());
        let out = self.child.stdout.take().map(drain);
        let err = self.child.stderr.take().map(drain);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if self.began.elapsed() > self.deadline {
                self.child.kill()?;
                self.child.wait()?;
                break None;
            }
            thread::sleep(Duration::from_millis(10));
        };
        let text = |handle: Option<thread::JoinHandle<String>>| {
            handle.and_then(|h| h.join().ok()).unwrap_or_default()
        };
        let code = status.map_or(-1, |status| {
            use std::os::unix::process::ExitStatusExt as _;
            status
                .code()
                .or(status.signal().map(|s| 128 + s))
                .unwrap_or(-1)
        });
        let output = Output {
            command: self.line,
            code,
            stdout: text(out),
            stderr: text(err),
            took: self.began.elapsed(),
        };
        if status.is_none() {
            bail!("killed at its deadline: {output}");
        }
        Ok(output)
    }
}

fn drain(mut source: impl std::io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Whatever arrived before an error is still worth showing.
        drop(source.by_ref().read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_code_are_kept() {
        let output = Tool::new("sh")
            .run(["-c", "echo a; echo b >&2; exit 3"])
            .unwrap();
        assert_eq!(
            (output.code, &*output.stdout, &*output.stderr),
            (3, "a\n", "b\n")
        );
        assert!(output.success().is_err());
    }

    #[test]
    fn the_deadline_ends_it() {
        let tool = Tool::new("sleep").deadline(Duration::from_millis(50));
        assert!(
            tool.run(["60"])
                .unwrap_err()
                .to_string()
                .contains("deadline")
        );
    }
}
