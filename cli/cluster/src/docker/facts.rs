//! What a daemon says about itself, reduced to what clusters depend on.

use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum};
use serde::Serialize;

/// Facts about a daemon and its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// API version in use.
    pub api: (usize, usize),
    /// Version of the daemon.
    pub server_version: String,
    /// Operating system of the daemon.
    pub operating_system: String,
    /// The daemon's host runs cgroup v1.
    pub cgroup_v1: bool,
    /// The daemon runs without root.
    pub rootless: bool,
    /// A rootless daemon can limit memory, processes and CPU shares.
    pub can_limit: bool,
    /// The daemon maps root of a container to another user.
    pub userns_remap: bool,
    /// Storage driver.
    pub storage_driver: String,
    /// File system below the storage driver.
    pub backing_filesystem: String,
    /// Images are kept by containerd, as is the default from Docker 29 on.
    pub containerd_store: bool,
    /// Processors of the daemon's host.
    pub processors: usize,
    /// The default runtime.
    pub runtime: String,
    /// The daemon's kernel is this machine's: a local socket, and not that of Docker Desktop,
    /// which runs in a virtual machine.
    pub on_this_kernel: bool,
}

impl Facts {
    pub(super) fn new(info: &SystemInfo, api: (usize, usize), local: bool) -> Self {
        let status = |key: &str| {
            let rows = info.driver_status.iter().flatten();
            rows.filter(|row| row.len() == 2)
                .find(|row| row[0] == key)
                .map(|row| row[1].clone())
        };
        let security = |name: &str| {
            info.security_options.iter().flatten().any(|option| {
                option
                    .split(',')
                    .any(|part| part.strip_prefix("name=") == Some(name))
            })
        };
        let operating_system = info.operating_system.clone().unwrap_or_default();
        let no_cgroups = info.cgroup_driver == Some(SystemInfoCgroupDriverEnum::NONE);
        let limits = [info.memory_limit, info.pids_limit, info.cpu_shares];
        Self {
            api,
            server_version: info.server_version.clone().unwrap_or_default(),
            cgroup_v1: info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_1),
            rootless: security("rootless"),
            can_limit: no_cgroups || limits.iter().all(|limit| *limit == Some(true)),
            userns_remap: security("userns"),
            storage_driver: info.driver.clone().unwrap_or_default(),
            backing_filesystem: status("Backing Filesystem").unwrap_or_default(),
            containerd_store: status("driver-type")
                .is_some_and(|kind| kind.starts_with("io.containerd.snapshotter")),
            processors: info.ncpu.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            runtime: info.default_runtime.clone().unwrap_or_default(),
            on_this_kernel: local
                && cfg!(target_os = "linux")
                && !operating_system.contains("Docker Desktop"),
            operating_system,
        }
    }

    /// Whether nodes need the host's device mapper nodes, because the kubelet looks up the device
    /// its root file system is on.
    #[must_use]
    pub fn needs_dev_mapper(&self) -> bool {
        !self.rootless
            && (["btrfs", "zfs", "devicemapper"].contains(&self.storage_driver.as_str())
                || ["btrfs", "zfs", "xfs"].contains(&self.backing_filesystem.as_str()))
    }

    /// Whether the API is at least this version.
    #[must_use]
    pub fn api_at_least(&self, major: usize, minor: usize) -> bool {
        self.api >= (major, minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_rootful_and_a_rootless_daemon() {
        let info = SystemInfo {
            cgroup_version: Some(SystemInfoCgroupVersionEnum::_1),
            driver: Some("overlay2".into()),
            driver_status: Some(vec![vec!["Backing Filesystem".into(), "xfs".into()]]),
            security_options: Some(vec!["name=seccomp,profile=default".into()]),
            ..SystemInfo::default()
        };
        let facts = Facts::new(&info, (1, 41), true);
        assert!(facts.cgroup_v1 && !facts.rootless && facts.needs_dev_mapper());
        let info = SystemInfo {
            security_options: Some(vec!["name=rootless".into(), "name=cgroupns".into()]),
            memory_limit: Some(true),
            pids_limit: Some(true),
            cpu_shares: Some(false),
            ..info
        };
        let facts = Facts::new(&info, (1, 41), true);
        assert!(facts.rootless && !facts.can_limit && !facts.needs_dev_mapper());
        assert!(!facts.userns_remap);
    }
}
