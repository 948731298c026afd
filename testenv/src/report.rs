//! Reading the report of `kindnetctl verify -o json`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::command::Output;

/// The report.
#[derive(Debug)]
pub struct VerifyReport {
    /// Exit code of the run.
    pub code: i32,
    /// Everything it printed, for messages.
    pub text: String,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Report {
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    id: String,
    outcome: String,
}

impl VerifyReport {
    /// Reads the output of a run.
    ///
    /// # Errors
    /// It holds no report.
    pub fn parse(output: &Output) -> Result<Self> {
        let report: Report = serde_json::from_str(&output.stdout)
            .with_context(|| format!("no report in {output}"))?;
        Ok(Self {
            code: output.code,
            text: output.to_string(),
            checks: report.checks,
        })
    }

    /// Nothing failed.
    ///
    /// # Errors
    /// Something did; the message holds the whole report.
    pub fn all_passed(&self) -> Result<()> {
        anyhow::ensure!(self.code == 0 && self.failed().is_empty(), "{}", self.text);
        Ok(())
    }

    /// Ids of the failed checks.
    #[must_use]
    pub fn failed(&self) -> BTreeSet<&str> {
        self.with_outcome("fail")
    }

    /// Ids of the passed checks.
    #[must_use]
    pub fn passed(&self) -> BTreeSet<&str> {
        self.with_outcome("pass")
    }

    fn with_outcome(&self, outcome: &str) -> BTreeSet<&str> {
        self.checks
            .iter()
            .filter(|c| c.outcome == outcome)
            .map(|c| c.id.as_str())
            .collect()
    }
}
