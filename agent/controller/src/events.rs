//! Events about the `Configuration`, as `kubectl describe` shows them.
//!
//! They are only made when something changes, so they are not aggregated; `events.k8s.io/v1` exists
//! from Kubernetes 1.19.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kindnet_api::{Configuration, names};
use kube::api::PostParams;
use kube::{Api, Client, Resource as _, ResourceExt as _};

use crate::connect::explain;

/// The API server refuses longer notes (in bytes).
const NOTE_LIMIT: usize = 1000;

/// One thing worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should look.
    pub warning: bool,
    /// `PascalCase`, for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub note: String,
}

impl Notice {
    /// Everything is as it should be.
    pub fn normal(reason: &'static str, note: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason,
            note: note.into(),
        }
    }

    /// Somebody should look.
    pub fn warning(reason: &'static str, note: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::normal(reason, note)
        }
    }
}

/// Publishes a notice. A failure is logged and otherwise ignored: an event must never hold up the
/// work it reports.
pub async fn publish(client: &Client, identity: &str, about: &Configuration, notice: &Notice) {
    let namespace = about.namespace().unwrap_or_default();
    let api = Api::<Event>::namespaced(client.clone(), &namespace);
    let event = event(identity, about, notice, Timestamp::now());
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        let error = explain(&error);
        tracing::warn!(reason = notice.reason, error, "event not published");
    }
}

fn event(identity: &str, about: &Configuration, notice: &Notice, now: Timestamp) -> Event {
    let mut note = notice.note.clone();
    if note.len() > NOTE_LIMIT {
        note.truncate(note.floor_char_boundary(NOTE_LIMIT));
        note.push('…');
    }
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", about.name_any(), now.as_nanosecond())),
            namespace: about.namespace(),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".into()),
        event_time: Some(MicroTime(now)),
        note: Some(note),
        reason: Some(notice.reason.into()),
        regarding: Some(about.object_ref(&())),
        reporting_controller: Some(format!("kindnet.io/{}", names::CONTROLLER_NAME)),
        reporting_instance: Some(identity.into()),
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.into()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kindnet_api::ConfigurationSpec;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let about = Configuration::new("kindnet", ConfigurationSpec::default());
        let notice = Notice::warning("ApplyFailed", "ä".repeat(2000));
        let event = event("me", &about, &notice, Timestamp::UNIX_EPOCH);
        let note = event.note.unwrap();
        assert!(note.len() <= 1024, "{}", note.len());
        assert!(note.ends_with("ä…"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}
