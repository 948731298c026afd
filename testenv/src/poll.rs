//! Waiting for the cluster to get there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Calls `probe` until it succeeds, and returns how long that took.
///
/// # Errors
/// The deadline passed; the last error of `probe` is the cause.
pub fn eventually(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let began = Instant::now();
    loop {
        match probe() {
            Ok(()) => return Ok(began.elapsed()),
            Err(error) if began.elapsed() > deadline => {
                return Err(error).with_context(|| format!("not within {deadline:?}: {what}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_the_cause() {
        let mut calls = 0;
        let error = eventually("three", Duration::from_millis(500), || {
            calls += 1;
            anyhow::bail!("call {calls}")
        })
        .unwrap_err();
        assert!(
            format!("{error:#}").contains(&format!("call {calls}")),
            "{error:#}"
        );
    }
}
