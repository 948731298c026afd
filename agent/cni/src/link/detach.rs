//! Removing a link.
//!
//! The kernel takes tens of milliseconds to free a network device: after it has taken it out of
//! every table and told everybody, it waits for an RCU barrier, and the one who asked waits with it.
//! A child process does that waiting, so DEL is done as soon as the link is gone from both
//! namespaces.

use std::io::ErrorKind;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::message;
use crate::error::{Error, Result};
use crate::netlink::{Batch, Socket, messages, route_message};

const RTNLGRP_LINK: u32 = 1;

/// News about links.
pub(super) struct LinkEvents(Socket);

impl LinkEvents {
    pub(super) fn open() -> Result<Self> {
        let mut socket = Socket::route()?;
        // An unbound socket has the port 0, which a broadcast that excludes nobody leaves out.
        socket
            .raw_mut()
            .bind_auto()
            .map_err(Error::io("listen for link events"))?;
        socket
            .raw()
            .add_membership(RTNLGRP_LINK)
            .map_err(Error::io("listen for link events"))?;
        Ok(Self(socket))
    }

    /// Waits for any news; false when the time is over.
    pub(super) fn wait(&self, timeout: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        Ok(
            ready(&mut [PollFd::new(self.fd(), PollFlags::POLLIN)], timeout)? && {
                self.drain(|_| false)?;
                true
            },
        )
    }

    fn fd(&self) -> BorrowedFd<'_> {
        crate::sys::borrow(self.0.raw())
    }

    /// Hands out the messages that are there, until one is the right one; whether there was one.
    fn drain(&self, mut is_it: impl FnMut(&RouteNetlinkMessage) -> bool) -> Result<bool> {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT.bits();
            match self.0.raw().recv(&mut &mut buffer[..], flags) {
                Ok(length) => {
                    if messages(&buffer[..length])
                        .filter_map(route_message)
                        .any(|m| is_it(&m))
                    {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Too much news: whoever waits has to look for himself.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) => return Err(Error::io("read link events")(error)),
            }
        }
    }
}

/// A link that is being removed.
#[must_use]
pub(crate) struct Detach {
    name: String,
    index: u32,
    events: LinkEvents,
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
        let events = LinkEvents::open()?;
        let outcome = crate::sys::in_background(|| remove(index))
            .map_err(Error::kernel("start a process"))?;
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
            ready(&mut files, PollTimeout::NONE)?;
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

fn ready(files: &mut [PollFd<'_>], timeout: PollTimeout) -> Result<bool> {
    loop {
        match poll(files, timeout) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::kernel("wait for link events")(errno)),
            Ok(count) => return Ok(count > 0),
        }
    }
}
