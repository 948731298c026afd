//! Remembers what was made, and removes exactly that.

use std::sync::Arc;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use kindnet_ui::UserError;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use crate::docker::Engine;
use crate::error::{Doing as _, Result};
use crate::kubeconfig::Files;

#[derive(Debug, Default)]
struct Made {
    containers: Vec<String>,
    network: Option<String>,
    kubeconfig: bool,
}

#[derive(Debug)]
pub(super) struct Janitor {
    engine: Engine,
    made: Arc<Mutex<Made>>,
    creating: TaskTracker,
}

impl Janitor {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            made: Arc::default(),
            creating: TaskTracker::new(),
        }
    }

    /// Creates a container and returns its identifier.
    ///
    /// The request runs on a task of its own: when the caller is dropped in the middle, the daemon
    /// may still make the container, and somebody has to learn of it.
    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String> {
        let (docker, made, name) = (
            self.engine.docker.clone(),
            self.made.clone(),
            name.to_owned(),
        );
        let task = self.creating.spawn(async move {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let created = docker
                .create_container(Some(options), body)
                .await
                .doing(|| format!("cannot create the node {name}"))?;
            made.lock().await.containers.push(created.id.clone());
            Ok(created.id)
        });
        task.await
            .map_err(|error| UserError::failure("creating a node broke off").source(error))?
    }

    /// Removes a container before its time.
    pub(super) async fn discard(&self, id: &str) -> Result<()> {
        self.engine.remove_containers([id].into_iter()).await?;
        self.made
            .lock()
            .await
            .containers
            .retain(|known| known != id);
        Ok(())
    }

    pub(super) async fn made_network(&self, id: &str) {
        self.made.lock().await.network = Some(id.to_owned());
    }

    pub(super) async fn made_kubeconfig(&self) {
        self.made.lock().await.kubeconfig = true;
    }

    /// Whether there is anything to remove. Waits for what is being made right now.
    pub(super) async fn has_work(&self) -> bool {
        self.creating.close();
        self.creating.wait().await;
        let made = self.made.lock().await;
        !made.containers.is_empty() || made.network.is_some() || made.kubeconfig
    }

    /// Removes everything; goes on after an error and returns the first.
    pub(super) async fn clean(&self, cluster: &str, files: &Files) -> Result<()> {
        let made = std::mem::take(&mut *self.made.lock().await);
        let mut results = Vec::new();
        if made.kubeconfig {
            results.push(files.remove(cluster).await.map(drop));
        }
        let containers = made.containers.iter().map(String::as_str);
        results.push(self.engine.remove_containers(containers).await);
        if let Some(network) = made.network {
            // Nodes of another cluster that were made and not started yet do not show as its users.
            let others = self.engine.clusters().await;
            if others.is_ok_and(|others| others.is_empty()) {
                results.push(self.engine.remove_network(&network).await);
            }
        }
        results.into_iter().collect()
    }
}
