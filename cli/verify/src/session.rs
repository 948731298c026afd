//! What a run leaves in the cluster, and its removal.

use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};

use crate::objects::{LABEL, Shape};
use crate::outside::Listener;

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
pub async fn remove(client: &Client, namespace: &str, listener: Option<&Listener>) {
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
    let stale = list.items.iter().filter_map(|namespace| {
        let name = namespace.metadata.name.as_deref()?;
        let created = namespace.metadata.creation_timestamp.as_ref()?.0;
        let age = std::time::SystemTime::now()
            .duration_since(created.into())
            .ok()?;
        let own = name.starts_with(PREFIX) && namespace.metadata.deletion_timestamp.is_none();
        (own && age > STALE).then_some(name)
    });
    join_all(stale.map(async |name| {
        tracing::info!(namespace = name, "removing what an earlier run has left");
        let _ = namespaces.delete(name, &DeleteParams::background()).await;
    }))
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

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
