//! `kindnet-probe`: see the library of the same name.

use std::io::{BufRead as _, Write as _};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kindnet_probe::serve::{Identity, Listener};
use kindnet_probe::wire::{Answer, Batch};
use nix::sys::signal::{SigSet, Signal};

/// The server and the client inside the check pods of kindnetctl verify.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers what reaches a port over TCP and UDP, until SIGTERM or SIGINT.
    Serve {
        /// The port, the same for TCP and UDP; 0 picks a free one and prints it.
        #[arg(long, env = "KINDNET_PROBE_PORT", default_value_t = 7100)]
        port: u16,
        /// Name of this pod in answers.
        #[arg(long, env = "POD_NAME", default_value = "")]
        pod: String,
        /// Name of this node in answers.
        #[arg(long, env = "NODE_NAME", default_value = "")]
        node: String,
    },
    /// Reads a batch of probes from the first line of standard input and prints an answer per line.
    Run,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Serve { port, pod, node } => serve(port, Identity { pod, node }),
        Command::Run => run(),
    }
}

fn serve(port: u16, identity: Identity) -> anyhow::Result<()> {
    // Blocked before any thread exists, so that the signals wait for this one. As process 1 of a
    // container nothing else would end us before the kubelet's patience does.
    let stop = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    stop.thread_block().context("block signals")?;
    let listener = Listener::bind(port).with_context(|| format!("listen on port {port}"))?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on port {}", listener.port()?)?;
    listener.start(identity);
    stop.wait().context("wait for a signal")?;
    Ok(())
}

/// Ends after the answers, whether or not standard input does: exec over WebSocket has no end of
/// input before version 5 of its protocol.
fn run() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("read the batch")?;
    let batch: Batch = serde_json::from_str(&line).context("read the batch")?;
    let mut result = Ok(());
    kindnet_probe::run::run(batch, |answer| {
        if result.is_ok() {
            result = print(&answer);
        }
    });
    result?;
    print(&Answer::end())
}

fn print(answer: &Answer) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()?;
    Ok(())
}
