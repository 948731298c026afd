//! Errors a person reads: what failed, why, and what to do next.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

/// The exit codes of kindnetctl. They are part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Everything asked for was done; every check passed.
    Success = 0,
    /// The operation was tried and failed; a check failed.
    Failure = 1,
    /// It could not be tried: bad usage, or something it needs is missing.
    Usage = 2,
    /// Stopped by Ctrl-C or SIGTERM, after cleaning up.
    Interrupted = 130,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// An error with the next step and the exit code it leads to.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UserError {
    message: String,
    hint: Option<String>,
    code: ExitCode,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl UserError {
    /// Bad input, or a missing precondition: nothing was touched.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code: ExitCode::Usage,
            source: None,
        }
    }

    /// Something was tried and failed.
    #[must_use]
    pub fn failure(message: impl Into<String>) -> Self {
        Self {
            code: ExitCode::Failure,
            ..Self::usage(message)
        }
    }

    /// The user asked to stop.
    #[must_use]
    pub fn interrupted() -> Self {
        Self {
            code: ExitCode::Interrupted,
            ..Self::usage("interrupted")
        }
    }

    /// Adds the next step, in the imperative.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        self.code
    }

    /// The next step.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Turns any error into a [`UserError`] with a next step.
pub trait WithHint<T> {
    /// What failed and what to do about it; the error becomes the cause.
    ///
    /// # Errors
    /// The error itself, dressed up.
    fn or_fail(self, what: impl Into<String>, hint: impl Into<String>) -> Result<T, UserError>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> WithHint<T> for Result<T, E> {
    fn or_fail(self, what: impl Into<String>, hint: impl Into<String>) -> Result<T, UserError> {
        self.map_err(|error| UserError::failure(what).hint(hint).source(error))
    }
}

/// Writes an error with its causes and its hint to standard error, once, and returns the exit code.
/// The first [`UserError`] in the chain decides code and hint; without one the code is
/// [`ExitCode::Failure`].
pub fn report(error: &anyhow::Error) -> ExitCode {
    let (text, code) = render(error);
    anstream::eprint!("{text}");
    code
}

fn render(error: &anyhow::Error) -> (String, ExitCode) {
    let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    let cyan = Style::new().fg_color(Some(AnsiColor::Cyan.into())).bold();
    let user = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<UserError>());
    let mut text = String::new();
    let mut previous = error.to_string();
    let _ = writeln!(text, "{red}error:{red:#} {previous}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Several libraries repeat their cause in their own message.
        if !previous.contains(&cause) {
            let _ = writeln!(text, "  caused by: {cause}");
            previous = cause;
        }
    }
    if let Some(hint) = user.and_then(UserError::hint_text) {
        let _ = writeln!(text, "\n{cyan}hint:{cyan:#} {hint}");
    }
    (text, user.map_or(ExitCode::Failure, UserError::code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn causes_are_listed_once_and_the_hint_comes_last() {
        let error = anyhow::Error::new(
            UserError::usage("the Docker daemon does not answer")
                .hint("start it with `systemctl start docker`")
                .source(std::io::Error::other("connection refused")),
        )
        .context("create cluster");
        let (text, code) = render(&error);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            text,
            "error: create cluster\n  caused by: the Docker daemon does not answer\n  caused by: \
             connection refused\n\nhint: start it with `systemctl start docker`\n"
        );
        assert_eq!(code, ExitCode::Usage);
    }

    #[test]
    fn a_plain_error_is_a_failure() {
        let error = Err::<(), _>(std::io::Error::other("x"))
            .context("read y")
            .unwrap_err();
        assert_eq!(render(&error).1, ExitCode::Failure);
    }
}
