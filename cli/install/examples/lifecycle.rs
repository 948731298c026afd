//! Installs kindnet on the cluster of the current kubeconfig context, waits for it, or removes it:
//!
//! ```text
//! cargo run -p kindnet-install --example lifecycle -- install [IMAGE]
//! cargo run -p kindnet-install --example lifecycle -- wait
//! cargo run -p kindnet-install --example lifecycle -- uninstall
//! ```

use std::time::Duration;

use kindnet_install::{
    ConnectOptions, InstallOptions, UninstallOptions, connect, install, uninstall, wait_ready,
};
use kindnet_ui::{OutputFormat, Table, Ui, UserError, emit, report};
use tokio_util::sync::CancellationToken;

async fn run() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let ui = Ui::new(false, false);
    let cancel = CancellationToken::new();
    let client = connect(&ConnectOptions::default()).await?;
    let limit = Duration::from_secs(60);
    let result = match verb.as_str() {
        "install" => {
            let options = InstallOptions {
                image: words.next(),
                wait: Some(limit),
                ..InstallOptions::default()
            };
            serde_json::to_value(install(&client, &options, &ui, &cancel).await?)?
        }
        "wait" => serde_json::to_value(wait_ready(&client, limit, &ui, &cancel).await?)?,
        "uninstall" => {
            let options = UninstallOptions {
                timeout: limit,
                ..UninstallOptions::default()
            };
            serde_json::to_value(uninstall(&client, &options, &ui, &cancel).await?)?
        }
        other => {
            return Err(UserError::usage(format!("unknown verb {other:?}"))
                .hint("use install, wait or uninstall")
                .into());
        }
    };
    emit(OutputFormat::Yaml, &result, || Table::new([]))
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match run().await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => report(&error).into(),
    }
}
