//! DEL: takes back what ADD did, as much of it as there is.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::fault::step;
use crate::hostport::{self, HostPortSet};
use crate::ipam::{Record, Store};
use crate::link::{self, Detach};
use crate::request::Environment;

/// How a link is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// A child process waits for the kernel to free it. Only for a program of one thread.
    Background,
    /// This thread waits.
    Here,
}

/// Neither the network namespace nor the state need be there any more. Nothing of the configuration
/// but its identity is used.
pub(super) fn del(config: &Config, environment: &Environment) -> Result<()> {
    let store = Store::new(config.state_dir());
    let (id, ifname) = (&environment.container_id, &environment.ifname);
    // A record nobody can read is as good as none: the link has a name that follows from what the
    // runtime said, and `release` sees to the rest.
    let record = store
        .find(id, ifname)
        .ok()
        .flatten()
        .unwrap_or_else(|| Record {
            container_id: id.clone(),
            ifname: ifname.clone(),
            netns: String::new(),
            pod: None,
            link: link::host_name(&config.name, id, ifname),
            addresses: Vec::new(),
            ports: Vec::new(),
            port_targets: Vec::new(),
            host_ports: config.host_ports,
        });
    teardown(&store, &record, Removal::Background)
}

/// Removes host ports and link, and then, when nothing leads to them any more, frees the addresses.
/// The network namespace of this thread is the host's.
///
/// # Errors
/// Something could not be removed. The record stays, so that it can be tried again.
pub(crate) fn teardown(store: &Store, record: &Record, removal: Removal) -> Result<()> {
    let mut errors = Vec::new();
    // Kept until the child has been started, which goes on keeping it.
    let mut _afterwards = None;
    if !record.ports.is_empty() {
        match hostport::remove(store, &HostPortSet::of(record)) {
            Ok(kept) => _afterwards = Some(kept),
            Err(error) => errors.push(error),
        }
        step!();
    }
    let detached = match (record.link.as_str(), removal) {
        ("", _) => Ok(()),
        (link, Removal::Background) => {
            Detach::begin(link).and_then(|detach| detach.map_or(Ok(()), Detach::wait))
        }
        (link, Removal::Here) => link::remove_now(link).map(drop),
    };
    errors.extend(detached.err());
    step!();
    Error::all(errors)?;
    store.release(&record.container_id, &record.ifname)?;
    Ok(())
}
