//! Network namespaces.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

use crate::error::{Error, Result};

/// An open network namespace.
pub(crate) struct Netns {
    file: File,
    path: String,
}

impl Netns {
    /// The namespace of a pod.
    ///
    /// # Errors
    /// There is none at this path, or it is the one this process is in.
    pub(crate) fn open(path: &str, own: &Self) -> Result<Self> {
        let invalid = |problem: &str| Error::InvalidNetns {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::UnknownContainer(format!("{path}: {error}")),
            _ => invalid(&error.to_string()),
        })?;
        let netns = Self {
            file,
            path: path.to_owned(),
        };
        let (id, own_id) = (netns.id()?, own.id()?);
        if id == own_id {
            return Err(invalid("is the network namespace of the host"));
        }
        // All namespaces are files of one file system.
        if id.0 != own_id.0 {
            return Err(invalid("is no network namespace"));
        }
        Ok(netns)
    }

    /// The namespace of this process.
    pub(crate) fn own() -> Result<Self> {
        let path = "/proc/thread-self/ns/net";
        Ok(Self {
            file: File::open(path).map_err(Error::io(format!("open {path}")))?,
            path: path.to_owned(),
        })
    }

    /// Moves this thread into the namespace. The plugin has one thread, so threads are no concern.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(Error::kernel(format!("enter {}", self.path)))
    }

    /// For messages that name the namespace.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn id(&self) -> Result<(u64, u64)> {
        let stat = fstat(&self.file).map_err(Error::kernel(format!("stat {}", self.path)))?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

/// Sets a value below /proc/sys/net of the network namespace this thread is in.
pub(crate) fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).map_err(Error::io(format!("write {value} to {path}")))
}
