//! The proof at the end of `kindnetctl up`, alone: `quick IMAGE NODE...` on the current context.

use std::time::{Duration, Instant};

use kindnet_verify::{QuickOptions, quick};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let options = QuickOptions {
        image: arguments.next().unwrap_or_default(),
        nodes: arguments.collect(),
        timeout: Duration::from_secs(120),
    };
    let began = Instant::now();
    let client = match kube::Client::try_default().await {
        Ok(client) => client,
        Err(error) => return kindnet_ui::report(&error.into()).into(),
    };
    let result = quick(client, options, CancellationToken::new()).await;
    kindnet_ui::Ui::new(false, true).info(format!("{:.2} s", began.elapsed().as_secs_f64()));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => kindnet_ui::report(&error.into()).into(),
    }
}
