//! GC: drops what belongs to no attachment the runtime knows.

use std::collections::HashSet;

use super::Removal;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ipam::Store;
use crate::link;

pub(super) fn gc(config: &Config) -> Result<()> {
    let Some(valid) = &config.valid_attachments else {
        return Err(Error::InvalidConfig(
            "GC needs cni.dev/valid-attachments".to_owned(),
        ));
    };
    let valid: HashSet<(&str, &str)> = valid
        .iter()
        .map(|attachment| (attachment.container_id.as_str(), attachment.ifname.as_str()))
        .collect();
    let store = Store::new(config.state_dir());
    let mut errors = Vec::new();
    for record in store.settled()? {
        if !valid.contains(&(record.container_id.as_str(), record.ifname.as_str())) {
            errors.extend(super::teardown(&store, &record, Removal::Here).err());
        }
    }
    errors.extend(orphans(config, &valid, &store).err());
    Error::all(errors)
}

/// Links of this network that belong to no attachment, as after somebody removed the state.
fn orphans(config: &Config, valid: &HashSet<(&str, &str)>, store: &Store) -> Result<()> {
    // Links first: whoever makes one has written its record before.
    let links = link::of_network(&config.name)?;
    let mut known: HashSet<String> = store.records()?.into_iter().map(|r| r.link).collect();
    known.extend(
        valid
            .iter()
            .map(|(id, ifname)| link::host_name(&config.name, id, ifname)),
    );
    let errors = links
        .iter()
        .filter(|name| !known.contains(*name))
        .filter_map(|name| link::remove_now(name).err())
        .collect();
    Error::all(errors)
}
