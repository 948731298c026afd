//! Removing a link.
//!
//! The kernel takes tens of milliseconds to free a network device: after it has taken it out of
//! every table and told everybody, it waits for an RCU barrier, and the one who asked waits with it.
//! A child process does that waiting, so DEL is done as soon as the link is gone from both
//! namespaces.

use std::os::fd::{AsFd as _, OwnedFd};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::events::Events;
use super::message;
use crate::error::{Error, Result};
use crate::netlink::{Batch, Socket, route_message};

/// A link that is being removed.
#[must_use]
pub(crate) struct Detach {
    name: String,
    index: u32,
    events: Events,
    /// Ends when the child does; carries an error number if it failed.
    outcome: OwnedFd,
}

impl Detach {
    /// Begins to remove a link; `None` if there is none of this name.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(crate) fn begin(name: &str) -> Result<Option<Self>> {
        let Ok(index) = if_nametoindex(name) else {
            return Ok(None);
        };
        let events = Events::of_links()?;
        let Ok(outcome) = crate::sys::in_background(|| remove(index)) else {
            // No process to be had: then it takes a little longer.
            return remove_now(name).map(|_| None);
        };
        Ok(Some(Self {
            name: name.to_owned(),
            index,
            events,
            outcome,
        }))
    }

    /// Waits until the link is gone from both namespaces.
    ///
    /// # Errors
    /// The kernel refused to remove it.
    pub(crate) fn wait(self) -> Result<()> {
        loop {
            let mut files = [
                PollFd::new(self.events.fd(), PollFlags::POLLIN),
                PollFd::new(self.outcome.as_fd(), PollFlags::POLLIN),
            ];
            super::events::ready(&mut files, PollTimeout::NONE)?;
            let [news, over] = files.map(|file| file.any().unwrap_or(true));
            if over {
                return self.result();
            }
            let gone = |message: &RouteNetlinkMessage| match message {
                RouteNetlinkMessage::DelLink(link) => link.header.index == self.index,
                _ => false,
            };
            if news && self.events.drain(gone)? {
                return Ok(());
            }
        }
    }

    fn result(&self) -> Result<()> {
        let mut code = [0; 4];
        match nix::unistd::read(&self.outcome, &mut code) {
            Ok(4) => match Errno::from_raw(i32::from_ne_bytes(code)) {
                Errno::ENODEV => Ok(()),
                errno => Err(Error::kernel(format!("remove link {}", self.name))(errno)),
            },
            _ => Ok(()),
        }
    }
}

/// Removes a link and waits until the kernel has freed it; whether there was one.
///
/// # Errors
/// The kernel refused.
pub(crate) fn remove_now(name: &str) -> Result<bool> {
    let Ok(index) = if_nametoindex(name) else {
        return Ok(false);
    };
    match remove(index) {
        Ok(()) => Ok(true),
        Err(Errno::ENODEV) => Ok(false),
        Err(errno) => Err(Error::kernel(format!("remove link {name}"))(errno)),
    }
}

fn remove(index: u32) -> std::result::Result<(), Errno> {
    let mut batch = Batch::default();
    batch.route("remove the link", 0, message::delete_link(index));
    Socket::route()
        .and_then(|mut socket| socket.run(batch))
        .map_err(|error| error.errno().unwrap_or(Errno::EIO))
}

/// Whether there is a link of this name.
pub(crate) fn exists(name: &str) -> bool {
    if_nametoindex(name).is_ok()
}

/// The names of our links of a network.
///
/// # Errors
/// The kernel cannot be asked.
pub(crate) fn of_network(network: &str) -> Result<Vec<String>> {
    let mut batch = Batch::default();
    batch.route("list links", NLM_F_DUMP, message::get_links());
    let answers = Socket::route()?.dump(batch)?;
    let mark = super::alias(network, "");
    let mut names = Vec::new();
    for answer in answers {
        let Some(RouteNetlinkMessage::NewLink(link)) = route_message(&answer) else {
            continue;
        };
        let (mut ours, mut found) = (false, None);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfAlias(alias) => ours = alias.starts_with(&mark),
                LinkAttribute::IfName(name) => {
                    found = Some(name).filter(|n| n.starts_with(super::PREFIX))
                }
                _ => {}
            }
        }
        names.extend(found.filter(|_| ours));
    }
    Ok(names)
}
