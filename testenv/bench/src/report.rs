//! Tables.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::cell::{Cell, Samples};

/// A measurement of both.
#[derive(Serialize)]
pub struct Row {
    /// What was measured
    pub cell: Cell,
    /// kindnet-cni
    pub ours: Samples,
    /// ptp, host-local, portmap
    pub chain: Option<Samples>,
}

/// Prints to standard output.
pub fn emit(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    Ok(())
}

/// Says what is going on.
pub fn progress(name: &str) {
    // Nobody listens: no reason to stop.
    let _ = writeln!(std::io::stderr().lock(), " • {name}");
}

/// Markdown tables of all measurements.
pub fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    let (churn, single): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.cell.churn);
    type Pick = fn(&Samples) -> &Vec<f64>;
    let verbs: [(&str, Pick); 2] = [("ADD", |s| &s.add), ("DEL", |s| &s.del)];
    for (verb, pick) in verbs.into_iter().filter(|_| !single.is_empty()) {
        let _ = writeln!(
            text,
            "| {verb}, ms | kindnet-cni p50 | p99 | chain p50 | p99 | ratio p50 | p99 |"
        );
        let _ = writeln!(text, "|---|---:|---:|---:|---:|---:|---:|");
        for row in &single {
            let ours = [0.5, 0.99].map(|q| quantile(pick(&row.ours), q));
            let _ = write!(
                text,
                "| {} | {:.2} | {:.2} |",
                row.cell.name(),
                ours[0],
                ours[1]
            );
            let _ = match &row.chain {
                None => writeln!(text, " | | | |"),
                Some(chain) => {
                    let chain = [0.5, 0.99].map(|q| quantile(pick(chain), q));
                    writeln!(
                        text,
                        " {:.1} | {:.1} | {:.1} | {:.1} |",
                        chain[0],
                        chain[1],
                        chain[0] / ours[0],
                        chain[1] / ours[1]
                    )
                }
            };
        }
        text.push('\n');
    }
    if !churn.is_empty() {
        let _ = writeln!(
            text,
            "| all ADDs, then all DELs, s | kindnet-cni | chain | ratio |"
        );
        let _ = writeln!(text, "|---|---:|---:|---:|");
        for row in churn {
            let total = |samples: &Samples| (samples.add_total + samples.del_total) / 1000.0;
            let ours = total(&row.ours);
            let _ = write!(text, "| {} | {ours:.2} |", row.cell.name());
            let _ = match row.chain.as_ref().map(total) {
                None => writeln!(text, " | |"),
                Some(chain) => writeln!(text, " {chain:.1} | {:.1} |", chain / ours),
            };
        }
        text.push('\n');
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = writeln!(text, "{processors} CPUs, load {load} at the end.");
    text
}

/// The nearest rank.
fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            [0.5, 0.99, 1.0].map(|q| quantile(&samples, q)),
            [50.0, 99.0, 100.0]
        );
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
