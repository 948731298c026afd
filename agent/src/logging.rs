//! The log, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::{LogArgs, LogFormat};

/// Starts logging. A filter that cannot be read becomes `info`.
pub fn init(args: &LogArgs) {
    let parsed = EnvFilter::try_new(&args.log_level);
    let bad = parsed.as_ref().err().map(ToString::to_string);
    let log = tracing_subscriber::fmt()
        .with_env_filter(parsed.unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    if let Some(error) = bad {
        tracing::warn!(
            filter = args.log_level,
            error,
            "unusable log filter, using info"
        );
    }
}
