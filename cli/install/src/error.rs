//! What the API server's errors mean to a person, and which of them pass.

use std::error::Error as _;

use kindnet_ui::UserError;

/// Turns a failed request into an error with a next step.
pub(crate) fn request_failed(what: impl std::fmt::Display, error: &kube::Error) -> UserError {
    let message = format!("cannot {what}");
    let cause = explain(error);
    let (code, reason) = match error {
        kube::Error::Api(status) => (status.code, status.reason.as_str()),
        _ => (0, ""),
    };
    let failure = match (code, reason) {
        (401, _) => UserError::failure(message)
            .hint("the credentials of this kubeconfig context are not accepted; renew them"),
        (403, _) => {
            UserError::failure(message).hint("use a kubeconfig context with the role cluster-admin")
        }
        (404, _) => UserError::failure(message),
        (0, _) => UserError::failure(message).hint(
            "is the cluster running, and does the kubeconfig context name it? \
             `kubectl cluster-info` shows",
        ),
        _ => UserError::failure(message),
    };
    failure.source(cause)
}

/// An error of the client in few words: its own text repeats the API server's whole answer.
pub(crate) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            if status.message.is_empty() {
                format!("the API server answers {}", status.code)
            } else {
                status.message.clone()
            }
        }
        other => {
            let mut innermost: &dyn std::error::Error = other;
            let mut cause = other.source();
            while let Some(next) = cause {
                innermost = next;
                cause = next.source();
            }
            innermost.to_string()
        }
    }
}

/// Whether the same request may succeed in a moment: the API server is starting, busy, or has not
/// made its own namespaces and roles yet.
pub(crate) fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            matches!(status.code, 404 | 409 | 429 | 500 | 502 | 503 | 504)
        }
        kube::Error::Discovery(_)
        | kube::Error::HyperError(_)
        | kube::Error::Service(_)
        | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

pub(crate) fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
