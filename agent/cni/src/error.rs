//! What can go wrong, and how the runtime hears of it.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;
use serde::Serialize;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for a version of the specification this plugin does not speak.
    #[error("incompatible CNI version {0:?}, this plugin speaks {supported}", supported = crate::version::SUPPORTED_TEXT)]
    IncompatibleVersion(String),
    /// The container or its sandbox is not there.
    #[error("no such container: {0}")]
    UnknownContainer(String),
    /// A `CNI_*` variable is missing or invalid.
    #[error("{name}: {problem}")]
    Environment {
        /// Name of the variable.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The path in `CNI_NETNS` is not a network namespace of its own.
    #[error("{path}: {problem}")]
    InvalidNetns {
        /// Value of `CNI_NETNS`.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried, with the file's name.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Standard input is not the JSON of a network configuration.
    #[error("network configuration: {0}")]
    Decode(#[from] serde_json::Error),
    /// The network configuration cannot be used.
    #[error("network configuration: {0}")]
    InvalidConfig(String),
    /// STATUS: ADD would fail.
    #[error("not available: {0}")]
    NotAvailable(String),
    /// Every address of every range is taken.
    #[error("no free address in {ranges}: all {size} are in use")]
    Exhausted {
        /// The ranges of the set.
        ranges: String,
        /// How many addresses they have.
        size: u64,
    },
    /// A certain address was asked for and cannot be had.
    #[error("requested address {address} {problem}")]
    Requested {
        /// The address.
        address: IpAddr,
        /// Why it cannot be had.
        problem: &'static str,
    },
    /// The container has this interface already.
    #[error("{ifname} of container {container} is attached to network {network} already")]
    AlreadyAttached {
        /// Name of the network.
        network: String,
        /// Container.
        container: String,
        /// Name of the interface.
        ifname: String,
    },
    /// CHECK found a difference.
    #[error("{0}")]
    Check(String),
    /// The kernel refused an operation.
    #[error("{operation}: {errno}{detail}", errno = .errno.desc())]
    Kernel {
        /// What was tried.
        operation: String,
        /// Why it failed.
        errno: Errno,
        /// The kernel's own explanation, in parentheses, or nothing.
        detail: String,
    },
    /// Several independent things failed; everything else was done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Describes a failed file operation.
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }

    /// Describes a failed system call.
    pub(crate) fn kernel(operation: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let operation = operation.into();
        move |errno| Self::Kernel {
            operation,
            errno,
            detail: String::new(),
        }
    }

    /// The system's error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// One error of many; the error itself if there is one, nothing if there is none.
    ///
    /// # Errors
    /// There was an error.
    pub fn all(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// Error code: the well-known ones of the specification below 100, ours from there.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::IncompatibleVersion(_) => 1,
            Self::UnknownContainer(_) => 3,
            Self::Environment { .. } => 4,
            Self::Io { .. } => 5,
            Self::Decode(_) => 6,
            Self::InvalidConfig(_) => 7,
            // Not in the specification, but what libcni's own plugins answer.
            Self::InvalidNetns { .. } => 8,
            Self::NotAvailable(_) => 50,
            Self::Exhausted { .. } => 100,
            Self::Requested { .. } => 101,
            Self::AlreadyAttached { .. } => 102,
            Self::Check(_) => 103,
            Self::Kernel { .. } => 104,
            Self::Several(errors) => errors.first().map_or(104, Self::code),
        }
    }

    /// The object the specification wants on standard output.
    #[must_use]
    pub fn to_json(&self, cni_version: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            cni_version: &'a str,
            code: u32,
            msg: String,
        }
        let body = Body {
            cni_version,
            code: self.code(),
            msg: self.to_string(),
        };
        serde_json::to_string(&body).unwrap_or_default()
    }
}
