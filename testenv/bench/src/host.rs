//! A host of its own for a measurement, and network namespaces for its pods.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const PODS: &str = "/run/pods";

/// Moves this process into a network and a mount namespace of its own, with an empty /run.
pub fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("unshare")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    fs::create_dir(PODS)?;
    // What a node has before its first pod.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    if Path::new("/proc/sys/net/ipv6").exists() {
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if !status.success() {
        bail!("ip link set lo up failed");
    }
    Ok(())
}

/// A network namespace, kept by a bind mount as container runtimes do it.
pub struct Pod {
    /// Container ID
    pub id: String,
    /// Path of the network namespace
    pub netns: PathBuf,
}

impl Pod {
    /// Makes one.
    pub fn new(number: usize) -> Result<Self> {
        let netns = Path::new(PODS).join(format!("cni-{number:08x}"));
        File::create(&netns)?;
        let target = netns.clone();
        let made = thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let none: Option<&str> = None;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                none,
                MsFlags::MS_BIND,
                none,
            )?;
            Ok(())
        });
        made.join().map_err(|_| anyhow!("the thread died"))??;
        Ok(Self {
            id: format!("{number:064x}"),
            netns,
        })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The namespaces end with this process in any case.
        let _ = umount2(&self.netns, MntFlags::MNT_DETACH);
    }
}
