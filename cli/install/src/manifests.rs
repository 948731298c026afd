//! The bundled manifests, with the values of this installation filled in.
//!
//! They are changed as data, never as text, so that a comment or another indentation in the files
//! cannot break it.

use kindnet_api::{Configuration, endpoint, names, yaml};
use kindnet_ui::UserError;
use kube::core::DynamicObject;
use serde_json::{Value, json};

const INSTALL: &str = include_str!("../../../manifests/install-kindnet.yaml");
const UNINSTALL: &str = include_str!("../../../manifests/uninstall-kindnet.yaml");
const CONFIGURATION: &str = include_str!("../../../docs/default-configuration.yaml");

/// Name of the DaemonSet that cleans the nodes.
pub(crate) const UNINSTALL_NAME: &str = "kindnet-uninstall";

/// A label no node has.
const HOLD_LABEL: &str = "kindnet.io/hold-uninstall";

/// Everything but the Configuration.
///
/// # Errors
/// The manifests built into this program are broken.
pub fn install(image: &str, control_plane_endpoint: &str) -> Result<Vec<DynamicObject>, UserError> {
    let mut documents: Vec<Value> = yaml::documents(INSTALL).map_err(broken)?;
    for document in &mut documents {
        set_image(document, image);
        for variable in containers(document)
            .filter_map(|c| c.get_mut("env")?.as_array_mut())
            .flatten()
        {
            if variable["name"] == endpoint::ENDPOINT_ENV {
                variable["value"] = json!(control_plane_endpoint);
            }
        }
    }
    objects(documents)
}

/// The DaemonSet that cleans the nodes. One that is held is in the cluster but on no node yet: it
/// tells a later run, should this one be interrupted, that there is something to clean and by which
/// image.
///
/// # Errors
/// As [`install`].
pub fn uninstall(image: &str, held: bool) -> Result<DynamicObject, UserError> {
    let mut document: Value = yaml::from_str(UNINSTALL).map_err(broken)?;
    set_image(&mut document, image);
    if held {
        document["spec"]["template"]["spec"]["nodeSelector"][HOLD_LABEL] = json!("true");
    }
    serde_json::from_value(document).map_err(broken)
}

/// The default Configuration.
///
/// # Errors
/// As [`install`].
pub fn configuration(image: &str) -> Result<Configuration, UserError> {
    let mut configuration: Configuration = yaml::from_str(CONFIGURATION).map_err(broken)?;
    configuration.spec.kindnetd_image = image.to_owned();
    Ok(configuration)
}

fn set_image(document: &mut Value, image: &str) {
    for container in containers(document) {
        if container["image"] == names::DEFAULT_IMAGE {
            container["image"] = json!(image);
        }
    }
}

/// Containers and init containers of a workload.
fn containers(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    document
        .pointer_mut("/spec/template/spec")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|pod| pod.iter_mut())
        .filter(|(key, _)| *key == "containers" || *key == "initContainers")
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
}

fn objects(documents: Vec<Value>) -> Result<Vec<DynamicObject>, UserError> {
    documents
        .into_iter()
        .map(|document| serde_json::from_value(document).map_err(broken))
        .collect()
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> UserError {
    UserError::failure("the manifests built into this program are broken").source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload<'a>(objects: &'a [DynamicObject], kind: &str) -> &'a DynamicObject {
        objects
            .iter()
            .find(|o| o.types.as_ref().is_some_and(|t| t.kind == kind))
            .unwrap()
    }

    #[test]
    fn image_and_endpoint_are_filled_in() {
        let objects = install("example.test/k:1", "https://10.0.0.1:6443").unwrap();
        let deployment = workload(&objects, "Deployment");
        let container = &deployment.data["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "example.test/k:1");
        let env = container["env"].as_array().unwrap();
        assert!(env.contains(&json!({
            "name": "CONTROL_PLANE_ENDPOINT", "value": "https://10.0.0.1:6443"
        })));
    }

    #[test]
    fn the_cleaner_uses_the_image_everywhere() {
        let object = uninstall("example.test/k:1", false).unwrap();
        assert_eq!(object.metadata.name.as_deref(), Some(UNINSTALL_NAME));
        let text = object.data.to_string();
        assert_eq!(text.matches("example.test/k:1").count(), 2);
        assert!(!text.contains(names::DEFAULT_IMAGE));
        assert!(!text.contains(HOLD_LABEL));
        let held = uninstall("example.test/k:1", true).unwrap();
        assert!(held.data.to_string().contains(HOLD_LABEL));
    }

    #[test]
    fn the_default_configuration_is_valid() {
        let configuration = configuration("example.test/k:1").unwrap();
        assert!(configuration.spec.problems().is_empty());
        assert_eq!(configuration.spec.kindnetd_image, "example.test/k:1");
    }
}
