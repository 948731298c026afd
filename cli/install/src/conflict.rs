//! Other network plugins.

use k8s_openapi::api::apps::v1::DaemonSet;
use kindnet_ui::UserError;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

/// Names of the DaemonSets of widespread network plugins, as their own manifests and charts call
/// them.
const OTHERS: [&str; 15] = [
    "kindnet",
    "kube-flannel-ds",
    "kube-flannel",
    "calico-node",
    "canal",
    "cilium",
    "weave-net",
    "antrea-agent",
    "kube-router",
    "kube-ovn-cni",
    "ovnkube-node",
    "aws-node",
    "azure-cni",
    "azure-cns",
    "netd",
];

/// DaemonSets of other network plugins, as `namespace/name`. Empty where they may not be listed:
/// this is a courtesy, not a guarantee.
///
/// # Errors
/// The request failed for another reason.
pub(crate) async fn others(client: &Client) -> Result<Vec<String>, kube::Error> {
    let api = Api::<DaemonSet>::all(client.clone());
    let list = match api.list_metadata(&ListParams::default()).await {
        Ok(list) => list,
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = list
        .items
        .iter()
        .map(|d| (d.namespace().unwrap_or_default(), d.name_any()));
    Ok(conflicting(names))
}

fn conflicting(daemonsets: impl Iterator<Item = (String, String)>) -> Vec<String> {
    daemonsets
        .filter(|(_, name)| OTHERS.contains(&name.as_str()))
        .map(|(namespace, name)| format!("{namespace}/{name}"))
        .collect()
}

/// Two plugins on one node: whichever configuration file sorts first wins, and both change routes.
pub(crate) fn refuse(others: &[String]) -> UserError {
    UserError::usage(format!(
        "the cluster has another network plugin: DaemonSet {}",
        others.join(", ")
    ))
    .hint("remove it first; with --force kindnet is installed next to it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_plugins_conflict() {
        let found = [
            ("kube-system", "kube-proxy"),
            ("kube-system", "kindnetd"),
            ("calico-system", "calico-node"),
        ];
        let found = found.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter();
        assert_eq!(conflicting(found), ["calico-system/calico-node"]);
    }
}
