//! One error type, with a classification callers can act on.

use std::io;

use nix::errno::Errno;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It is there already.
    Exists,
    /// It is not there.
    Missing,
    /// The gateway, or the network, cannot be reached from here.
    Unreachable,
    /// The kernel, or a tool, does not know how.
    Unsupported,
    /// Somebody else holds a lock, or the kernel asks to try again.
    Busy,
    /// A capability, or a writable mount, is missing.
    Permission,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// A short name for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Missing => "missing",
            Self::Unreachable => "unreachable",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::Permission => "permission",
            Self::Other => "other",
        }
    }

    pub(crate) fn of_io(error: &io::Error) -> Self {
        error.raw_os_error().map_or_else(
            || match error.kind() {
                io::ErrorKind::NotFound => Self::Missing,
                io::ErrorKind::PermissionDenied => Self::Permission,
                _ => Self::Other,
            },
            |code| Self::of_errno(Errno::from_raw(code)),
        )
    }

    fn of_errno(errno: Errno) -> Self {
        match errno {
            Errno::EEXIST => Self::Exists,
            Errno::ESRCH | Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::EADDRNOTAVAIL => {
                Self::Missing
            }
            Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN => Self::Unreachable,
            Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ENOSYS => {
                Self::Unsupported
            }
            Errno::EBUSY | Errno::EINTR | Errno::EAGAIN | Errno::ENOBUFS => Self::Busy,
            Errno::EPERM | Errno::EACCES | Errno::EROFS => Self::Permission,
            _ => Self::Other,
        }
    }
}

/// A failed operation on the kernel.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct Error {
    operation: String,
    kind: ErrorKind,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of `operation`, phrased as an action: "add route 10.1.0.0/24 via 192.168.7.2".
    pub(crate) fn new(
        operation: impl Into<String>,
        kind: ErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            operation: operation.into(),
            kind,
            source: source.into(),
        }
    }

    /// A failed system call or process.
    pub(crate) fn io(operation: impl Into<String>, error: io::Error) -> Self {
        let kind = ErrorKind::of_io(&error);
        Self::new(operation, kind, error)
    }

    /// A failed netlink request. The library's own text names the message; the errno is what matters.
    pub(crate) fn netlink(operation: impl Into<String>, error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => Self::io(operation, message.to_io()),
            other => Self::new(operation, ErrorKind::Other, other),
        }
    }

    /// What kind of failure it was.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Errno::EEXIST, ErrorKind::Exists)]
    #[case(Errno::ESRCH, ErrorKind::Missing)]
    #[case(Errno::ENETUNREACH, ErrorKind::Unreachable)]
    #[case(Errno::EHOSTUNREACH, ErrorKind::Unreachable)]
    #[case(Errno::EAFNOSUPPORT, ErrorKind::Unsupported)]
    #[case(Errno::EINTR, ErrorKind::Busy)]
    #[case(Errno::EROFS, ErrorKind::Permission)]
    #[case(Errno::EINVAL, ErrorKind::Other)]
    fn errnos_are_classified(#[case] errno: Errno, #[case] kind: ErrorKind) {
        let error = Error::io("x", io::Error::from_raw_os_error(errno as i32));
        assert_eq!(error.kind(), kind);
    }
}
