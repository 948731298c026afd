//! STATUS: would ADD work?

use crate::config::Config;
use crate::error::{Error, Result};
use crate::ipam::Store;
use crate::netlink::Socket;

/// The configuration has been read in full by now. A range without a free address is no reason to
/// refuse: that is the trouble of the next pod, not of the node.
pub(super) fn status(config: &Config) -> Result<()> {
    let unavailable = |error: Error| Error::NotAvailable(error.to_string());
    Store::new(config.state_dir())
        .probe()
        .map_err(unavailable)?;
    Socket::route().map(drop).map_err(unavailable)
}
