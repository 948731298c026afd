//! kubeadm on the nodes: what it is doing, and why it failed.

use kindnet_ui::{Child, UserError};

use super::boot::Booted;
use crate::docker::{Engine, Stream};
use crate::error::Result;
use crate::kubeadm::arguments;

/// Runs `kubeadm init` or `kubeadm join`. `phase` hears the name of each phase that begins.
pub(super) async fn kubeadm(
    engine: &Engine,
    node: &Booted,
    command: &str,
    child: &Child,
    mut phase: impl FnMut(&str),
) -> Result<()> {
    let words = arguments(command, &node.version);
    let mut line: Vec<&str> = vec!["kubeadm"];
    line.extend(words.iter().map(String::as_str));
    let mut messages: Vec<String> = Vec::new();
    let code = engine
        .exec_lines(&node.name, &line, |stream, text| {
            tracing::debug!(node = node.name, "{text}");
            if let Some((name, what)) = phase_line(text) {
                child.message(format!("{name}: {what}"));
                phase(name);
            } else if stream == Stream::Stderr {
                messages.push(text.to_owned());
            }
        })
        .await?;
    if code == 0 {
        return Ok(());
    }
    let cause = cause(&messages).unwrap_or_else(|| format!("it ended with exit code {code}"));
    let lines = engine.diagnose(&node.name).await;
    let what = format!("kubeadm {command} failed on {}", node.name);
    Err(UserError::failure(format!(
        "{what}: {cause}\n  last failures on {}:\n    {}",
        node.name,
        lines.join("\n    ")
    ))
    .hint("repeat with --retain to keep the nodes, and -v to see all of kubeadm's output"))
}

/// `[phase] what it does`
fn phase_line(text: &str) -> Option<(&str, &str)> {
    let (name, what) = text.strip_prefix('[')?.split_once("] ")?;
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (plain && !name.is_empty()).then_some((name, what.trim()))
}

/// kubeadm's own words for its failure, without the advice around it.
fn cause(messages: &[String]) -> Option<String> {
    const ADVICE: &str = "To see the stack trace";
    let is_cause = |line: &&String| {
        line.starts_with("error execution phase") || line.to_lowercase().starts_with("error:")
    };
    let relevant = |line: &&str| !line.trim().is_empty() && !line.starts_with(ADVICE);
    if let Some(start) = messages.iter().position(|line| is_cause(&line)) {
        let lines: Vec<&str> = messages[start..]
            .iter()
            .map(String::as_str)
            .take_while(|line| !line.starts_with(ADVICE))
            .filter(relevant)
            .map(str::trim)
            .collect();
        return Some(lines.join("; "));
    }
    let last = messages.iter().rev().map(String::as_str).find(relevant);
    last.map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("[certs] Generating \"ca\" certificate", Some(("certs", "Generating \"ca\" certificate")))]
    #[case("[kubelet-start] Starting the kubelet", Some(("kubelet-start", "Starting the kubelet")))]
    #[case("Your Kubernetes control-plane has initialized", None)]
    #[case("[apiclient] All control plane components are healthy", Some(("apiclient", "All control plane components are healthy")))]
    #[case("[WARNING Swap]: x", None)]
    fn phases(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        assert_eq!(phase_line(text), expected);
    }

    #[test]
    fn the_cause_is_what_kubeadm_calls_an_error() {
        let messages = [
            "W1124 version skew",
            "error execution phase wait-control-plane: couldn't initialize a Kubernetes cluster",
            "To see the stack trace of this error execute with --v=5 or higher",
        ];
        assert_eq!(
            cause(&messages.map(str::to_owned)).unwrap(),
            "error execution phase wait-control-plane: couldn't initialize a Kubernetes cluster"
        );
        let only = ["only this".to_owned(), String::new()];
        assert_eq!(cause(&only).as_deref(), Some("only this"));
        assert_eq!(cause(&[]), None);
    }
}
