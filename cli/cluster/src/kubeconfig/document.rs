//! Kubeconfig documents as values: what is not known is kept as it is.

use kindnet_ui::UserError;
use serde_json::{Value, json};

use crate::error::Result;
use crate::names;

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// kubeadm's admin.conf with kind's names and another server.
///
/// # Errors
/// The file does not have exactly one cluster, user and context.
pub fn rename(admin_conf: &str, cluster: &str, server: &str) -> Result<Value> {
    let broken = |what: String| UserError::failure(format!("the node's admin.conf {what}"));
    let mut config: Value = kindnet_api::yaml::from_str(admin_conf)
        .map_err(|error| broken("is not YAML".into()).source(error))?;
    let name = names::context(cluster);
    for list in LISTS {
        match config[list].as_array_mut().map(Vec::as_mut_slice) {
            Some([only]) => only["name"] = json!(name),
            _ => return Err(broken(format!("does not have exactly one entry in {list}"))),
        }
    }
    config["clusters"][0]["cluster"]["server"] = json!(server);
    config["contexts"][0]["context"]["cluster"] = json!(name);
    config["contexts"][0]["context"]["user"] = json!(name);
    config["current-context"] = json!(name);
    Ok(config)
}

/// URL of the API server as other containers of the Docker network see it.
#[must_use]
pub fn internal_server(endpoint_node: &str) -> String {
    format!("https://{endpoint_node}:{}", names::API_PORT)
}

/// Puts the entries of `from` into `into`; entries of the same name are replaced.
pub(super) fn merge(into: &mut Value, from: &Value) {
    if !into.is_object() {
        *into = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}});
    }
    for list in LISTS {
        let mut entries = into[list].as_array().cloned().unwrap_or_default();
        for entry in from[list].as_array().into_iter().flatten() {
            match entries
                .iter_mut()
                .find(|known| known["name"] == entry["name"])
            {
                Some(known) => *known = entry.clone(),
                None => entries.push(entry.clone()),
            }
        }
        into[list] = Value::Array(entries);
    }
    into["current-context"] = from["current-context"].clone();
}

/// Removes what has this name. Returns whether anything did.
pub(super) fn remove(config: &mut Value, name: &str) -> bool {
    let mut changed = false;
    for list in LISTS {
        if let Some(entries) = config.get_mut(list).and_then(Value::as_array_mut) {
            let before = entries.len();
            entries.retain(|entry| entry["name"] != name);
            changed |= entries.len() != before;
        }
    }
    if config
        .get("current-context")
        .is_some_and(|current| current == name)
    {
        config["current-context"] = json!("");
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIN: &str = r"
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://kind-control-plane:6443
  name: c
contexts:
- context:
    cluster: c
    user: kubernetes-admin
  name: kubernetes-admin@c
current-context: kubernetes-admin@c
kind: Config
preferences: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
";

    #[test]
    fn admin_conf_gets_kinds_names() {
        let config = rename(ADMIN, "c", "https://[::1]:40000").unwrap();
        insta::assert_snapshot!("renamed", kindnet_api::yaml::to_string(&config).unwrap());
    }

    #[test]
    fn a_file_with_two_clusters_is_refused() {
        let twice = ADMIN.replace("contexts:", "- {name: d, cluster: {}}\ncontexts:");
        assert!(rename(&twice, "c", "x").is_err());
    }

    #[test]
    fn unknown_fields_stay() {
        let mut config = json!({
            "apiVersion": "v1", "kind": "Config", "future": {"a": 1},
            "clusters": [{"name": "other", "cluster": {"server": "s"}, "extra": true}],
            "users": null,
        });
        merge(&mut config, &rename(ADMIN, "c", "https://a:1").unwrap());
        assert_eq!(config["future"], json!({"a": 1}));
        assert_eq!(config["clusters"][0]["extra"], json!(true));
        assert_eq!(config["users"].as_array().unwrap().len(), 1);
        merge(&mut config, &rename(ADMIN, "c", "https://b:1").unwrap());
        assert_eq!(config["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(config["clusters"][1]["cluster"]["server"], "https://b:1");
        assert!(remove(&mut config, "kind-c"));
        assert!(!remove(&mut config, "kind-c"));
        assert_eq!(config["clusters"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn somebody_elses_current_context_stays() {
        let mut config = json!({"current-context": "mine", "contexts": [{"name": "kind-c"}]});
        assert!(remove(&mut config, "kind-c"));
        assert_eq!(config["current-context"], "mine");
    }
}
