//! Ctrl-C and SIGTERM: the first asks everything to stop and clean up, the second leaves at once.

use anyhow::{Context as _, Result};
use kindnet_ui::{ExitCode, Ui};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first signal.
///
/// # Errors
/// The handlers cannot be set.
pub fn cancel_on_signal(ui: &Ui) -> Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let cancel = CancellationToken::new();
    let (token, ui) = (cancel.clone(), ui.clone());
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        token.cancel();
        ui.info("Stopping; press Ctrl-C again to leave without cleaning up");
        next().await;
        std::process::exit(ExitCode::Interrupted as i32);
    });
    Ok(cancel)
}
