//! What a run leaves in the cluster, and its removal.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};

use crate::objects::{LABEL, Shape};
use crate::outside::Starting;

/// Age from which the namespace of another run is one of a run that died.
const STALE: Duration = Duration::from_secs(900);

/// Longest wait for the removal.
const REMOVAL: Duration = Duration::from_secs(5);

const PREFIX: &str = "kindnet-verify-";

/// Ports and names nobody else uses at the moment.
#[must_use]
pub fn shape(image: &str) -> Shape {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library seeds every RandomState differently; no need for a crate.
    let random = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    // Below the NodePorts of Kubernetes (30000) and the ephemeral ports of Linux (32768).
    let base = 20000 + u16::try_from(random % 4900).unwrap_or_default() * 2;
    Shape {
        namespace: format!("{PREFIX}{:06x}", random >> 40),
        image: image.to_owned(),
        pod_port: 7100,
        host_network_port: base,
        host_port: Some(base + 1),
    }
}

/// Removes what a run made. The namespace goes in the background: nothing in it is in anybody's way
/// any more, and no later run uses the same name.
pub async fn remove(client: &Client, namespace: &str, listener: Option<&Starting>) {
    let namespaces = Api::<Namespace>::all(client.clone());
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let of_cluster = async {
        // At once: a kubelet that takes its time to report the end of its pods (some need a minute)
        // would keep the namespace around for as long. It stops the containers all the same.
        let at_once = DeleteParams::default().grace_period(0);
        if let Err(error) = pods
            .delete_collection(&at_once, &ListParams::default())
            .await
        {
            tracing::debug!(namespace, %error, "the pods go with their namespace");
        }
        if let Err(error) = namespaces
            .delete(namespace, &DeleteParams::background())
            .await
            && !matches!(&error, kube::Error::Api(status) if status.code == 404)
        {
            tracing::warn!(namespace, %error, "the check pods are not removed");
        }
    };
    let of_docker = async {
        if let Some(listener) = listener {
            listener.remove().await;
        }
    };
    let both = async { futures_util::join!(of_cluster, of_docker) };
    if tokio::time::timeout(REMOVAL, both).await.is_err() {
        tracing::warn!(
            namespace,
            "removing the check pods takes too long, it is left to the next run"
        );
    }
}

/// Removes what runs that were killed have left.
pub async fn remove_stale(client: &Client) {
    let namespaces = Api::<Namespace>::all(client.clone());
    let Ok(list) = namespaces.list(&ListParams::default().labels(LABEL)).await else {
        return;
    };
    let now = SystemTime::now();
    let stale = list.items.iter().filter_map(|n| stale_name(n, now));
    join_all(stale.map(async |name| {
        tracing::info!(namespace = name, "removing what an earlier run has left");
        let _ = namespaces.delete(name, &DeleteParams::background()).await;
    }))
    .await;
}

/// Name of a namespace that a run of ours left long ago.
fn stale_name(namespace: &Namespace, now: SystemTime) -> Option<&str> {
    let meta = &namespace.metadata;
    let name = meta.name.as_deref()?;
    let created = meta.creation_timestamp.as_ref()?.0;
    // A clock that is behind that of the cluster makes it young.
    let age = now.duration_since(created.into()).ok()?;
    let own = name.starts_with(PREFIX) && meta.deletion_timestamp.is_none();
    (own && age > STALE).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("kindnet-verify-0123ab", "2026-01-01T11:00:00Z", None, true)]
    #[case("kindnet-verify-0123ab", "2026-01-01T11:50:00Z", None, false)]
    #[case("kindnet-verify-0123ab", "2026-01-01T12:30:00Z", None, false)]
    #[case(
        "kindnet-verify-0123ab",
        "2026-01-01T11:00:00Z",
        Some("2026-01-01T11:59:00Z"),
        false
    )]
    #[case("somebody-elses", "2026-01-01T11:00:00Z", None, false)]
    fn only_what_a_run_left_long_ago(
        #[case] name: &str,
        #[case] created: &str,
        #[case] deleted: Option<&str>,
        #[case] stale: bool,
    ) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {
            "name": name, "creationTimestamp": created, "deletionTimestamp": deleted,
        }}))
        .unwrap();
        // 2026-01-01T12:00:00Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_268_800);
        assert_eq!(stale_name(&namespace, now).is_some(), stale);
    }

    #[test]
    fn ports_keep_clear_of_those_of_kubernetes_and_linux() {
        for _ in 0..1000 {
            let shape = shape("i");
            assert!((20000..30000).contains(&shape.host_network_port));
            let host_port = shape.host_port.unwrap();
            assert!((20000..30000).contains(&host_port));
            assert_ne!(shape.host_network_port, host_port);
            assert_eq!(shape.namespace.len(), PREFIX.len() + 6);
        }
    }
}
