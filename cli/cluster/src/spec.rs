//! What a cluster should be, checked before anything is touched.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kindnet_api::node::Family;
use kindnet_ui::UserError;
use serde::Serialize;

use crate::names;

/// The address families of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// IPv4 only
    #[default]
    Ipv4,
    /// IPv6 only
    Ipv6,
    /// Both
    Dual,
}

impl IpFamily {
    /// kind's default pod subnets.
    #[must_use]
    pub const fn default_pod_subnet(self) -> &'static str {
        match self {
            Self::Ipv4 => "10.244.0.0/16",
            Self::Ipv6 => "fd00:10:244::/56",
            Self::Dual => "10.244.0.0/16,fd00:10:244::/56",
        }
    }

    /// kind's default Service subnets.
    #[must_use]
    pub const fn default_service_subnet(self) -> &'static str {
        match self {
            Self::Ipv4 => "10.96.0.0/16",
            Self::Ipv6 => "fd00:10:96::/112",
            Self::Dual => "10.96.0.0/16,fd00:10:96::/112",
        }
    }

    /// The address of this machine that the API server is published on.
    #[must_use]
    pub const fn api_server_address(self) -> IpAddr {
        match self {
            Self::Ipv4 | Self::Dual => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Ipv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }

    /// Whether the nodes need IPv6.
    #[must_use]
    pub const fn has_v6(self) -> bool {
        matches!(self, Self::Ipv6 | Self::Dual)
    }

    fn allows(self, family: Family) -> bool {
        match self {
            Self::Ipv4 => family == Family::V4,
            Self::Ipv6 => family == Family::V6,
            Self::Dual => true,
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        })
    }
}

/// Settings as a user gives them.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Name of the cluster.
    pub name: String,
    /// Address families.
    pub family: IpFamily,
    /// Number of worker nodes.
    pub workers: usize,
    /// Node image; [`names::DEFAULT_NODE_IMAGE`] when absent.
    pub image: Option<String>,
    /// Image of agent and controller; [`kindnet_api::names::DEFAULT_IMAGE`] when absent.
    pub kindnet_image: Option<String>,
    /// One prefix, or one per family with a comma between.
    pub pod_subnet: Option<String>,
    /// As `pod_subnet`.
    pub service_subnet: Option<String>,
}

/// A cluster that can be made: every field is valid by itself and fits the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Name of the cluster.
    pub name: String,
    /// Address families.
    pub family: IpFamily,
    /// Number of worker nodes.
    pub workers: usize,
    /// Node image.
    pub image: String,
    /// Image of agent and controller.
    pub kindnet_image: String,
    /// Pod subnets, at most one per family.
    pub pod_subnets: Vec<IpNet>,
    /// Service subnets, at most one per family. The first decides the order of a node's addresses.
    pub service_subnets: Vec<IpNet>,
    /// Name of the Docker network.
    pub network: String,
}

impl ClusterSpec {
    /// Checks the settings.
    ///
    /// # Errors
    /// One error that names everything that is wrong.
    pub fn new(settings: &Settings) -> Result<Self, UserError> {
        let mut problems = Vec::new();
        if let Err(problem) = check_name(&settings.name) {
            problems.push(problem);
        }
        let family = settings.family;
        let pods = settings
            .pod_subnet
            .as_deref()
            .unwrap_or(family.default_pod_subnet());
        let services = settings
            .service_subnet
            .as_deref()
            .unwrap_or(family.default_service_subnet());
        let pod_subnets = subnets("--pod-subnet", pods, family, &mut problems);
        let service_subnets = subnets("--service-subnet", services, family, &mut problems);
        for net in &pod_subnets {
            problems.extend(pod_subnet_size(*net, settings.workers + 1));
        }
        for net in &service_subnets {
            problems.extend(service_subnet_size(*net));
        }
        problems.extend(overlaps(
            &named(&pod_subnets, "--pod-subnet"),
            &named(&service_subnets, "--service-subnet"),
        ));
        for (flag, image) in [
            ("--image", &settings.image),
            ("--kindnet-image", &settings.kindnet_image),
        ] {
            if let Some(image) = image
                && (image.is_empty() || image.chars().any(char::is_whitespace))
            {
                problems.push(format!("{flag}: {image:?} is not an image reference"));
            }
        }
        if !problems.is_empty() {
            return Err(UserError::usage(problems.join("\n       ")));
        }
        Ok(Self {
            name: settings.name.clone(),
            family,
            workers: settings.workers,
            image: settings
                .image
                .clone()
                .unwrap_or_else(|| names::DEFAULT_NODE_IMAGE.to_owned()),
            kindnet_image: settings
                .kindnet_image
                .clone()
                .unwrap_or_else(|| kindnet_api::names::DEFAULT_IMAGE.to_owned()),
            pod_subnets,
            service_subnets,
            network: names::network(),
        })
    }

    /// Names and roles of the nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<(String, names::Role)> {
        names::node_names(&self.name, self.workers)
    }

    /// What overlaps between the cluster's subnets and other ones, such as those of the Docker
    /// network.
    #[must_use]
    pub fn overlaps_with(&self, what: &str, others: &[IpNet]) -> Vec<String> {
        let others = named(others, what);
        let mut found = overlaps(&named(&self.pod_subnets, "--pod-subnet"), &others);
        found.extend(overlaps(
            &named(&self.service_subnets, "--service-subnet"),
            &others,
        ));
        found
    }
}

/// The rule of kind, and what the names of the nodes made from it allow.
///
/// # Errors
/// What is wrong with the name.
pub fn check_name(name: &str) -> Result<(), String> {
    // The name of a node is also the value of its label kubernetes.io/hostname, which has at most 63
    // characters, and the longest suffix is `-control-plane`.
    const LONGEST: usize = 49;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(format!(
            "--name: {name:?} is not a cluster name: use lower-case letters, digits, `.` and `-`"
        ));
    }
    // RFC 1123: what is between dots begins and ends with a letter or a digit. The end of the last
    // part is that of the suffix.
    let begins = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !name.split('.').all(begins) {
        return Err(format!(
            "--name: {name:?} must begin with a letter or a digit, also behind each dot"
        ));
    }
    if name.contains("-.") {
        return Err(format!("--name: {name:?} must not have `-` before a dot"));
    }
    if name.len() > LONGEST {
        return Err(format!(
            "--name: {name:?} is longer than {LONGEST} characters"
        ));
    }
    Ok(())
}

fn named<'a>(nets: &[IpNet], name: &'a str) -> Vec<(&'a str, IpNet)> {
    nets.iter().map(|net| (name, *net)).collect()
}

/// Every pair that has an address in common.
fn overlaps(ours: &[(&str, IpNet)], theirs: &[(&str, IpNet)]) -> Vec<String> {
    let mut found = Vec::new();
    for (our_name, our) in ours {
        for (their_name, their) in theirs {
            if overlap(our, their) {
                found.push(format!(
                    "{our_name} {our} overlaps with {their_name} {their}"
                ));
            }
        }
    }
    found
}

/// Whether two prefixes have an address in common; prefixes do exactly when one holds the other.
fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn subnets(flag: &str, text: &str, family: IpFamily, problems: &mut Vec<String>) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    let before = problems.len();
    for part in text.split(',').map(str::trim) {
        match part.parse::<IpNet>() {
            Ok(net) if net != net.trunc() => problems.push(format!(
                "{flag}: {net} has bits set behind its prefix: use {}",
                net.trunc()
            )),
            Ok(net) => nets.push(net),
            Err(_) => problems.push(format!(
                "{flag}: {part:?} is not a prefix such as {}",
                family
                    .default_pod_subnet()
                    .split(',')
                    .next()
                    .unwrap_or_default()
            )),
        }
    }
    if problems.len() > before {
        return nets;
    }
    for net in &nets {
        let of = Family::of_net(net);
        if !family.allows(of) {
            problems.push(format!("{flag}: {net} is {of}, but --ipfamily is {family}"));
        }
    }
    let twice = |of: Family| nets.iter().filter(|net| Family::of_net(net) == of).count() > 1;
    for of in Family::ALL.into_iter().filter(|of| twice(*of)) {
        problems.push(format!("{flag}: {text:?} has more than one {of} prefix"));
    }
    nets
}

/// The controller manager gives every node a /24 or /64 and can number 16 bits of them
/// (`--node-cidr-mask-size`, kubeadm's `ValidatePodSubnetNodeMask`).
fn pod_subnet_size(net: IpNet, nodes: usize) -> Option<String> {
    let node_mask: u8 = match net {
        IpNet::V4(_) => 24,
        IpNet::V6(_) => 64,
    };
    let length = net.prefix_len();
    if length > node_mask || node_mask - length > 16 {
        return Some(format!(
            "--pod-subnet: {net} must have a prefix from /{} to /{node_mask}: each node gets a \
             /{node_mask} out of it",
            node_mask - 16
        ));
    }
    let room = 1usize << (node_mask - length);
    (room < nodes).then(|| {
        format!("--pod-subnet: {net} has room for {room} nodes of a /{node_mask} each, not {nodes}")
    })
}

/// At least ten addresses and at most 20 bits (kubeadm's `ValidateServiceSubnetSize`).
fn service_subnet_size(net: IpNet) -> Option<String> {
    let bits = net.max_prefix_len() - net.prefix_len();
    (!(4..=20).contains(&bits)).then(|| {
        format!(
            "--service-subnet: {net} must have a prefix from /{} to /{}",
            net.max_prefix_len() - 20,
            net.max_prefix_len() - 4
        )
    })
}

#[cfg(test)]
mod tests;
