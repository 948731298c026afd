//! Tests that share a cluster.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use kindnet_testenv::cluster::Environment;
use kindnet_testenv::{Cluster, Family};
use libtest_mimic::{Arguments, Conclusion, Trial};

/// A test: an error fails it.
pub type Test = fn(&mut Stage) -> Result<()>;

/// Tests that share a stage.
pub struct Suite {
    /// Name, also of the cluster.
    pub name: &'static str,
    /// Families of the cluster.
    pub family: Family,
    /// Names and tests, in order.
    pub tests: Vec<(&'static str, Test)>,
}

/// What the tests of a suite share.
pub struct Stage {
    /// Programs and images.
    pub environment: Environment,
    /// Families of the cluster.
    pub family: Family,
    name: String,
    cluster: Option<Cluster>,
    broken: bool,
}

impl Stage {
    /// The cluster, made by `kindnetctl up` if there is none yet.
    pub fn cluster(&mut self) -> Result<&Cluster> {
        anyhow::ensure!(!self.broken, "the suite's cluster could not be made");
        if self.cluster.is_none() {
            // Set for as long as it takes: a second attempt would only hide the first failure.
            self.broken = true;
            self.cluster = Some(Cluster::up(&self.environment, &self.name, self.family)?);
            self.broken = false;
        }
        self.cluster.as_ref().context("no cluster")
    }

    /// Puts a cluster made in another way on the stage.
    pub fn adopt(&mut self) -> Result<&Cluster> {
        let cluster = Cluster::adopt(&self.environment, &self.name, self.family)?;
        Ok(self.cluster.insert(cluster))
    }

    /// Name of the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Suite {
    /// Runs the tests the arguments select and clears the stage.
    pub fn run(self, arguments: &Arguments, environment: &Environment) -> Conclusion {
        let stage = Arc::new(Mutex::new(Stage {
            environment: environment.clone(),
            family: self.family,
            name: format!("e2e-{}", self.name),
            cluster: None,
            broken: false,
        }));
        let trials = self.tests.into_iter().map(|(name, test)| {
            let stage = Arc::clone(&stage);
            Trial::test(format!("{}::{name}", self.name), move || {
                let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
                test(&mut stage).map_err(|error| format!("{error:#}").into())
            })
        });
        libtest_mimic::run(arguments, trials.collect())
    }
}
