//! kindnetctl: KIND clusters with kindnet in them.

mod args;
mod commands;
mod logging;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;
use kindnet_ui::Ui;

fn main() -> ExitCode {
    let args = args::Args::parse();
    logging::init(args.global.verbose);
    args.global.color.apply();
    let ui = Ui::new(
        args.global.quiet,
        args.global.no_progress || args.global.verbose > 0,
    );
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return kindnet_ui::report(&error.into()).into(),
    };
    let result = runtime.block_on(async {
        let cancel = signals::cancel_on_signal(&ui)?;
        commands::run(args.command, &ui, &cancel).await
    });
    // What still runs in the background must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(code) => code.into(),
        Err(error) => kindnet_ui::report(&error).into(),
    }
}
