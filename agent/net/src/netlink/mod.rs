//! Routes, links and addresses of the network namespace this process is in.

mod routes;
mod uplink;
mod watch;

pub use routes::{Outcome, Reach, RouteKey, Routes};
pub use uplink::Uplink;
pub use watch::{Event, watch};

use futures_util::StreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::{Error, ErrorKind, Result};

/// How often a dump that the kernel says was disturbed is repeated. After that the last result is
/// used: writers cope with what they find, and the next resync sees the rest.
const DUMP_ATTEMPTS: usize = 5;

/// An rtnetlink socket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket and spawns the task that serves it on the current tokio runtime.
    ///
    /// Strict checking is on, so that the kernel applies the filters of dump requests (Linux 4.20).
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn open() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .map_err(|e| Error::io("open a netlink socket", e))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Sends a dump request. A dump that changes under the kernel's hands is repeated.
    async fn dump(
        &self,
        what: &str,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let mut message = NetlinkMessage::from(request.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let mut answers = self
                .handle
                .clone()
                .request(message)
                .map_err(|e| Error::netlink(what, e))?;
            let mut disturbed = false;
            while let Some(answer) = answers.next().await {
                disturbed |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        let error = Error::io(what, error.to_io());
                        if error.kind() != ErrorKind::Busy {
                            return Err(error);
                        }
                        disturbed = true;
                    }
                    _ => {}
                }
            }
            if !disturbed {
                break;
            }
        }
        Ok(found)
    }
}
