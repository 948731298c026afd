//! The manifests agree with the types and the names.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kindnet_api::{Configuration, names, yaml};
use kube::CustomResourceExt as _;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The CRD as the types say, with what Rust types cannot say: the one allowed name.
///
/// The name is restricted by a pattern in the structural schema and not by a CEL rule, which
/// Kubernetes before 1.25 does not know:
/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>.
fn crd() -> CustomResourceDefinition {
    let mut crd = Configuration::crd();
    crd.metadata.labels = Some([("app.kubernetes.io/part-of".into(), "kindnet".into())].into());
    let schema = crd.spec.versions[0].schema.as_mut().unwrap();
    let properties = schema
        .open_api_v3_schema
        .as_mut()
        .unwrap()
        .properties
        .as_mut()
        .unwrap();
    let name = JSONSchemaProps {
        type_: Some("string".into()),
        pattern: Some(format!("^{}$", names::CONFIGURATION_NAME)),
        ..Default::default()
    };
    let metadata = JSONSchemaProps {
        type_: Some("object".into()),
        properties: Some([("name".into(), name)].into()),
        ..Default::default()
    };
    properties.insert("metadata".into(), metadata);
    // A status is written whole by the controller; defaults in it would only be noise.
    strip_defaults(properties.get_mut("status").unwrap());
    crd
}

fn strip_defaults(schema: &mut JSONSchemaProps) {
    schema.default = None;
    for child in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        strip_defaults(child);
    }
}

#[test]
fn the_crd_is_the_one_of_the_types() {
    let path = "manifests/install-kindnet.yaml";
    let text = read(path);
    let mut parts: Vec<&str> = text.splitn(3, "---\n").collect();
    let generated = yaml::to_string(&crd()).unwrap();
    if std::env::var_os("KINDNET_UPDATE").is_some() {
        parts[1] = &generated;
        std::fs::write(root().join(path), parts.join("---\n")).unwrap();
        return;
    }
    assert_eq!(
        parts[1], generated,
        "run KINDNET_UPDATE=1 cargo test -p kindnet-controller --test manifests"
    );
}

fn documents(path: &str) -> Vec<Value> {
    yaml::documents(&read(path)).unwrap()
}

fn find<'a>(documents: &'a [Value], kind: &str, name: &str, namespace: Option<&str>) -> &'a Value {
    documents
        .iter()
        .find(|d| {
            d["kind"] == kind
                && d["metadata"]["name"] == name
                && d["metadata"]["namespace"].as_str() == namespace
        })
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn names_and_image_agree() {
    let install = documents("manifests/install-kindnet.yaml");
    let system = Some(names::NAMESPACE);
    let deployment = find(&install, "Deployment", names::CONTROLLER_NAME, system);
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], names::DEFAULT_IMAGE);
    assert_eq!(pod["serviceAccountName"], names::CONTROLLER_NAME);
    for probe in ["livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], names::CONTROLLER_METRICS_PORT);
        assert_eq!(get["host"], "127.0.0.1");
    }
    find(&install, "ServiceAccount", names::AGENT_NAME, system);
    find(&install, "ServiceAccount", names::CONTROLLER_NAME, system);
    find(&install, "ClusterRole", names::AGENT_NAME, None);

    let default: Configuration = yaml::from_str(&read("docs/default-configuration.yaml")).unwrap();
    assert_eq!(default.spec.kindnetd_image, names::DEFAULT_IMAGE);
    assert_eq!(
        default.metadata.name.as_deref(),
        Some(names::CONFIGURATION_NAME)
    );
    assert_eq!(default.metadata.namespace.as_deref(), system);
    assert!(default.spec.problems().is_empty());
}

#[test]
fn every_binding_names_a_role_and_an_account_that_exist() {
    let install = documents("manifests/install-kindnet.yaml");
    let mut bindings = 0;
    for binding in &install {
        if !matches!(
            binding["kind"].as_str(),
            Some("RoleBinding" | "ClusterRoleBinding")
        ) {
            continue;
        }
        bindings += 1;
        let role = &binding["roleRef"];
        find(
            &install,
            role["kind"].as_str().unwrap(),
            role["name"].as_str().unwrap(),
            binding["metadata"]["namespace"].as_str(),
        );
        for subject in binding["subjects"].as_array().unwrap() {
            find(
                &install,
                subject["kind"].as_str().unwrap(),
                subject["name"].as_str().unwrap(),
                subject["namespace"].as_str(),
            );
        }
    }
    assert_eq!(bindings, 4);
}

#[test]
fn no_role_has_a_wildcard_or_reads_secrets() {
    for role in documents("manifests/install-kindnet.yaml") {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let text = rule.to_string();
            assert!(!text.contains('*'), "{text}");
            assert!(!text.contains("secrets"), "{text}");
            assert!(!text.contains("nodes/"), "{text}");
        }
    }
}

#[test]
fn the_documentation_names_every_field() {
    let text = read("docs/configuration.md");
    let mut crd = crd();
    let schema = crd.spec.versions[0].schema.take().unwrap();
    let properties = schema.open_api_v3_schema.unwrap().properties.unwrap();
    let mut missing = Vec::new();
    for part in ["spec", "status"] {
        fields(&properties[part], part, &mut missing);
    }
    // What is inside a condition is Kubernetes' own.
    missing.retain(|path| {
        let name = path.rsplit('.').next().unwrap();
        !text.contains(name)
    });
    assert_eq!(missing, [] as [String; 0]);
}

fn fields(schema: &JSONSchemaProps, path: &str, found: &mut Vec<String>) {
    for (name, child) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        fields(child, &path, found);
        if path != "status.conditions" {
            found.push(path);
        }
    }
}
