//! Applies the manifests.

use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kindnet_api::{Configuration, endpoint, names, yaml};
use kindnet_ui::{Ui, UserError};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::{AppliedObject, ApplyOptions, apply_objects, delete_objects, retry};
use crate::error::{is_status, request_failed};
use crate::wait::Readiness;
use crate::{conflict, manifests};

/// What to install.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstallOptions {
    /// Image of agent and controller; [`kindnet_api::names::DEFAULT_IMAGE`] when absent.
    pub image: Option<String>,
    /// `https://host:port` of the API server as the nodes reach it. Taken from the cluster's
    /// `kube-public/cluster-info` when absent.
    pub control_plane_endpoint: Option<String>,
    /// Sets `spec.masquerade.enabled`; an existing Configuration keeps its value when absent.
    pub masquerade: Option<bool>,
    /// Sets `spec.masquerade.nonMasqueradeCIDRs`; an existing Configuration keeps its list when
    /// absent.
    pub no_masquerade_cidrs: Option<Vec<String>>,
    /// Install next to another network plugin.
    pub force: bool,
    /// How long requests are repeated while the API server does not answer; as in
    /// [`ApplyOptions`] when absent.
    pub patience: Option<Duration>,
    /// How long [`install`] waits for the network to be ready; not at all when absent.
    pub wait: Option<Duration>,
}

/// What was sent to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Image of agent and controller.
    pub image: String,
    /// Endpoint given to the controller.
    pub control_plane_endpoint: Option<String>,
    /// Objects that were made or changed, as `Kind/name`.
    pub changed: Vec<String>,
    /// Number of objects that were as they should be already.
    pub unchanged: usize,
}

/// The result of [`install`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// What was sent.
    pub applied: Applied,
    /// What came of it; absent when nobody waited.
    pub ready: Option<Readiness>,
}

/// Sends the manifests and the Configuration. Waits a little for an API server that is still
/// starting, but for nothing else: no node has to be Ready.
///
/// # Errors
/// Bad options; another network plugin is present and `force` is not set; the API server does not
/// answer or refuses an object; cancelled.
pub async fn apply(
    client: &Client,
    options: &InstallOptions,
    ui: &Ui,
    cancel: &CancellationToken,
) -> Result<Applied, UserError> {
    cancel
        .run_until_cancelled(apply_all(client, options, ui))
        .await
        .unwrap_or_else(|| Err(UserError::interrupted()))
}

/// [`apply`], then [`crate::wait_ready`] where `options.wait` asks for it.
///
/// # Errors
/// As the two.
pub async fn install(
    client: &Client,
    options: &InstallOptions,
    ui: &Ui,
    cancel: &CancellationToken,
) -> Result<Summary, UserError> {
    let applied = apply(client, options, ui, cancel).await?;
    let ready = match options.wait {
        Some(limit) => Some(crate::wait::wait_ready(client, limit, ui, cancel).await?),
        None => None,
    };
    Ok(Summary { applied, ready })
}

/// What [`apply`] would send to a cluster that has none of it, as YAML.
///
/// # Errors
/// Bad options.
pub fn render(options: &InstallOptions) -> Result<String, UserError> {
    let configuration = configuration(options)?;
    let endpoint = options
        .control_plane_endpoint
        .as_deref()
        .unwrap_or_default();
    let mut text = String::new();
    for object in manifests::install(options.image(), endpoint)? {
        let _ = write!(text, "---\n{}", document(&object)?);
    }
    let _ = write!(text, "---\n{}", document(&configuration)?);
    Ok(text)
}

fn document(object: &impl Serialize) -> Result<String, UserError> {
    yaml::to_string(object)
        .map_err(|error| UserError::failure("an object cannot be written").source(error))
}

impl InstallOptions {
    fn image(&self) -> &str {
        self.image.as_deref().unwrap_or(names::DEFAULT_IMAGE)
    }
}

async fn apply_all(
    client: &Client,
    options: &InstallOptions,
    ui: &Ui,
) -> Result<Applied, UserError> {
    let configuration = configuration(options)?;
    let step = ui.step("Installing kindnet");
    let mut send = ApplyOptions::default();
    send.patience = options.patience.unwrap_or(send.patience);
    let until = Instant::now() + send.patience;

    step.message("looking at the cluster");
    let others = retry(until, "list the DaemonSets", || conflict::others(client)).await?;
    if !others.is_empty() {
        if !options.force {
            return Err(conflict::refuse(&others));
        }
        ui.warn(format!(
            "installing next to another network plugin: DaemonSet {}",
            others.join(", ")
        ));
    }
    let endpoint = match &options.control_plane_endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => cluster_info_endpoint(client, until).await?,
    };

    // Left by an interrupted uninstall, it would stand in the agents' way.
    let cleaner = manifests::uninstall(options.image(), false)?;
    delete_objects(client, &[cleaner], until).await?;

    step.message("sending the manifests");
    let objects = manifests::install(options.image(), endpoint.as_deref().unwrap_or_default())?;
    let mut sent = apply_objects(client, objects, &send).await?;
    sent.push(apply_configuration(client, &configuration, options, until).await?);

    let unchanged = sent.iter().filter(|o| !o.changed).count();
    let changed: Vec<String> = sent
        .into_iter()
        .filter(|o| o.changed)
        .map(|o| o.name)
        .collect();
    step.done_with(format!(
        "{} objects changed, {unchanged} as they should be",
        changed.len()
    ));
    Ok(Applied {
        image: options.image().to_owned(),
        control_plane_endpoint: endpoint,
        changed,
        unchanged,
    })
}

/// The default Configuration with the options in it; refuses options the controller would refuse.
fn configuration(options: &InstallOptions) -> Result<Configuration, UserError> {
    let mut configuration = manifests::configuration(options.image())?;
    let spec = &mut configuration.spec;
    spec.masquerade.enabled = options.masquerade.unwrap_or(spec.masquerade.enabled);
    if let Some(cidrs) = &options.no_masquerade_cidrs {
        spec.masquerade.non_masquerade_cidrs.clone_from(cidrs);
    }
    // Checked here, though it goes to the controller: as a part of the spec it is checked alike.
    spec.control_plane_endpoint
        .clone_from(&options.control_plane_endpoint);
    let problems: Vec<String> = spec.problems().iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        return Err(UserError::usage(problems.join("; "))
            .hint("nothing was sent to the cluster; correct the options"));
    }
    spec.control_plane_endpoint = None;
    Ok(configuration)
}

/// kubeadm's own word about the API server's address. None of it is needed: without it the
/// controller waits for kube-proxy.
async fn cluster_info_endpoint(
    client: &Client,
    until: Instant,
) -> Result<Option<String>, UserError> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), endpoint::CLUSTER_INFO_NAMESPACE);
    let map = retry(until, "read kube-public/cluster-info", || async {
        match api.get_opt(endpoint::CLUSTER_INFO_NAME).await {
            Err(error) if is_status(&error, 403) => Ok(None),
            other => other,
        }
    })
    .await?;
    Ok(map
        .and_then(|map| map.data)
        .and_then(|data| endpoint::from_cluster_info(data.get(endpoint::CLUSTER_INFO_KEY)?)))
}

/// Makes the Configuration, or changes in an existing one what the options name and no more.
async fn apply_configuration(
    client: &Client,
    wanted: &Configuration,
    options: &InstallOptions,
    until: Instant,
) -> Result<AppliedObject, UserError> {
    let api = Api::<Configuration>::namespaced(client.clone(), names::NAMESPACE);
    let name = names::CONFIGURATION_NAME;
    let what = "apply Configuration/kube-system/kindnet";
    let existing = retry(until, what, || api.get_opt(name)).await?;
    let (before, after) = match existing {
        None => {
            let params = PostParams {
                field_manager: Some(names::CLI_FIELD_MANAGER.into()),
                ..PostParams::default()
            };
            let made = retry(until, what, || async {
                match api.create(&params, wanted).await {
                    // The answer to an earlier try was lost.
                    Err(error) if is_status(&error, 409) => api.get(name).await,
                    other => other,
                }
            });
            (None, made.await?)
        }
        Some(existing) => {
            let mut masquerade = json!({});
            if let Some(enabled) = options.masquerade {
                masquerade["enabled"] = json!(enabled);
            }
            if let Some(cidrs) = &options.no_masquerade_cidrs {
                masquerade["nonMasqueradeCIDRs"] = json!(cidrs);
            }
            let patch = json!({ "spec": {
                "kindnetdImage": wanted.spec.kindnetd_image,
                "masquerade": masquerade,
            }});
            let params = PatchParams {
                field_manager: Some(names::CLI_FIELD_MANAGER.into()),
                ..PatchParams::default()
            };
            let after = api
                .patch(name, &params, &Patch::Merge(&patch))
                .await
                .map_err(|error| request_failed(what, &error))?;
            (existing.resource_version(), after)
        }
    };
    Ok(AppliedObject {
        name: format!("Configuration/{}/{name}", names::NAMESPACE),
        changed: before.is_none() || before != after.resource_version(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_refused_before_anything_is_sent() {
        let options = InstallOptions {
            control_plane_endpoint: Some("10.0.0.1:6443".into()),
            no_masquerade_cidrs: Some(vec!["10.0.0.0/40".into()]),
            ..InstallOptions::default()
        };
        let error = render(&options).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("10.0.0.1:6443"), "{text}");
        assert!(text.contains("10.0.0.0/40"), "{text}");
        assert_eq!(error.code(), kindnet_ui::ExitCode::Usage);
    }

    #[test]
    fn what_is_rendered_is_complete_and_can_be_read_back() {
        let options = InstallOptions {
            image: Some("example.test/k:1".into()),
            control_plane_endpoint: Some("https://10.0.0.1:6443".into()),
            masquerade: Some(false),
            ..InstallOptions::default()
        };
        let text = render(&options).unwrap();
        let kinds: Vec<String> = yaml::documents::<serde_json::Value>(&text)
            .unwrap()
            .iter()
            .map(|d| d["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds.first().unwrap(), "CustomResourceDefinition");
        assert_eq!(kinds.last().unwrap(), "Configuration");
        assert!(kinds.iter().any(|k| k == "Deployment"));
        assert!(!text.contains(&format!("image: {}", names::DEFAULT_IMAGE)));
        assert!(text.contains("kindnetdImage: example.test/k:1"));
    }
}
