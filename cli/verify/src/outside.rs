//! A listener outside of the cluster, for clusters whose nodes are containers of the local Docker
//! Engine: a container of the same image on the network of the nodes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use kindnet_cluster::Engine;

use crate::objects::LABEL;

/// Port of the listener.
const PORT: u16 = 7100;

/// Age in seconds from which the listener of another run is one of a run that died.
const STALE_SECS: i64 = 900;

/// A running listener.
pub struct Listener {
    docker: Docker,
    id: String,
    /// Where it listens, an address per family of the network.
    pub addresses: Vec<SocketAddr>,
}

/// A listener that is being started. The start goes on when nobody waits for it any more: a
/// container that is made at the moment a run is stopped would be left behind otherwise.
#[derive(Clone)]
pub struct Starting(Shared<BoxFuture<'static, Result<Arc<Listener>, String>>>);

impl Starting {
    /// As [`Listener::start`].
    #[must_use]
    pub fn begin(provider_id: String, image: String, name: String) -> Self {
        Self::of(async move { Listener::start(&provider_id, &image, &name).await })
    }

    fn of(start: impl Future<Output = Result<Listener, String>> + Send + 'static) -> Self {
        let task = tokio::spawn(start);
        let result = task.map(|joined| match joined {
            Ok(started) => started.map(Arc::new),
            Err(error) => Err(format!("no listener: {error}")),
        });
        Self(result.boxed().shared())
    }

    /// The listener, once it runs.
    ///
    /// # Errors
    /// As [`Listener::start`].
    pub async fn listener(&self) -> Result<Arc<Listener>, String> {
        self.0.clone().await
    }

    /// Waits for the start and removes what came of it.
    pub async fn remove(&self) {
        if let Ok(listener) = self.listener().await {
            listener.remove().await;
        }
    }
}

impl Listener {
    /// Starts a listener beside the node with this `spec.providerID`.
    ///
    /// # Errors
    /// Why there can be none, for people.
    pub async fn start(provider_id: &str, image: &str, name: &str) -> Result<Self, String> {
        let node = kind_node(provider_id).ok_or_else(|| {
            "the nodes are no containers of a local Docker Engine; --outside names another host"
                .to_owned()
        })?;
        // Wherever the `docker` command looks for it, which need not be the default socket.
        let engine = Engine::connect()
            .await
            .map_err(|error| format!("no listener: {error}"))?;
        let docker = engine.client().clone();
        let inspected = docker
            .inspect_container(node, None::<InspectContainerOptions>)
            .await
            .map_err(|_| format!("no listener: the local Docker Engine has no container {node}"))?;
        let network = network_of(&inspected)
            .ok_or_else(|| format!("no listener: container {node} is on no network"))?;
        docker.inspect_image(image).await.map_err(|_| {
            format!("no listener: the local Docker Engine does not have the image {image}")
        })?;
        remove_stale(&docker).await;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let created = docker
            .create_container(Some(options), body(image, &network))
            .await
            .map_err(|e| format!("no listener: {e}"))?;
        let mut listener = Self {
            docker,
            id: created.id,
            addresses: Vec::new(),
        };
        match listener.begin(&network).await {
            Ok(addresses) => {
                listener.addresses = addresses;
                Ok(listener)
            }
            Err(error) => {
                listener.remove().await;
                Err(format!("no listener: {error}"))
            }
        }
    }

    async fn begin(&self, network: &str) -> Result<Vec<SocketAddr>, bollard::errors::Error> {
        self.docker
            .start_container(&self.id, None::<StartContainerOptions>)
            .await?;
        let inspected = self
            .docker
            .inspect_container(&self.id, None::<InspectContainerOptions>)
            .await?;
        Ok(addresses(&inspected, network))
    }

    /// Removes the container.
    pub async fn remove(&self) {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        if let Err(error) = self.docker.remove_container(&self.id, Some(options)).await {
            tracing::warn!(container = self.id, %error, "the listener is not removed");
        }
    }
}

/// `kind://docker/CLUSTER/NODE`
fn kind_node(provider_id: &str) -> Option<&str> {
    let rest = provider_id.strip_prefix("kind://docker/")?;
    let (_, node) = rest.split_once('/')?;
    (!node.is_empty()).then_some(node)
}

fn body(image: &str, network: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["kindnet-probe".to_owned()]),
        cmd: Some(vec![
            "serve".to_owned(),
            "--port".to_owned(),
            PORT.to_string(),
            "--node".to_owned(),
            "outside".to_owned(),
        ]),
        labels: Some(HashMap::from([(LABEL.to_owned(), "true".to_owned())])),
        host_config: Some(HostConfig {
            network_mode: Some(network.to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            readonly_rootfs: Some(true),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn networks(container: &ContainerInspectResponse) -> Vec<(&String, &EndpointSettings)> {
    let settings = container.network_settings.as_ref();
    let mut networks: Vec<_> = settings
        .and_then(|s| s.networks.as_ref())
        .into_iter()
        .flatten()
        .collect();
    networks.sort_by_key(|(name, _)| *name);
    networks
}

/// The network a node reaches the others over: the first, of several.
fn network_of(container: &ContainerInspectResponse) -> Option<String> {
    networks(container).first().map(|(name, _)| (*name).clone())
}

fn addresses(container: &ContainerInspectResponse, network: &str) -> Vec<SocketAddr> {
    networks(container)
        .into_iter()
        .filter(|(name, _)| *name == network)
        .flat_map(|(_, endpoint)| [&endpoint.ip_address, &endpoint.global_ipv6_address])
        .filter_map(|text| text.as_deref()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, PORT))
        .collect()
}

/// Listeners of runs that were killed.
async fn remove_stale(docker: &Docker) {
    let filters = HashMap::from([("label", vec![format!("{LABEL}=true")])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let Ok(listed) = docker.list_containers(Some(options)).await else {
        return;
    };
    let now = now_secs();
    for container in listed {
        let old = container.created.is_some_and(|at| now - at > STALE_SECS);
        if let Some(id) = container.id.filter(|_| old) {
            let options = RemoveContainerOptionsBuilder::new()
                .force(true)
                .v(true)
                .build();
            let _ = docker.remove_container(&id, Some(options)).await;
        }
    }
}

fn now_secs() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn a_start_that_nobody_waits_for_comes_to_its_end() {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        let starting = Starting::of(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            told.store(true, Ordering::Relaxed);
            Err("no daemon".to_owned())
        });
        let stopped = tokio::time::timeout(Duration::from_millis(20), starting.listener()).await;
        assert!(stopped.is_err());
        assert!(!ended.load(Ordering::Relaxed));
        starting.remove().await;
        assert!(ended.load(Ordering::Relaxed));
    }

    #[rstest]
    #[case("kind://docker/kind/kind-worker", Some("kind-worker"))]
    #[case("kind://docker/a/a-control-plane", Some("a-control-plane"))]
    #[case("kind://podman/kind/kind-worker", None)]
    #[case("aws:///eu-west-1a/i-0123", None)]
    #[case("kind://docker/kind/", None)]
    #[case("", None)]
    fn nodes_that_are_local_containers(#[case] id: &str, #[case] node: Option<&str>) {
        assert_eq!(kind_node(id), node);
    }

    #[test]
    fn a_listener_has_an_address_per_family() {
        let inspected: ContainerInspectResponse = serde_json::from_value(serde_json::json!({
            "NetworkSettings": {"Networks": {"kind": {
                "IPAddress": "172.18.0.9", "GlobalIPv6Address": "fc00::9",
            }, "other": {"IPAddress": "10.0.0.1"}}},
        }))
        .unwrap();
        assert_eq!(network_of(&inspected).as_deref(), Some("kind"));
        assert_eq!(
            addresses(&inspected, "kind"),
            [
                "172.18.0.9:7100".parse().unwrap(),
                "[fc00::9]:7100".parse().unwrap()
            ]
        );
    }
}
