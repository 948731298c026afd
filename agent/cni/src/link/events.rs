//! News of the kernel, for the few things that happen after a request has been answered.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::netlink::{Socket, messages, route_message};

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// News of one kind.
pub(super) struct Events(Socket);

impl Events {
    /// About links.
    pub(super) fn of_links() -> Result<Self> {
        Self::open(RTNLGRP_LINK)
    }

    /// About routes of IPv6.
    pub(super) fn of_ipv6_routes() -> Result<Self> {
        Self::open(RTNLGRP_IPV6_ROUTE)
    }

    fn open(group: u32) -> Result<Self> {
        let mut socket = Socket::route()?;
        // An unbound socket has the port 0, which a broadcast that excludes nobody leaves out.
        socket
            .raw_mut()
            .bind_auto()
            .map_err(Error::io("listen for events"))?;
        socket
            .raw()
            .add_membership(group)
            .map_err(Error::io("listen for events"))?;
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

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        crate::sys::borrow(self.0.raw())
    }

    /// Hands out the messages that are there, until one is the right one; whether there was one.
    pub(super) fn drain(
        &self,
        mut is_it: impl FnMut(&RouteNetlinkMessage) -> bool,
    ) -> Result<bool> {
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
                Err(error) => return Err(Error::io("read events")(error)),
            }
        }
    }
}

/// Waits until one of the files has something to say; false when the time is over.
pub(super) fn ready(files: &mut [PollFd<'_>], timeout: PollTimeout) -> Result<bool> {
    loop {
        match poll(files, timeout) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::kernel("wait for events")(errno)),
            Ok(count) => return Ok(count > 0),
        }
    }
}
