//! The shortest proof that pods talk, at the end of `kindnetctl up`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::Node;
use kindnet_api::node::{Family, NodeInfo};
use kindnet_probe::wire::Action;
use kindnet_ui::UserError;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::catalogue::{CHECKS, Kind, Spec, Traffic};
use crate::evaluate::{Answers, evaluate};
use crate::exec::{self, Patience};
use crate::objects::Shape;
use crate::plan::{Expect, Instance, Key, Plan, Target, Use, Work, action, pod_name};
use crate::pods;
use crate::report::{Check, Outcome};
use crate::session;
use crate::topology::{PodState, Role, Source, TestNode, Topology};

/// Probes give up after so long even where the deadline is further away. The name server may have
/// to be unpacked and started meanwhile, which takes half a minute on a small machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pause before a request that failed is sent again.
const PAUSE: Duration = Duration::from_secs(1);

/// Options of [`quick`].
#[derive(Debug, Clone)]
pub struct QuickOptions {
    /// Nodes that must take part; they may not have joined yet.
    pub nodes: Vec<String>,
    /// Image of the check pods.
    pub image: String,
    /// Deadline, counted from the call.
    pub timeout: Duration,
}

/// Proves that pods on every node reach each other across nodes in every family, through a
/// ClusterIP and by name.
///
/// May be called as soon as the API server answers, beside whatever else still has to start: the
/// check pods are created when their node appears and wait there for the network.
///
/// # Errors
/// What did not work, with a next step; nothing is left behind either way.
pub async fn quick(
    client: Client,
    options: QuickOptions,
    cancel: CancellationToken,
) -> Result<(), UserError> {
    let shape = Shape {
        host_port: None,
        ..session::shape(&options.image)
    };
    let result = tokio::select! {
        () = cancel.cancelled() => Err(UserError::interrupted()),
        result = tokio::time::timeout(options.timeout, prove(&client, &options, &shape)) => {
            result.unwrap_or_else(|_| Err(UserError::failure(format!(
                "pods were not shown to reach each other within {} s",
                options.timeout.as_secs()
            ))))
        }
    };
    session::remove(&client, &shape.namespace, None).await;
    result.map_err(|error| match error.hint_text() {
        Some(_) => error,
        None => error.hint("`kindnetctl verify` shows what works and what does not"),
    })
}

async fn prove(client: &Client, options: &QuickOptions, shape: &Shape) -> Result<(), UserError> {
    let began = Instant::now();
    pods::create_namespace(client, shape).await?;
    let wanted: Vec<(Source, String)> = (0..)
        .zip(&options.nodes)
        .map(|(node, name)| (server(node), name.clone()))
        .collect();
    let nodes = Api::<Node>::all(client.clone());
    let create = try_join_all(wanted.iter().map(async |(source, name)| {
        let appeared = |node: Option<&Node>| node.is_some();
        // A watch may break on an API server that is starting; the deadline is the caller's.
        while let Err(error) = await_condition(nodes.clone(), name, appeared).await {
            tracing::debug!(%error, node = name, "watch failed, will retry");
            tokio::time::sleep(PAUSE).await;
        }
        pods::create_pod(client, shape, *source, name).await
    }));
    create.await?;
    let left = options.timeout.saturating_sub(began.elapsed());
    let states = pods::wait(client, &shape.namespace, &wanted, left, None, |_, _| ()).await?;

    let nodes = nodes_of(client, options, &states).await?;
    let families = families(&nodes);
    let dual = families.len() > 1;
    let topology = Topology {
        namespace: shape.namespace.clone(),
        services: pods::create_services(client, shape, &families, dual).await?,
        families,
        nodes,
        pod_port: shape.pod_port,
        host_network_port: shape.host_network_port,
        host_port: 0,
        // A name server that is still starting is waited for by the probes themselves.
        no_dns: None,
        dns_nodes: Vec::new(),
        kubernetes: Vec::new(),
        outside: Err(String::new()),
        not_kindnet: None,
    };
    let plan = plan(&topology);
    let left = options.timeout.saturating_sub(began.elapsed());
    let answers = ask(client, &topology, &plan, Patience::new(left.min(PATIENCE))).await;
    let checks = evaluate(&topology, &plan, &answers)
        .into_iter()
        .map(crate::evaluate::Evaluated::into_check);
    match complaints(checks) {
        None => Ok(()),
        Some(text) => {
            Err(UserError::failure("the pods of the cluster do not reach each other").source(text))
        }
    }
}

fn server(node: usize) -> Source {
    Source {
        node,
        role: Role::Server,
    }
}

/// The nodes and their pods. Not only those that are Ready: the kubelet reports that up to ten
/// seconds after pods can run.
async fn nodes_of(
    client: &Client,
    options: &QuickOptions,
    states: &BTreeMap<Source, PodState>,
) -> Result<Vec<TestNode>, UserError> {
    let api = Api::<Node>::all(client.clone());
    let get = async |name| {
        loop {
            match api.get(name).await {
                // Until the deadline of the caller.
                Err(error) if pods::may_pass(&error) => tokio::time::sleep(PAUSE).await,
                result => return result,
            }
        }
    };
    let nodes = join_all(options.nodes.iter().map(|name| get(name))).await;
    let mut found = Vec::new();
    for (position, node) in nodes.into_iter().enumerate() {
        let node = node.map_err(|e| UserError::failure("a node is gone").source(e))?;
        let info = NodeInfo::from_node(&node);
        found.push(TestNode {
            name: info.name,
            addresses: info.addresses,
            pod_cidrs: info.pod_cidrs,
            chosen: true,
            client: PodState::Absent,
            server: states
                .get(&server(position))
                .cloned()
                .unwrap_or(PodState::Absent),
            host: PodState::Absent,
        });
    }
    Ok(found)
}

/// The families the cluster gives pods addresses of.
fn families(nodes: &[TestNode]) -> Vec<Family> {
    let has = |family: &Family| {
        let mut cidrs = nodes.iter().flat_map(|n| &n.pod_cidrs);
        cidrs.any(|cidr| Family::of_net(cidr) == *family)
    };
    Family::ALL.into_iter().filter(has).collect()
}

fn spec(kind: Kind) -> &'static Spec {
    CHECKS
        .iter()
        .find(|c| c.kind == kind)
        .expect("every kind has a check")
}

/// One pod per node is both ends here: half the pods, half the time.
fn plan(topology: &Topology) -> Plan {
    let mut instances = Vec::new();
    let across = topology.nodes.len() > 1;
    for family in &topology.families {
        instances.push(Instance {
            spec: spec(Kind::PodStart),
            family: Some(*family),
            work: Work::Pods,
        });
        let mut add = |kind: Kind, uses: Vec<Use>| {
            instances.push(Instance {
                spec: spec(kind),
                family: Some(*family),
                work: Work::Probes(uses),
            });
        };
        let all = || 0..topology.nodes.len();
        let pairs: Vec<(usize, usize)> = all()
            .flat_map(|a| all().map(move |b| (a, b)))
            .filter(|(a, b)| a != b || !across)
            .collect();
        let pod = |node: usize| topology.nodes[node].server.address(*family);
        for traffic in [Traffic::Tcp, Traffic::FullMtu] {
            let uses = pairs.iter().filter_map(|(a, b)| {
                let to = SocketAddr::new(pod(*b)?, topology.pod_port);
                Some(usage(
                    topology,
                    *a,
                    action(traffic, to),
                    Expect {
                        pods: vec![pod_name(server(*b))],
                        // The full packet shows the same address.
                        peer: pod(*a).filter(|_| traffic == Traffic::Tcp),
                    },
                    Target::Pod(*b),
                    &topology.nodes[*b].name,
                ))
            });
            add(Kind::CrossNode(traffic), uses.collect());
        }
        let Some(services) = topology.services(*family) else {
            continue;
        };
        let to = SocketAddr::new(services.cluster_ip, topology.pod_port);
        let from_all = |action: Action, target: Target, to: &str| -> Vec<Use> {
            all()
                .map(|a| usage(topology, a, action.clone(), Expect::default(), target, to))
                .collect()
        };
        let cluster_ip = action(Traffic::Tcp, to);
        add(
            Kind::ClusterIp(Traffic::Tcp),
            from_all(cluster_ip, Target::Service, "a ClusterIP"),
        );
        let name = format!("{}.{}.svc", services.name, topology.namespace);
        let lookup = Action::Dns {
            name: name.clone(),
            v6: matches!(services.cluster_ip, IpAddr::V6(_)),
            expect: vec![services.cluster_ip],
        };
        add(Kind::DnsService, from_all(lookup, Target::Dns, &name));
    }
    Plan { instances }
}

fn usage(
    topology: &Topology,
    from: usize,
    action: Action,
    expect: Expect,
    target: Target,
    to: &str,
) -> Use {
    Use {
        key: Key {
            source: server(from),
            action,
        },
        subject: format!("pod on {} to {to}", topology.nodes[from].name),
        expect,
        target,
    }
}

async fn ask(client: &Client, topology: &Topology, plan: &Plan, patience: Patience) -> Answers {
    let mut batches: BTreeMap<Source, Vec<Action>> = BTreeMap::new();
    for instance in &plan.instances {
        if let Work::Probes(uses) = &instance.work {
            for usage in uses {
                let batch = batches.entry(usage.key.source).or_default();
                batch.push(usage.key.action.clone());
            }
        }
    }
    exec::ask_all(client, topology, batches, patience).await
}

/// What failed, in a line or two; none where nothing did.
fn complaints(checks: impl Iterator<Item = Check>) -> Option<String> {
    let mut lines = Vec::new();
    for check in checks {
        let Outcome::Fail { failures } = &check.outcome else {
            continue;
        };
        let family = check.family.map(|f| f.to_string()).unwrap_or_default();
        for failure in failures {
            lines.push(format!("{family}, {}: {}", failure.subject, failure.saw));
        }
    }
    let more = lines.len().saturating_sub(3);
    lines.truncate(3);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    (!lines.is_empty()).then(|| lines.join("; "))
}
