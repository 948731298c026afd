//! CHECK: is everything still as ADD left it?

use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::hostport::{self, HostPortSet};
use crate::ipam::Store;
use crate::link::{self, Netns};
use crate::request::Environment;
use crate::result::container_addresses;

pub(super) fn check(config: &Config, environment: &Environment) -> Result<()> {
    let Some(previous) = &config.prev_result else {
        return Err(Error::InvalidConfig("CHECK needs prevResult".to_owned()));
    };
    let store = Store::new(config.state_dir());
    let record = store.find(&environment.container_id, &environment.ifname)?;
    let Some(record) = record else {
        if config.sets.is_empty() && config.ports.is_empty() {
            return Ok(());
        }
        return Err(Error::Check(format!(
            "{} of container {} has no address in network {}",
            environment.ifname, environment.container_id, config.name
        )));
    };
    if !record.ports.is_empty() {
        hostport::check(&HostPortSet::of(&record))?;
    }
    if record.addresses.is_empty() {
        return Ok(());
    }
    told(previous, &record)?;
    let own = Netns::own()?;
    let netns = Netns::open(&environment.netns, &own)?;
    link::check(&super::add::plan(config, &record), &netns)
}

/// The runtime and the state agree on the addresses.
fn told(previous: &Value, record: &crate::ipam::Record) -> Result<()> {
    let told = container_addresses(previous);
    for address in &record.addresses {
        if !told.contains(&address.address.addr()) {
            return Err(Error::Check(format!(
                "{} has address {}, which prevResult does not name",
                record.ifname, address.address
            )));
        }
    }
    Ok(())
}
