//! Giving the node back to ptp and host-local while pods run.
//!
//! host-local knows of its own reservations only, and ptp puts up with a route that is there already:
//! after a change of plugins it would give the addresses of running pods to new ones. So those get
//! reservations in host-local's own format, under the names host-local will be asked to free them by.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::Network;
use crate::error::{Error, Result};
use crate::link;
use crate::netlink::Socket;

impl Network {
    /// Reserves the addresses of every attachment with host-local, whose `dataDir` this is, and drops
    /// reservations of addresses no pod has: those of pods that came before this plugin and went
    /// under it. To be done before the configuration of host-local is put in place; can be repeated.
    /// How many addresses were reserved.
    ///
    /// # Errors
    /// The folder cannot be written or the kernel cannot be asked.
    pub fn hand_over_to_host_local(&self, data_dir: &Path) -> Result<usize> {
        let records = self.store.records()?;
        let folder = data_dir.join(self.folder.file_name().unwrap_or_default());
        let failed = |error| Error::io(format!("write {}", folder.display()))(error);
        if records.is_empty() && !folder.exists() {
            return Ok(0);
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        // The lock host-local itself takes.
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("lock"))
            .map_err(failed)?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::kernel(format!("lock {}", folder.display()))(errno))?;
        let mut host = Socket::route()?;
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(ip) = name.to_str().and_then(|name| name.parse::<IpAddr>().ok()) else {
                continue;
            };
            if !link::is_routed_to_a_pod(&mut host, ip)? {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        let mut reserved = 0;
        for record in records {
            for address in &record.addresses {
                let path = folder.join(address.address.addr().to_string());
                let file = File::options().write(true).create_new(true).open(path);
                match file {
                    Ok(mut file) => {
                        write!(file, "{}\r\n{}", record.container_id, record.ifname)
                            .map_err(failed)?;
                        reserved += 1;
                    }
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(reserved)
    }
}
