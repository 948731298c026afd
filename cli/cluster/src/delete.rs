//! Taking a cluster down.

use std::path::PathBuf;

use bollard::query_parameters::RemoveContainerOptionsBuilder;
use futures_util::future::join_all;
use kindnet_ui::{Ui, UserError};
use serde::Serialize;

use crate::docker::Engine;
use crate::error::{Doing as _, Result, message, status};
use crate::kubeconfig::Files;

/// What was taken down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// Name of the cluster.
    pub name: String,
    /// Containers that were removed.
    pub nodes: Vec<String>,
    /// Kubeconfig files that no longer name the cluster.
    pub kubeconfigs: Vec<PathBuf>,
}

impl Engine {
    /// Removes a cluster: the kubeconfig entries first, so that nothing points at what is going
    /// away, then all containers at once with their volumes. The network stays, as with kind:
    /// other clusters use it.
    ///
    /// A cluster that does not exist is no error.
    ///
    /// # Errors
    /// A kubeconfig or a container resists. What can be removed is removed all the same.
    pub async fn delete(&self, cluster: &str, files: &Files, ui: &Ui) -> Result<Deleted> {
        let nodes = self.nodes(cluster).await?;
        let kubeconfigs = files.remove(cluster).await;
        let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        if !nodes.is_empty() {
            let step = ui.step(format!(
                "Removing {} of cluster {cluster}",
                count(nodes.len())
            ));
            self.remove_containers(nodes.iter().map(|node| node.id.as_str()))
                .await?;
            step.done();
        }
        Ok(Deleted {
            name: cluster.to_owned(),
            nodes: names,
            kubeconfigs: kubeconfigs?,
        })
    }

    /// Removes containers with their anonymous volumes, running or not.
    ///
    /// # Errors
    /// The first refusal; the other containers are removed all the same.
    pub async fn remove_containers<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Result<()> {
        let results: Vec<Result<(), UserError>> =
            join_all(ids.map(|id| self.remove_container(id))).await;
        results.into_iter().collect()
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        match self.docker.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) if message(&error).contains("already in progress") => Ok(()),
            Err(error) => Err(error).doing(|| format!("cannot remove the container {id}")),
        }
    }
}

fn count(nodes: usize) -> String {
    if nodes == 1 {
        "the node".to_owned()
    } else {
        format!("{nodes} nodes")
    }
}
