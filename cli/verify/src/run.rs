//! One run from beginning to end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kindnet_api::node::Family;
use kindnet_ui::{Ui, UserError};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::catalogue::{self, Spec};
use crate::cluster::Cluster;
use crate::diagnose;
use crate::evaluate::{Evaluated, evaluate};
use crate::exec::{Patience, ask_all};
use crate::hosts;
use crate::objects::Shape;
use crate::options::Options;
use crate::outside::Starting;
use crate::plan::Plan;
use crate::pods;
use crate::report::Report;
use crate::session;
use crate::topology::{PodState, Role, Services, Source, TestNode, Topology};

/// Longest wait for the check pods.
const START: Duration = Duration::from_secs(45);

/// Longest wait for pods whose network could not be set up at the first attempt.
const REFUSED: Duration = Duration::from_secs(10);

/// Probes that look into a failure: whatever they reach is a hop away.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the checks and removes everything it made, also when `cancel` fires.
///
/// # Errors
/// The checks could not be run at all: no API server, no right to make pods, an image that no node
/// has. A check that fails is no error: see [`Report::passed`].
pub async fn run(
    client: Client,
    options: Options,
    ui: &Ui,
    cancel: CancellationToken,
) -> Result<Report, UserError> {
    let specs = catalogue::select(&options.only).map_err(no_such_check)?;
    let began = Instant::now();
    let shape_slot = tokio::sync::OnceCell::new();
    let listener_slot = tokio::sync::OnceCell::new();
    let made = Made {
        shape: &shape_slot,
        listener: &listener_slot,
    };
    let work = checks(&client, &options, &specs, ui, &made, began);
    let result = tokio::select! {
        () = cancel.cancelled() => Err(UserError::interrupted()),
        result = tokio::time::timeout(options.timeout, work) => result.unwrap_or_else(|_| {
            Err(UserError::usage(format!(
                "the checks did not end within {} s", options.timeout.as_secs()
            ))
            .hint("a longer --timeout gives a slow cluster more time"))
        }),
    };
    if let Some(shape) = shape_slot.get() {
        if options.keep {
            ui.info(format!(
                "the check pods are kept: `kubectl delete namespace {}` removes them",
                shape.namespace
            ));
            if let Some(listener) = listener_slot.get() {
                listener.remove().await;
            }
        } else {
            session::remove(&client, &shape.namespace, listener_slot.get()).await;
        }
    }
    result
}

/// What was made so far, so that it is removed however the run ends.
struct Made<'a> {
    shape: &'a tokio::sync::OnceCell<Shape>,
    listener: &'a tokio::sync::OnceCell<Starting>,
}

fn no_such_check(patterns: Vec<String>) -> UserError {
    UserError::usage(format!("no check matches {}", patterns.join(", ")))
        .hint("`kindnetctl verify --list` shows the checks")
}

async fn checks(
    client: &Client,
    options: &Options,
    specs: &[&'static Spec],
    ui: &Ui,
    made: &Made<'_>,
    began: Instant,
) -> Result<Report, UserError> {
    let step = ui.step("Looking at the cluster");
    let cluster = Cluster::read(client, options.image.as_deref()).await?;
    let families = families(&cluster, &options.families)?;
    let chosen = cluster.choose(&options.nodes)?;
    let names: Vec<String> = chosen
        .iter()
        .map(|i| cluster.nodes[*i].info.name.clone())
        .collect();
    let list: Vec<_> = families.iter().map(ToString::to_string).collect();
    step.done_with(format!("{} on {}", list.join(" and "), names.join(", ")));
    for node in &cluster.left_out {
        ui.warn(format!("node {node} takes no part"));
    }

    let step = ui.step("Starting check pods");
    let shape = made
        .shape
        .get_or_init(async || session::shape(&cluster.image))
        .await;
    let stale = session::remove_stale(client);
    let prepare = prepare(client, options, &cluster, &families, &chosen, shape, &step);
    let listen = async {
        if !specs.iter().any(|s| s.kind == catalogue::Kind::Outside) {
            return Err(String::new());
        }
        listen(options, &cluster, shape, made).await
    };
    let ((), prepared, outside) = futures_util::join!(stale, prepare, listen);
    let (services, states) = prepared?;
    image_problem(&cluster.image, &states)?;
    step.done();

    let mut topology = topology(
        &cluster, &families, &chosen, shape, services, &states, outside,
    );
    let plan = Plan::new(&topology, specs);
    let step = ui.step("Running the checks");
    let patience = Patience::new(options.probe_timeout);
    let mut answers = ask_all(client, &topology, plan.batches(&topology), patience).await;
    if hosts::any_conflist(&topology, &answers) {
        // Installed some other way, such as the kindnet that kind brings.
        topology.not_kindnet = None;
    }
    let mut evaluated = evaluate(&topology, &plan, &answers);
    let failed = |e: &Evaluated| e.skipped.is_none() && !e.findings.is_empty();
    if evaluated.iter().any(failed) {
        step.message("looking into what failed");
        let hops = diagnose::hops(&topology, &evaluated);
        let more = ask_all(client, &topology, hops, Patience::on_old_links(LOOK)).await;
        // What the checks themselves found stays: they had more patience.
        for (key, answer) in more.answers {
            answers.answers.entry(key).or_insert(answer);
        }
        diagnose::explain(&topology, &mut evaluated, &answers);
    }
    let count = evaluated.iter().filter(|e| failed(e)).count();
    let checks: Vec<_> = evaluated.into_iter().map(Evaluated::into_check).collect();
    if count == 0 {
        step.done();
    } else {
        drop(step);
    }
    Ok(Report {
        nodes: names,
        families: list,
        image: cluster.image,
        checks,
        duration: began.elapsed(),
    })
}

fn families(cluster: &Cluster, wanted: &[Family]) -> Result<Vec<Family>, UserError> {
    let has = cluster.families();
    if has.is_empty() {
        return Err(
            UserError::usage("no node has a podCIDR, so pods have no addresses").hint(
                "give the cluster a pod subnet: kubeadm's networking.podSubnet, or \
             --allocate-node-cidrs and --cluster-cidr of the controller manager",
            ),
        );
    }
    if wanted.is_empty() {
        return Ok(has);
    }
    if let Some(missing) = wanted.iter().find(|f| !has.contains(f)) {
        let list: Vec<_> = has.iter().map(ToString::to_string).collect();
        return Err(
            UserError::usage(format!("the cluster has no {missing} pod addresses"))
                .hint(format!("it has {}", list.join(" and "))),
        );
    }
    Ok(wanted.to_vec())
}

/// Namespace, pods and Services; ends when the pods run.
async fn prepare(
    client: &Client,
    options: &Options,
    cluster: &Cluster,
    families: &[Family],
    chosen: &[usize],
    shape: &Shape,
    step: &kindnet_ui::Step,
) -> Result<(Vec<Services>, BTreeMap<Source, PodState>), UserError> {
    pods::create_namespace(client, shape).await?;
    let mut wanted = Vec::new();
    for (node, found) in ordered(cluster, chosen).into_iter().enumerate() {
        let roles: &[Role] = if node < chosen.len() {
            &[Role::Client, Role::Server, Role::Host]
        } else {
            &[Role::Host]
        };
        for role in roles {
            let source = Source { node, role: *role };
            wanted.push((source, cluster.nodes[found].info.name.clone()));
        }
    }
    let limit = START.min(options.timeout / 2);
    let dual = cluster.families().len() > 1;
    let (pods, services) = futures_util::join!(
        async {
            pods::create_pods(client, shape, &wanted).await?;
            let show = |running, all| step.message(format!("{running} of {all}"));
            let patience = Some(REFUSED);
            pods::wait(client, &shape.namespace, &wanted, limit, patience, show).await
        },
        pods::create_services(client, shape, families, dual),
    );
    Ok((services?, pods?))
}

/// Positions in the cluster: the chosen nodes first, then the others.
fn ordered(cluster: &Cluster, chosen: &[usize]) -> Vec<usize> {
    let others = (0..cluster.nodes.len()).filter(|i| !chosen.contains(i));
    chosen.iter().copied().chain(others).collect()
}

async fn listen(
    options: &Options,
    cluster: &Cluster,
    shape: &Shape,
    made: &Made<'_>,
) -> Result<Vec<std::net::SocketAddr>, String> {
    if cluster.masquerade_off {
        return Err("masquerade is off in the Configuration".to_owned());
    }
    if let Some(outside) = &options.outside {
        return Ok(outside.addresses.clone());
    }
    let provider_id = cluster.nodes[0].provider_id.clone();
    let starting = made
        .listener
        .get_or_init(async || {
            Starting::begin(provider_id, shape.image.clone(), shape.namespace.clone())
        })
        .await;
    Ok(starting.listener().await?.addresses.clone())
}

/// No check pod has an image to run: nothing can be checked.
fn image_problem(image: &str, states: &BTreeMap<Source, PodState>) -> Result<(), UserError> {
    let broken: Vec<&str> = states
        .values()
        .filter_map(|state| match state {
            PodState::Broken(why) if why.contains("Image") => Some(why.as_str()),
            _ => None,
        })
        .collect();
    if broken.len() < states.len() || broken.is_empty() {
        return Ok(());
    }
    Err(
        UserError::usage(format!("the nodes cannot get the image {image}"))
            .hint("load it into the nodes, or name another one with --image")
            .source(broken[0].to_owned()),
    )
}

fn topology(
    cluster: &Cluster,
    families: &[Family],
    chosen: &[usize],
    shape: &Shape,
    services: Vec<Services>,
    states: &BTreeMap<Source, PodState>,
    outside: Result<Vec<std::net::SocketAddr>, String>,
) -> Topology {
    let nodes = ordered(cluster, chosen)
        .into_iter()
        .enumerate()
        .map(|(node, found)| {
            let info = &cluster.nodes[found].info;
            let state = |role| {
                states
                    .get(&Source { node, role })
                    .cloned()
                    .unwrap_or(PodState::Absent)
            };
            TestNode {
                name: info.name.clone(),
                addresses: info.addresses.clone(),
                pod_cidrs: info.pod_cidrs.clone(),
                chosen: node < chosen.len(),
                client: state(Role::Client),
                server: state(Role::Server),
                host: state(Role::Host),
            }
        })
        .collect();
    Topology {
        namespace: shape.namespace.clone(),
        families: families.to_vec(),
        nodes,
        services,
        pod_port: shape.pod_port,
        host_network_port: shape.host_network_port,
        host_port: shape.host_port.unwrap_or_default(),
        no_dns: cluster.no_dns.clone(),
        dns_nodes: cluster.dns_nodes.clone(),
        kubernetes: cluster.kubernetes.clone(),
        outside,
        not_kindnet: cluster.not_kindnet.clone(),
    }
}
