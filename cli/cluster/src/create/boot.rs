//! One node from an image to a running system with its kubeadm configuration.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use bollard::query_parameters::StartContainerOptions;
use kindnet_ui::{Child, UserError};

use super::janitor::Janitor;
use crate::container::{self, SNAPSHOTTER_VARIABLE};
use crate::docker::{Engine, File, Network};
use crate::error::{Doing as _, Result, message};
use crate::kubeadm;
use crate::names::Role;
use crate::proxy;
use crate::spec::ClusterSpec;
use crate::version::KubeVersion;

/// How long systemd may take. kind gives it 30 seconds, which a busy machine exceeds.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// Times a port may be lost between picking and using it.
const PORT_ATTEMPTS: usize = 5;

/// A node that has booted.
#[derive(Debug, Clone)]
pub(super) struct Booted {
    pub(super) name: String,
    pub(super) version: KubeVersion,
    /// Where the API server is published; control planes only.
    pub(super) published: Option<SocketAddr>,
}

/// What booting a node takes.
pub(super) struct Boot<'a> {
    pub(super) engine: &'a Engine,
    pub(super) spec: &'a ClusterSpec,
    pub(super) network: &'a Network,
    pub(super) janitor: &'a Janitor,
}

impl Boot<'_> {
    /// Creates, starts and configures a node.
    pub(super) async fn node(&self, name: &str, role: Role, child: &Child) -> Result<Booted> {
        child.message("creating");
        let (id, published) = self.start(name, role).await?;
        let version = self.version(name).await?;
        let addresses = self.addresses(&id, name).await?;
        let config = kubeadm::Input {
            version: &version,
            cluster: &self.spec.name,
            node: name,
            role,
            addresses: &addresses,
            family: self.spec.family,
            pod_subnets: &self.spec.pod_subnets,
            service_subnets: &self.spec.service_subnets,
            cgroup_v1: self.engine.facts.cgroup_v1,
            rootless: self.engine.facts.rootless,
        };
        let files = [File {
            path: kubeadm::PATH.into(),
            mode: 0o644,
            content: config.render().into_bytes(),
        }];
        child.message("booting");
        tokio::try_join!(
            self.engine.put_files(&id, &files),
            self.engine.wait_for_boot(name, BOOT_LIMIT),
        )?;
        Ok(Booted {
            name: name.to_owned(),
            version,
            published,
        })
    }

    /// Creates and starts the container, again with another port where somebody else was faster.
    async fn start(&self, name: &str, role: Role) -> Result<(String, Option<SocketAddr>)> {
        let proxy = self.proxy();
        let snapshotter = std::env::var(SNAPSHOTTER_VARIABLE).ok();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let reserved = match role {
                Role::ControlPlane => Some(self.reserve_port()?),
                _ => None,
            };
            let publish = reserved.as_ref().map(|reserved| reserved.1);
            let body = container::body(&container::Input {
                cluster: &self.spec.name,
                node: name,
                role,
                image: &self.spec.image,
                network: &self.spec.network,
                family: self.spec.family,
                publish,
                proxy: &proxy,
                snapshotter: snapshotter.as_deref(),
                facts: &self.engine.facts,
            });
            let id = self.janitor.create(name, body).await?;
            // Until this moment nobody else could take the port.
            drop(reserved);
            let started = self
                .engine
                .docker
                .start_container(&id, None::<StartContainerOptions>);
            match started.await {
                Ok(()) => return Ok((id, publish)),
                Err(error) if port_is_taken(&message(&error)) && attempts < PORT_ATTEMPTS => {
                    self.janitor.discard(&id).await?;
                }
                Err(error) => return Err(error).doing(|| format!("cannot start the node {name}")),
            }
        }
    }

    /// Picks a free port and holds it.
    fn reserve_port(&self) -> Result<(TcpListener, SocketAddr)> {
        let address = self.spec.family.api_server_address();
        let what = || format!("cannot find a free port on {address} for the API server");
        let listener = TcpListener::bind((address, 0)).doing(what)?;
        let bound = listener.local_addr().doing(what)?;
        Ok((listener, bound))
    }

    fn proxy(&self) -> Vec<(String, String)> {
        let spec = self.spec;
        let nets = spec
            .service_subnets
            .iter()
            .chain(&spec.pod_subnets)
            .chain(&self.network.subnets);
        let mut direct: Vec<String> = nets.map(ToString::to_string).collect();
        direct.extend(spec.nodes().into_iter().map(|(name, _)| name));
        let variable = |name: &str| std::env::var(name).ok();
        let (config, url) = (&self.engine.config.file, self.engine.endpoint.url());
        proxy::variables(variable, config, url, &direct)
    }

    async fn version(&self, node: &str) -> Result<KubeVersion> {
        let not_a_node_image = || {
            UserError::usage(format!("{} is not a node image", self.spec.image))
                .hint("it has no version in /kind/version; use a kindest/node image")
        };
        let text = self.engine.read_file(node, "/kind/version").await?;
        let text = text.ok_or_else(not_a_node_image)?;
        KubeVersion::parse(&String::from_utf8_lossy(&text)).ok_or_else(not_a_node_image)
    }

    async fn addresses(&self, id: &str, node: &str) -> Result<Vec<IpAddr>> {
        let inspected = self.engine.inspect(id).await?;
        let networks = inspected
            .network_settings
            .and_then(|s| s.networks)
            .unwrap_or_default();
        let endpoint = match networks.len() {
            1 => networks.into_values().next().unwrap_or_default(),
            count => {
                return Err(UserError::failure(format!(
                    "{node} is on {count} Docker networks, not 1"
                )));
            }
        };
        let parse = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let (v4, v6) = (
            parse(endpoint.ip_address),
            parse(endpoint.global_ipv6_address),
        );
        let family = self.spec.family;
        let addresses = kubeadm::node_addresses(v4, v6, family, &self.spec.service_subnets);
        if family.has_v6() && v6.is_none() {
            return Err(crate::docker::no_ipv6(format!(
                "{node} got no IPv6 address"
            )));
        }
        if addresses.is_empty() {
            return Err(UserError::failure(format!(
                "{node} got no address; it may have ended at once"
            ))
            .hint(format!("`docker logs {node}` tells, with --retain")));
        }
        Ok(addresses)
    }
}

/// The daemon's words, in lower case, from 20.10 to 29.
fn port_is_taken(message: &str) -> bool {
    message.contains("port is already allocated") || message.contains("address already in use")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "driver failed programming external connectivity on endpoint kind-control-plane (0a): bind \
         for 127.0.0.1:40000 failed: port is already allocated",
        true
    )]
    #[case(
        "failed to set up container networking: driver failed programming external connectivity on \
         endpoint kind-control-plane (0a): failed to bind host port 127.0.0.1:40000/tcp: address \
         already in use",
        true
    )]
    #[case(
        "driver failed programming external connectivity: error starting userland proxy: listen \
         tcp4 127.0.0.1:40000: bind: address already in use",
        true
    )]
    #[case("oci runtime create failed: no space left on device", false)]
    fn another_port_helps(#[case] message: &str, #[case] helps: bool) {
        assert_eq!(port_is_taken(message), helps);
    }
}
