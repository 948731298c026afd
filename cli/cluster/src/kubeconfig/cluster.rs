//! The kubeconfig of a cluster that runs.

use kindnet_ui::UserError;
use serde_json::Value;

use super::{internal_server, rename};
use crate::docker::Engine;
use crate::error::{Doing as _, Result};
use crate::names::Role;

const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";

impl Engine {
    /// The kubeconfig of a cluster as a document with kind's names. `internal` gives the address
    /// other containers of the Docker network use.
    ///
    /// # Errors
    /// There is no such cluster, or its control plane is not set up.
    pub async fn kubeconfig_entry(&self, cluster: &str, internal: bool) -> Result<Value> {
        let nodes = self.existing_nodes(cluster).await?;
        let (published, endpoint) = self.api_server(cluster).await?;
        let server = if internal {
            internal_server(&endpoint)
        } else {
            published
        };
        let plane = nodes
            .iter()
            .find(|node| node.role == Role::ControlPlane)
            .ok_or_else(|| {
                UserError::failure(format!("cluster {cluster:?} has no control plane"))
            })?;
        let admin = self
            .read_file(&plane.id, ADMIN_CONF)
            .await?
            .ok_or_else(|| {
                UserError::failure(format!("{} has no {ADMIN_CONF}", plane.name))
                    .hint("kubeadm did not finish there; make the cluster anew")
            })?;
        rename(&String::from_utf8_lossy(&admin), cluster, &server)
    }

    /// As [`Engine::kubeconfig_entry`], as text.
    ///
    /// # Errors
    /// As there.
    pub async fn kubeconfig(&self, cluster: &str, internal: bool) -> Result<String> {
        let entry = self.kubeconfig_entry(cluster, internal).await?;
        kindnet_api::yaml::to_string(&entry).doing(|| "cannot write the kubeconfig".into())
    }
}
