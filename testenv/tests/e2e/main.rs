//! End-to-end tests on real clusters; `testenv/test e2e` sets the stage and runs them.
//!
//! The tests of a suite share a cluster and run in their order: later ones find what earlier ones
//! left. A suite's cluster is made by the first test that needs it and deleted after the last.

#![allow(clippy::print_stderr, reason = "a test tells what it measured")]

mod cli;
mod damage;
mod family;
mod interop;
mod plugins;
mod suite;

use std::process::ExitCode;

use kindnet_testenv::Family;
use kindnet_testenv::cluster::Environment;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The clusters would otherwise compete for the machine.
    arguments.test_threads = Some(1);
    let environment = match Environment::read() {
        Ok(environment) => environment,
        // Part of `cargo test --workspace`, where there is no cluster to be had.
        Err(reason) => {
            eprintln!("end-to-end tests are left out: {reason:#}");
            return ExitCode::SUCCESS;
        }
    };
    let suites = [
        cli::suite(),
        family::suite("ipv4", Family::Ipv4),
        family::suite("ipv6", Family::Ipv6),
        family::suite("dual", Family::Dual),
        interop::suite(),
    ];
    let mut failed = false;
    for suite in suites {
        failed |= suite.run(&arguments, &environment).has_failed();
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
