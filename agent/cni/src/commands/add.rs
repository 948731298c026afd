//! ADD: an address, a link, host ports.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::Removal;
use crate::config::{CniArgs, Config, PortMapping};
use crate::error::{Error, Result};
use crate::fault::step;
use crate::hostport::{self, HostPortSet};
use crate::ipam::{Address, Lease, Record, Store};
use crate::link::{self, Netns, Plan};
use crate::netlink::Socket;
use crate::request::Environment;
use crate::result::{Interface, Ip, Success, container_addresses};

pub(super) fn add(config: &Config, args: &CniArgs, environment: &Environment) -> Result<String> {
    let store = Store::new(config.state_dir());
    if config.sets.is_empty() {
        return chained(config, args, environment, &store);
    }
    let own = Netns::own()?;
    let netns = Netns::open(&environment.netns, &own)?;
    let mut host = Socket::route()?;
    let lease = take_lease(config, args, environment, &store, &mut host)?;
    let plan = plan(config, &lease.record);
    match attach(&mut host, &plan, &lease.record, &store, &netns, &own) {
        Ok(()) => Ok(success(config, environment, &plan).to_string()),
        Err(error) => {
            // The runtime will call DEL, but an address that never was in use need not wait for it.
            let undone = own
                .enter()
                .and_then(|()| super::teardown(&store, &lease.record, Removal::Background));
            match undone {
                Ok(()) => Err(error),
                Err(more) => Err(Error::Several(vec![error, more])),
            }
        }
    }
}

fn take_lease(
    config: &Config,
    args: &CniArgs,
    environment: &Environment,
    store: &Store,
    host: &mut Socket,
) -> Result<Lease> {
    let mut allocate = |draft: Record| {
        let in_use = |ip| link::is_routed_to_a_pod(host, ip);
        store.allocate(&config.sets, &config.requested, draft, in_use)
    };
    let draft = Record {
        container_id: environment.container_id.clone(),
        ifname: environment.ifname.clone(),
        netns: environment.netns.clone(),
        pod: args.pod.clone(),
        link: link::host_name(&config.name, &environment.container_id, &environment.ifname),
        addresses: Vec::new(),
        ports: config.ports.clone(),
        port_targets: Vec::new(),
        host_ports: config.host_ports,
    };
    match allocate(draft.clone()) {
        // An ADD that was killed halfway leaves a record without a link, or with one whose pod is
        // gone; the runtime tries again with the same container.
        Err(Error::AlreadyAttached { .. }) if !link::exists(&draft.link) => {
            if let Some(stale) = store.find(&draft.container_id, &draft.ifname)? {
                super::teardown(store, &stale, Removal::Background)?;
            }
            allocate(draft)
        }
        other => other,
    }
}

fn attach(
    host: &mut Socket,
    plan: &Plan,
    record: &Record,
    store: &Store,
    netns: &Netns,
    own: &Netns,
) -> Result<()> {
    let index = link::create(host, plan, netns)?;
    if !record.ports.is_empty() {
        hostport::add(store, &HostPortSet::of(record))?;
        step!();
    }
    netns.enter()?;
    link::configure(plan)?;
    link::settle(host, plan, index, own)
}

/// What the link of a record looks like.
pub(super) fn plan(config: &Config, record: &Record) -> Plan {
    Plan {
        host_mac: link::mac(&record.link, "host"),
        pod_mac: link::mac(&record.link, "pod"),
        pod_name: record.ifname.clone(),
        mtu: config.mtu,
        alias: link::alias(
            &config.name,
            record.pod.as_ref().unwrap_or(&record.container_id),
        ),
        routes: routes(config, &record.addresses),
        route_localnet: record.ports.iter().any(|port| port.serves(true))
            && record.addresses.iter().any(|a| a.gateway.is_ipv4()),
        addresses: record.addresses.clone(),
        host_name: record.link.clone(),
    }
}

/// The routes of the pod with their next hops. A route of a family the pod has no address of is left
/// out: on a host without that family it would make the pod unusable.
fn routes(config: &Config, addresses: &[Address]) -> Vec<(IpNet, IpAddr)> {
    let gateway = |ipv4: bool| {
        addresses
            .iter()
            .map(|address| address.gateway)
            .find(|gateway| gateway.is_ipv4() == ipv4)
    };
    match &config.routes {
        Some(routes) => routes
            .iter()
            .filter_map(|route| {
                let default = gateway(route.dst.addr().is_ipv4())?;
                Some((route.dst, route.gw.unwrap_or(default)))
            })
            .collect(),
        None => [
            (
                true,
                IpNet::new_assert(std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
            ),
            (
                false,
                IpNet::new_assert(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
            ),
        ]
        .into_iter()
        .filter_map(|(ipv4, dst)| Some((dst, gateway(ipv4)?)))
        .collect(),
    }
}

fn success(config: &Config, environment: &Environment, plan: &Plan) -> Value {
    Success {
        host: Interface {
            name: &plan.host_name,
            mac: plan.host_mac,
        },
        pod: Interface {
            name: &plan.pod_name,
            mac: plan.pod_mac,
        },
        sandbox: &environment.netns,
        mtu: plan.mtu,
        ips: plan
            .addresses
            .iter()
            .map(|address| Ip {
                address: address.address,
                gateway: address.gateway,
            })
            .collect(),
        routes: plan.routes.clone(),
        dns: config.dns.as_ref(),
    }
    .to_json(config.version, config.prev_result.as_ref())
}

/// Without ranges the plugin forwards host ports to a link that another plugin made.
fn chained(
    config: &Config,
    args: &CniArgs,
    environment: &Environment,
    store: &Store,
) -> Result<String> {
    let previous = config.prev_result.clone().unwrap_or_default();
    if !config.ports.is_empty() {
        let record = Record {
            container_id: environment.container_id.clone(),
            ifname: environment.ifname.clone(),
            netns: environment.netns.clone(),
            pod: args.pod.clone(),
            link: String::new(),
            addresses: Vec::new(),
            ports: config.ports.clone(),
            port_targets: port_targets(&config.ports, &previous)?,
            host_ports: config.host_ports,
        };
        let lease = store.allocate(&[], &[], record, |_| Ok(false))?;
        if let Err(error) = hostport::add(store, &HostPortSet::of(&lease.record)) {
            super::teardown(store, &lease.record, Removal::Background)?;
            return Err(error);
        }
    }
    Ok(previous.to_string())
}

fn port_targets(ports: &[PortMapping], previous: &Value) -> Result<Vec<IpAddr>> {
    let targets = container_addresses(previous);
    let served = |port: &PortMapping| targets.iter().any(|ip| port.serves(ip.is_ipv4()));
    match ports.iter().find(|port| !served(port)) {
        None => Ok(targets),
        Some(port) => Err(Error::InvalidConfig(format!(
            "prevResult has no address of the container that port {} could lead to",
            port.host_port
        ))),
    }
}
