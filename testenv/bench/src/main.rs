//! Measures ADD and DEL of kindnet-cni and of the chain ptp, host-local, portmap: the programs as a
//! container runtime starts them, each pod in a network namespace of its own, each measurement on a
//! host of its own.

mod cell;
mod host;
mod plugin;
mod report;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use cell::{Cell, Samples};
use plugin::Side;

/// kindnet-cni beside the reference plugins.
#[derive(Parser)]
struct Args {
    /// kindnet-cni
    #[arg(long, value_name = "FILE")]
    ours: PathBuf,
    /// Folder of ptp, host-local and portmap
    #[arg(long, value_name = "FOLDER")]
    chain: PathBuf,
    /// Measure only what has this in its name
    #[arg(long, default_value = "")]
    only: String,
    /// Pods per measurement
    #[arg(long, default_value_t = 100)]
    pods: usize,
    /// Longest time for the ADDs of the chain in one measurement, seconds; at least 16 pods are
    /// measured
    #[arg(long, default_value_t = 20)]
    patience: u64,
    /// Print the samples as JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    hidden: Option<Hidden>,
}

#[derive(Subcommand)]
enum Hidden {
    /// One measurement, in namespaces of its own
    #[command(hide = true)]
    Cell {
        /// The measurement
        cell: String,
        /// Whose
        side: String,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Hidden::Cell { cell, side }) = &args.hidden {
        let cell: Cell = serde_json::from_str(cell)?;
        let side: Side = serde_json::from_str(side)?;
        host::isolate()?;
        let samples = cell::measure(&cell, &side)?;
        return report::emit(&serde_json::to_string(&samples)?);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces need root");
    }
    let cells = cell::all(args.pods, args.patience);
    let mut results = Vec::new();
    for cell in cells
        .into_iter()
        .filter(|cell| cell.name().contains(&args.only))
    {
        report::progress(&cell.name());
        let ours = run(&args, &cell, &Side::Ours(args.ours.clone()))?;
        let chain = if cell.ours_only {
            None
        } else {
            Some(run(&args, &cell, &Side::Chain(args.chain.clone()))?)
        };
        results.push(report::Row { cell, ours, chain });
    }
    report::emit(&if args.json {
        serde_json::to_string_pretty(&results)?
    } else {
        report::tables(&results)
    })
}

fn run(args: &Args, cell: &Cell, side: &Side) -> Result<Samples> {
    let output = Command::new("/proc/self/exe")
        .arg("--ours")
        .arg(&args.ours)
        .arg("--chain")
        .arg(&args.chain)
        .arg("cell")
        .arg(serde_json::to_string(cell)?)
        .arg(serde_json::to_string(side)?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start a measurement")?;
    if !output.status.success() {
        bail!("{}: the measurement failed", cell.name());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
