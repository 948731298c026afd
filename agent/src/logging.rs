//! The log, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::{LogArgs, LogFormat};

/// Starts logging. A filter that cannot be read becomes `info`.
pub fn init(args: &LogArgs) {
    let parsed = EnvFilter::try_new(filter(&args.log_level));
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

/// A bare level is meant for this program. Its libraries stay at warnings, and those that speak to
/// the API server are silent: whoever made a request reports what became of it, and what it was for.
fn filter(level: &str) -> String {
    if level.contains(['=', ',']) {
        return level.to_owned();
    }
    format!(
        "warn,kindnetd={level},kindnet_net={level},kindnet_core={level},\
         kube_client=off,kube_runtime=off"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_us_and_a_filter_is_taken_as_it_is() {
        assert!(EnvFilter::try_new(filter("debug")).is_ok());
        assert!(filter("debug").contains("kindnetd=debug"));
        assert_eq!(filter("info,kube=debug"), "info,kube=debug");
        assert!(EnvFilter::try_new(filter("loud")).is_err());
    }
}
