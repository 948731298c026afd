//! Whether a CNI configuration can be written, and which.

use kindnet_api::conflist::{Conflist, Plugin};
use kindnet_api::node::NodeInfo;
use kindnet_api::{CniPlugin, names};

/// What should be in the CNI configuration folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflistPlan {
    /// Nothing yet: without a pod subnet there is nothing a pod could get. A file that is there
    /// already stays, because running pods still need it to be torn down.
    Wait,
    /// This list.
    Write(Conflist),
}

/// Decides from this node's pod subnets. `mtu_bytes` is that of the uplink; `None` leaves the choice
/// to the kernel.
#[must_use]
pub fn plan(own: &NodeInfo, plugin: CniPlugin, mtu_bytes: Option<u32>) -> ConflistPlan {
    if own.pod_cidrs.is_empty() {
        return ConflistPlan::Wait;
    }
    ConflistPlan::Write(match plugin {
        CniPlugin::Kindnet => Conflist::kindnet(&own.pod_cidrs, mtu_bytes),
        CniPlugin::Standard => Conflist::standard(&own.pod_cidrs, mtu_bytes),
    })
}

/// Whether a file was written by kindnet: a list of plugins we know, under our network name.
#[must_use]
pub fn is_ours(content: &str) -> bool {
    serde_json::from_str::<Conflist>(content).is_ok_and(|list| list.name == names::CNI_NETWORK)
}

/// Whether a file makes runtimes call our own plugin.
#[must_use]
pub fn names_our_plugin(content: &str) -> bool {
    serde_json::from_str::<Conflist>(content).is_ok_and(|list| {
        list.plugins
            .iter()
            .any(|plugin| matches!(plugin, Plugin::Kindnet { .. }))
    })
}

/// Files that container runtimes would pick before ours: they take the first of `*.conf`,
/// `*.conflist` and `*.json` in lexical order.
pub fn shadowing<'a>(files: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = files
        .into_iter()
        .filter(|name| {
            [".conf", ".conflist", ".json"]
                .iter()
                .any(|ending| name.ends_with(ending))
                && *name < names::CONFLIST_FILE
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_a_pod_subnet() {
        for plugin in [CniPlugin::Kindnet, CniPlugin::Standard] {
            let mut own = NodeInfo::default();
            assert_eq!(plan(&own, plugin, Some(1500)), ConflistPlan::Wait);
            own.pod_cidrs.push("10.244.0.0/24".parse().unwrap());
            let ConflistPlan::Write(list) = plan(&own, plugin, Some(1500)) else {
                panic!("a pod subnet is enough")
            };
            assert_eq!(list.subnets().collect::<Vec<_>>(), own.pod_cidrs);
            assert!(is_ours(&list.to_json()));
            assert_eq!(
                names_our_plugin(&list.to_json()),
                plugin == CniPlugin::Kindnet
            );
        }
    }

    #[test]
    fn files_of_others_are_not_ours() {
        assert!(!is_ours("{}"));
        assert!(!is_ours("not json"));
        let mut list = Conflist::standard(&["10.244.0.0/24".parse().unwrap()], None);
        list.name = "other".into();
        assert!(!is_ours(&list.to_json()));
    }

    #[test]
    fn only_configuration_files_that_sort_earlier_shadow_ours() {
        let files = [
            "05-cilium.conflist",
            "10-kindnet.conflist",
            "00-notes.txt",
            "99-z.conf",
        ];
        assert_eq!(shadowing(files), ["05-cilium.conflist"]);
    }
}
