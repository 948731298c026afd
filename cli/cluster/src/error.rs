//! How errors of the Engine API become errors a person can act on.

use std::error::Error as StdError;
use std::io::ErrorKind;

use kindnet_ui::UserError;

/// The result of everything here.
pub type Result<T, E = UserError> = std::result::Result<T, E>;

/// Says what was being done when an error came up.
pub(crate) trait Doing<T> {
    /// The error becomes the cause of "cannot do this".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for Result<T, bollard::errors::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| engine_error(what(), error))
    }
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| UserError::failure(what()).source(error))
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| UserError::failure(what()).source(error))
    }
}

impl<T> Doing<T> for Result<T, kindnet_api::yaml::YamlError> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| UserError::failure(what()).source(error))
    }
}

fn engine_error(what: String, error: bollard::errors::Error) -> UserError {
    if let Some(kind) = io_kind(&error) {
        return unreachable_daemon(kind).source(error);
    }
    let hint = hint(&error.to_string());
    let wrapped = UserError::failure(what).source(error);
    match hint {
        Some(hint) => wrapped.hint(hint),
        None => wrapped,
    }
}

/// The next step for what a daemon is known to say.
fn hint(message: &str) -> Option<&'static str> {
    let message = message.to_lowercase();
    let says = |text: &str| message.contains(text);
    if says("no space left on device") {
        Some("free space under Docker's data directory: `docker system df`, `docker system prune`")
    } else if says("too many open files") || says("inotify") {
        Some(
            "raise the limits: `sysctl fs.inotify.max_user_instances=512 \
              fs.inotify.max_user_watches=524288`",
        )
    } else if says("toomanyrequests") || says("rate limit") {
        Some("log in with `docker login`, or wait until the registry's limit has passed")
    } else if says("cgroup") && says("mountpoint") {
        Some(
            "a cgroup hierarchy of this host is not mounted: mount it, or restart Docker after a \
              reboot with `systemd.unified_cgroup_hierarchy=1`",
        )
    } else {
        None
    }
}

/// Whether the daemon could not be reached at all, and how.
pub(crate) fn io_kind(error: &bollard::errors::Error) -> Option<ErrorKind> {
    if let bollard::errors::Error::SocketNotFoundError(_) = error {
        return Some(ErrorKind::NotFound);
    }
    // Only a failed connection counts: a connection that breaks later is another matter.
    let bollard::errors::Error::HyperLegacyError { err } = error else {
        return None;
    };
    if !err.is_connect() {
        return None;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(err);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = current.source();
    }
    Some(ErrorKind::Other)
}

pub(crate) fn unreachable_daemon(kind: ErrorKind) -> UserError {
    match kind {
        ErrorKind::PermissionDenied => UserError::usage(
            "no permission to talk to the Docker daemon",
        )
        .hint("run as root, or join the group: `sudo usermod -aG docker $USER`, then log in again"),
        ErrorKind::NotFound => UserError::usage("the socket of the Docker daemon does not exist")
            .hint(
                "install Docker Engine and start it: `sudo systemctl start docker`; where the \
                   socket is elsewhere, set DOCKER_HOST or `docker context use`",
            ),
        _ => UserError::usage("the Docker daemon does not answer")
            .hint("start it: `sudo systemctl start docker`; `docker version` must show a Server"),
    }
}

/// The HTTP status of an answer of the daemon.
pub(crate) fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The text of an answer of the daemon, in lower case, for what only its text tells.
pub(crate) fn message(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.to_lowercase(),
        other => other.to_string().to_lowercase(),
    }
}
