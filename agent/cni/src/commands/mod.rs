//! The commands of the specification.

mod add;
mod check;
mod del;
mod gc;
mod status;

use std::io;

use crate::config::{CniArgs, Config, Strictness};
use crate::error::{Error, Result};
use crate::request::{Command, Environment};
use crate::version::{self, Version};

pub(crate) use del::{Removal, teardown};

/// What the runtime gets to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub output: String,
    /// Exit code.
    pub code: u8,
}

/// Runs a command. It may leave this thread in the network namespace of the pod, so it is the last
/// thing a process does.
pub fn run(environment: &Environment, input: io::Result<Vec<u8>>) -> Outcome {
    let mut version = Version::LATEST.as_str().to_owned();
    let result = input
        .map_err(Error::io("read standard input"))
        .and_then(|input| dispatch(environment, &input, &mut version));
    match result {
        Ok(output) => Outcome { output, code: 0 },
        Err(error) => Outcome {
            output: error.to_json(&version),
            code: 1,
        },
    }
}

fn dispatch(environment: &Environment, input: &[u8], version: &mut String) -> Result<String> {
    let command = environment.command()?;
    if command == Command::Version {
        return Ok(version::report(&requested_version(input)));
    }
    let args = CniArgs::parse(&environment.args)?;
    let strictness = match command {
        Command::Del | Command::Gc => Strictness::Identity,
        _ => Strictness::Full,
    };
    let config = Config::parse(input, &args, strictness)?;
    config.version.as_str().clone_into(version);
    let needs = match command {
        Command::Check => Version::V040,
        Command::Gc | Command::Status => Version::V110,
        _ => Version::V030,
    };
    if config.version < needs {
        return Err(Error::InvalidConfig(format!(
            "{} needs cniVersion {} or newer",
            environment.command,
            needs.as_str()
        )));
    }
    match command {
        Command::Add => add::add(&config, &args, environment),
        Command::Del => del::del(&config, environment).map(|()| String::new()),
        Command::Check => check::check(&config, environment).map(|()| String::new()),
        Command::Gc => gc::gc(&config).map(|()| String::new()),
        Command::Status | Command::Version => status::status(&config).map(|()| String::new()),
    }
}

/// The `cniVersion` of a question about versions; empty if it has none.
fn requested_version(input: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(input)
        .ok()
        .and_then(|value| value.get("cniVersion")?.as_str().map(str::to_owned))
        .unwrap_or_default()
}
