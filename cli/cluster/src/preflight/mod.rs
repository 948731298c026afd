//! Everything that can be known to go wrong, before anything is made.
//!
//! [`observe`] looks, the functions in `checks` judge, each on its own and without I/O.

mod checks;
mod host;

use bollard::query_parameters::InspectContainerOptions;
use futures_util::future::try_join_all;
use kindnet_ui::{Ui, UserError};

pub use host::Host;

use crate::docker::{Engine, Facts, LocalImage, Network};
use crate::error::{Doing as _, Result, status};
use crate::list::Node;
use crate::spec::ClusterSpec;
use crate::version::KubeVersion;

/// What was found.
#[derive(Debug, Clone)]
pub struct Observed {
    /// What the daemon says about itself.
    pub facts: Facts,
    /// URL of the daemon where it is on another machine.
    pub remote: Option<String>,
    /// Containers that carry the cluster's label.
    pub nodes: Vec<Node>,
    /// Node names that some container has already.
    pub taken: Vec<String>,
    /// The Docker network.
    pub network: Option<Network>,
    /// Node image.
    pub node_image: Option<LocalImage>,
    /// Image of agent and controller.
    pub kindnet_image: Option<LocalImage>,
    /// This machine, where the daemon runs on it.
    pub host: Option<Host>,
}

/// Looks at everything the checks need.
///
/// # Errors
/// The daemon refuses.
pub async fn observe(engine: &Engine, spec: &ClusterSpec) -> Result<Observed> {
    let names = spec.nodes();
    let taken = try_join_all(names.iter().map(|(name, _)| is_taken(engine, name)));
    let (nodes, taken, network, node_image, kindnet_image) = tokio::try_join!(
        engine.nodes(&spec.name),
        taken,
        engine.network(&spec.network),
        engine.image(&spec.image),
        engine.image(&spec.kindnet_image),
    )?;
    let taken = names.into_iter().zip(taken).filter(|(_, taken)| *taken);
    Ok(Observed {
        facts: engine.facts.clone(),
        remote: (!engine.endpoint.is_local()).then(|| engine.endpoint.url().to_owned()),
        nodes,
        taken: taken.map(|((name, _), _)| name).collect(),
        network,
        node_image,
        kindnet_image,
        host: engine.facts.on_this_kernel.then(Host::read),
    })
}

async fn is_taken(engine: &Engine, name: &str) -> Result<bool> {
    match engine
        .docker
        .inspect_container(name, None::<InspectContainerOptions>)
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if status(&error) == Some(404) => Ok(false),
        Err(error) => Err(error).doing(|| format!("cannot look for a container named {name}")),
    }
}

/// Judges what was found. What is unwise but works is a warning.
///
/// # Errors
/// One error that names every obstacle with its cure.
pub fn check(spec: &ClusterSpec, observed: &Observed, ui: &Ui) -> Result<()> {
    let mut problems: Vec<UserError> = checks::ALL
        .iter()
        .filter_map(|check| check(spec, observed).err())
        .collect();
    if problems.len() == 1
        && let Some(only) = problems.pop()
    {
        return Err(only);
    }
    if !problems.is_empty() {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| match problem.hint_text() {
                Some(hint) => format!("- {problem}\n    {hint}"),
                None => format!("- {problem}"),
            })
            .collect();
        let message = format!("the cluster cannot be made:\n  {}", lines.join("\n  "));
        return Err(UserError::usage(message));
    }
    let version = KubeVersion::of_image(&spec.image);
    for warning in checks::warnings(spec, observed, version.as_ref()) {
        ui.warn(warning);
    }
    Ok(())
}

/// Whether a network suits that was not there before: made just now, by this process or by another
/// one that was faster.
///
/// # Errors
/// It has no IPv6 though that is needed, or it is in the way of the cluster's subnets.
pub fn suits(spec: &ClusterSpec, network: &Network) -> Result<()> {
    checks::v6_of(spec, network)?;
    checks::apart_from(spec, network)
}
