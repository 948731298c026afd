//! Removing every trace of the agent from its node.
//!
//! The state of the `host-local` plugin is not touched: it belongs to pods that may still run, lies
//! on a tmpfs, and is gone with the next boot. The same goes for the state of our own plugin as long
//! as pods run that came by it.

use anyhow::Context as _;
use kindnet_api::names;
use kindnet_cni::agent::Network;
use kindnet_net::iptables::{Flavour, Iptables, Masquerade as _};
use kindnet_net::netlink::{Netlink, Routes};

use crate::args::UninstallArgs;
use crate::conflist::{ConflistFile, Removal};
use crate::{health, run};

/// Removes CNI configuration, routes and masquerading, in this order: no new pod should start on a
/// node that is being taken apart. Everything is tried whatever fails.
///
/// # Errors
/// The first thing that could not be removed.
pub async fn run(args: UninstallArgs) -> anyhow::Result<()> {
    let stop = run::stop_signal()?;
    let file = ConflistFile::new(&args.paths.cni_conf_dir);
    let conflist = file
        .remove()
        .with_context(|| format!("remove {}", file.path().display()));
    match &conflist {
        Ok(Removal::Removed) => tracing::info!("CNI configuration removed"),
        Ok(Removal::Absent) => {}
        Ok(Removal::Foreign) => tracing::warn!(
            file = %file.path().display(),
            "left in place: it was not written by kindnet"
        ),
        Err(error) => tracing::error!("{error:#}"),
    }
    let routes = remove_routes().await;
    match &routes {
        Ok(removed) => tracing::info!(removed, "routes removed"),
        Err(error) => tracing::error!("{error:#}"),
    }
    let rules = tokio::task::spawn_blocking(|| Iptables::new(Flavour::Default).cleanup())
        .await
        .context("remove masquerading")
        .and_then(|result| result.context("remove masquerading"));
    let paths = args.paths;
    let plugin = tokio::task::spawn_blocking(move || {
        Network::new(&paths.cni_state_dir, names::CNI_NETWORK).uninstall(&paths.cni_bin_dir)
    })
    .await
    .context("remove the CNI plugin")
    .and_then(|result| result.context("remove the CNI plugin"));
    conflist?;
    routes?;
    rules?;
    plugin?;
    tracing::info!("nothing of kindnet is left on this node");
    if args.wait {
        tokio::select! {
            () = stop => {}
            () = health::run_done(args.metrics_bind_address) => {}
        }
    }
    Ok(())
}

async fn remove_routes() -> anyhow::Result<usize> {
    let routes = Routes::new(Netlink::open()?);
    routes.cleanup().await.context("remove routes")
}
