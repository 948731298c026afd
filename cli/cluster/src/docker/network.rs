//! The Docker network all clusters share.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};
use ipnet::IpNet;
use kindnet_ui::UserError;

use super::{Engine, ula};
use crate::error::{Doing as _, Result, message, status};

const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// IPv6 prefixes that are tried when others overlap with networks of this machine.
const ATTEMPTS: i32 = 5;

/// A Docker network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Identifier.
    pub id: String,
    /// Name.
    pub name: String,
    /// Subnets of its address management.
    pub subnets: Vec<IpNet>,
    /// IPv6 is enabled and it has an IPv6 subnet.
    pub has_v6: bool,
    /// Names of the containers attached to it.
    pub containers: Vec<String>,
}

/// Where a network came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkOrigin {
    /// It was there.
    Found,
    /// It was made just now.
    Created,
}

impl Engine {
    /// Finds a network by its exact name. Before Docker 25 several may bear it: the one most
    /// containers are attached to stays, the others are removed, as kind does.
    ///
    /// # Errors
    /// The daemon refuses.
    pub async fn network(&self, name: &str) -> Result<Option<Network>> {
        let found = self.networks_named(name).await?;
        let mut found = sorted(found).into_iter();
        let Some(keep) = found.next() else {
            return Ok(None);
        };
        for duplicate in found {
            match self.docker.remove_network(&duplicate.id).await {
                Ok(()) => {}
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => {
                    return Err(error).doing(|| format!("cannot remove a second network {name:?}"));
                }
            }
        }
        Ok(Some(keep))
    }

    async fn networks_named(&self, name: &str) -> Result<Vec<Network>> {
        let what = || format!("cannot look up the Docker network {name:?}");
        let filters = HashMap::from([("name", vec![format!("^{}$", name.replace('.', "\\."))])]);
        let options = ListNetworksOptionsBuilder::default()
            .filters(&filters)
            .build();
        let listed = self.docker.list_networks(Some(options)).await.doing(what)?;
        let mut networks = Vec::new();
        for network in listed
            .into_iter()
            .filter(|network| network.name.as_deref() == Some(name))
        {
            let id = network.id.unwrap_or_default();
            match self
                .docker
                .inspect_network(&id, None::<InspectNetworkOptions>)
                .await
            {
                Ok(network) => networks.push(Network::from(network)),
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => return Err(error).doing(what),
            }
        }
        Ok(networks)
    }

    /// Makes a network. `v6` demands IPv6; otherwise a daemon without it makes one for IPv4 only.
    ///
    /// # Errors
    /// The daemon has no IPv6 although it is needed, no free prefix was found, or it refuses.
    pub async fn create_network(&self, name: &str, v6: bool) -> Result<(Network, NetworkOrigin)> {
        let what = || format!("cannot create the Docker network {name:?}");
        let mtu = self.default_mtu().await?;
        let mut subnet = Some(ula::subnet(name, 0));
        let mut attempt = 0;
        loop {
            let request = request(name, subnet.map(IpNet::V6), mtu.as_deref());
            let error = match self.docker.create_network(request).await {
                Ok(_) => return self.created(name, NetworkOrigin::Created).await,
                Err(error) => error,
            };
            match Refusal::of(&message(&error)) {
                Refusal::Exists => return self.created(name, NetworkOrigin::Found).await,
                Refusal::Overlap if self.network(name).await?.is_some() => {
                    return self.created(name, NetworkOrigin::Found).await;
                }
                Refusal::Overlap if attempt + 1 < ATTEMPTS && subnet.is_some() => {
                    attempt += 1;
                    subnet = Some(ula::subnet(name, attempt));
                }
                Refusal::Overlap | Refusal::Exhausted => {
                    return Err(UserError::failure(what())
                        .hint(
                            "no free prefix was found: remove unused networks with \
                               `docker network prune`",
                        )
                        .source(error));
                }
                Refusal::NoIpv6 if v6 => return Err(no_ipv6(what()).source(error)),
                Refusal::NoIpv6 if subnet.is_some() => subnet = None,
                Refusal::NoIpv6 | Refusal::Other => return Err(error).doing(what),
            }
        }
    }

    async fn created(&self, name: &str, origin: NetworkOrigin) -> Result<(Network, NetworkOrigin)> {
        match self.network(name).await? {
            Some(network) => Ok((network, origin)),
            None => Err(UserError::failure(format!(
                "the Docker network {name:?} disappeared"
            ))),
        }
    }

    /// Removes a network nobody uses; one in use stays.
    ///
    /// # Errors
    /// The daemon refuses for another reason.
    pub async fn remove_network(&self, id: &str) -> Result<()> {
        match self.docker.remove_network(id).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) if message(&error).contains("active endpoints") => Ok(()),
            Err(error) => Err(error).doing(|| "cannot remove the Docker network".into()),
        }
    }

    /// The MTU of the default bridge, where the daemon was given one.
    async fn default_mtu(&self) -> Result<Option<String>> {
        match self
            .docker
            .inspect_network("bridge", None::<InspectNetworkOptions>)
            .await
        {
            Ok(bridge) => Ok(bridge
                .options
                .and_then(|mut options| options.remove(MTU_OPTION))
                .filter(|mtu| mtu.parse::<u32>().is_ok_and(|mtu| mtu > 0))),
            // A daemon may run without its default bridge.
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(error).doing(|| "cannot inspect the default bridge".into()),
        }
    }
}

/// What to do where the daemon or its host has no IPv6.
pub(crate) fn no_ipv6(what: String) -> UserError {
    UserError::usage(format!("{what}: Docker has no IPv6 here")).hint(
        "enable it: `sysctl net.ipv6.conf.all.disable_ipv6=0`, and on Docker before 27 set \
         {\"experimental\": true, \"ip6tables\": true} in /etc/docker/daemon.json; or use \
         --ipfamily ipv4",
    )
}

/// kind's order: more containers first, then the smaller identifier.
fn sorted(mut networks: Vec<Network>) -> Vec<Network> {
    networks.sort_by(|a, b| {
        b.containers
            .len()
            .cmp(&a.containers.len())
            .then_with(|| a.id.cmp(&b.id))
    });
    networks
}

fn request(name: &str, subnet: Option<IpNet>, mtu: Option<&str>) -> NetworkCreateRequest {
    let mut options = HashMap::from([(
        "com.docker.network.bridge.enable_ip_masquerade".to_owned(),
        "true".to_owned(),
    )]);
    if let Some(mtu) = mtu {
        options.insert(MTU_OPTION.to_owned(), mtu.to_owned());
    }
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".into()),
        internal: Some(false),
        attachable: Some(false),
        ingress: Some(false),
        config_only: Some(false),
        enable_ipv6: subnet.map(|_| true),
        ipam: Some(Ipam {
            driver: Some("default".into()),
            options: Some(HashMap::new()),
            config: Some(
                subnet
                    .map(|subnet| IpamConfig {
                        subnet: Some(subnet.to_string()),
                        ..IpamConfig::default()
                    })
                    .into_iter()
                    .collect(),
            ),
        }),
        options: Some(options),
        labels: Some(HashMap::new()),
        ..NetworkCreateRequest::default()
    }
}

/// Why a daemon does not make a network. Status codes differ between versions, texts less so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Exists,
    Overlap,
    Exhausted,
    NoIpv6,
    Other,
}

impl Refusal {
    fn of(message: &str) -> Self {
        let says = |text: &str| message.contains(text);
        if says("already exists") {
            Self::Exists
        } else if says("fully subnetted") || says("non-overlapping") || says("non-exhausted") {
            // All of the daemon's own pools are in use; another prefix of ours changes nothing.
            Self::Exhausted
        } else if says("overlap") {
            Self::Overlap
        } else if says("ip6tables") || says("ipv6") {
            Self::NoIpv6
        } else {
            Self::Other
        }
    }
}

impl From<NetworkInspect> for Network {
    fn from(network: NetworkInspect) -> Self {
        let subnets: Vec<IpNet> = network
            .ipam
            .and_then(|ipam| ipam.config)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|config| config.subnet?.parse().ok())
            .collect();
        let containers = network.containers.unwrap_or_default();
        Self {
            id: network.id.unwrap_or_default(),
            name: network.name.unwrap_or_default(),
            has_v6: network.enable_ipv6 == Some(true)
                && subnets.iter().any(|subnet| matches!(subnet, IpNet::V6(_))),
            subnets,
            containers: containers
                .into_values()
                .filter_map(|container| container.name)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("network with name kind already exists", Refusal::Exists)]
    #[case("pool overlaps with other one on this address space", Refusal::Overlap)]
    #[case(
        "conflicts with network 1: networks have overlapping ipv6",
        Refusal::Overlap
    )]
    #[case(
        "cannot read ipv6 setup for bridge br-1: open /proc/sys/net/ipv6/conf/br-1/disable_ipv6",
        Refusal::NoIpv6
    )]
    #[case(
        "failed to setup ip tables: unable to enable nat rule:  (iptables failed: ip6tables",
        Refusal::NoIpv6
    )]
    #[case(
        "could not find an available, non-overlapping ipv4 address pool among the defaults to \
         assign to the network",
        Refusal::Exhausted
    )]
    #[case(
        "all predefined address pools have been fully subnetted",
        Refusal::Exhausted
    )]
    #[case(
        "invalid pool request: pool overlaps with other one on this address space",
        Refusal::Overlap
    )]
    #[case("something else", Refusal::Other)]
    fn refusals(#[case] message: &str, #[case] expected: Refusal) {
        assert_eq!(Refusal::of(message), expected);
    }

    #[test]
    fn the_network_with_most_containers_stays() {
        let network = |id: &str, containers: usize| Network {
            id: id.into(),
            name: "kind".into(),
            subnets: Vec::new(),
            has_v6: false,
            containers: vec![String::new(); containers],
        };
        let order: Vec<String> = sorted(vec![network("c", 0), network("b", 1), network("a", 0)])
            .into_iter()
            .map(|network| network.id)
            .collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn requests() {
        let value = |subnet: Option<&str>, mtu| {
            let subnet = subnet.map(|subnet| subnet.parse().unwrap());
            serde_json::to_value(request("kind", subnet, mtu)).unwrap()
        };
        insta::assert_json_snapshot!(
            "network-v6",
            value(Some("fc00:f853:ccd:e793::/64"), Some("1400"))
        );
        insta::assert_json_snapshot!("network-v4-only", value(None, None));
    }
}
