//! `kindnet-cni`: reads a command from the environment and a configuration from standard input.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use kindnet_cni::request::Environment;

fn main() -> ExitCode {
    let environment = Environment::of_process();
    let mut input = Vec::with_capacity(4096);
    let read = std::io::stdin().lock().read_to_end(&mut input);
    let outcome = kindnet_cni::run(&environment, read.map(|_| input));
    // A runtime that does not listen learns the outcome from the exit code.
    drop(
        std::io::stdout()
            .lock()
            .write_all(outcome.output.as_bytes()),
    );
    ExitCode::from(outcome.code)
}
