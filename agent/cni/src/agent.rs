//! What the agent does for the plugin: installs it, and puts right at its start and from then on what
//! a crash or an administrator left behind.
//!
//! Everything here may be called from a program with threads, any number of times, while pods come
//! and go.

mod handover;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::commands::{Removal, teardown};
use crate::error::{Error, Result};
use crate::hostport;
use crate::ipam::Store;
use crate::link;

/// Name of the program, and `type` in a network configuration.
pub const PLUGIN: &str = "kindnet-cni";

/// Puts the program into a folder of plugins, under [`PLUGIN`]. A pod that is being attached right
/// now goes on with the program it began with: the file is replaced, not written to. Whether
/// anything had to be done.
///
/// # Errors
/// The program cannot be read or the folder cannot be written.
pub fn install(program: &Path, folder: &Path) -> Result<bool> {
    let bytes = fs::read(program).map_err(Error::io(format!("read {}", program.display())))?;
    let target = folder.join(PLUGIN);
    let executable = |path: &Path| {
        fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o777 == 0o755)
    };
    if executable(&target) && fs::read(&target).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    fs::create_dir_all(folder).map_err(Error::io(format!("create {}", folder.display())))?;
    // A name of its own for every process, so that two agents do not write to one file.
    let temporary = folder.join(format!(".{PLUGIN}.{}", std::process::id()));
    let written = write_program(&temporary, &bytes)
        .and_then(|()| fs::rename(&temporary, &target))
        .map_err(Error::io(format!("install {}", target.display())));
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written.map(|()| true)
}

fn write_program(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(path)?;
    file.write_all(bytes)?;
    // Not what `mode` says where there is a umask.
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()
}

/// The state of one network on this host.
#[derive(Debug, Clone)]
pub struct Network {
    store: Store,
    folder: PathBuf,
}

/// What [`Network::reclaim`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Attachments whose sandbox is gone, as `container/interface`.
    pub attachments: Vec<String>,
    /// Addresses that are free again.
    pub addresses: usize,
}

impl Network {
    /// The network of this name; `data_dir` is what its configuration says, or
    /// [`crate::config::DEFAULT_DATA_DIR`].
    #[must_use]
    pub fn new(data_dir: &Path, name: &str) -> Self {
        let folder = data_dir.join(name);
        Self {
            store: Store::new(&folder),
            folder,
        }
    }

    /// Frees what belongs to sandboxes that are gone. Cheap: meant for the start and for a periodic
    /// look, also while another plugin is in use, which does not know of our host ports. A link ends with the network namespace of
    /// its pod, so an attachment without its link has no pod; attachments that are being made right
    /// now are known and left alone.
    ///
    /// # Errors
    /// Something could not be freed; everything else was.
    pub fn reclaim(&self) -> Result<Reclaimed> {
        let mut reclaimed = Reclaimed::default();
        let mut errors = Vec::new();
        for record in self.store.settled()? {
            if record.link.is_empty() || link::exists(&record.link) {
                continue;
            }
            match teardown(&self.store, &record, Removal::Here) {
                Ok(()) => {
                    reclaimed.addresses += record.addresses.len();
                    reclaimed
                        .attachments
                        .push(format!("{}/{}", record.container_id, record.ifname));
                }
                Err(error) => errors.push(error),
            }
        }
        Error::all(errors).map(|()| reclaimed)
    }

    /// Makes the rules of host ports again from what is remembered: after an update of the plugin,
    /// or after somebody flushed the ruleset.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn restore_host_ports(&self) -> Result<()> {
        hostport::restore(&self.store)
    }

    /// As [`Self::restore_host_ports`], but only if the rules are gone and there are host ports.
    /// Cheap: meant for a periodic look. Whether anything had to be done.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn repair_host_ports(&self) -> Result<bool> {
        hostport::repair(&self.store)
    }

    /// How many attachments there are.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn attachments(&self) -> Result<usize> {
        self.store.records().map(|records| records.len())
    }

    /// Removes program, rules of host ports, and the state, unless pods still run that came by this
    /// plugin: what they have must not be given away by whichever plugin comes next. Their state lies
    /// on a tmpfs and is gone with the next boot.
    ///
    /// # Errors
    /// Something could not be removed; everything else was.
    pub fn uninstall(&self, plugin_folder: &Path) -> Result<()> {
        let gone = |result: io::Result<()>, path: &Path| match result {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Some(Error::io(format!("remove {}", path.display()))(error))
            }
            _ => None,
        };
        let program = plugin_folder.join(PLUGIN);
        let mut errors = Vec::new();
        errors.extend(gone(fs::remove_file(&program), &program));
        errors.extend(hostport::purge().err());
        errors.extend(self.reclaim().err());
        match self.attachments() {
            Ok(0) => errors.extend(gone(fs::remove_dir_all(&self.folder), &self.folder)),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
        Error::all(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_program_is_replaced_and_an_installed_one_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("bin");
        let program = folder.path().join("program");
        fs::copy("/bin/sleep", &program).unwrap();
        assert!(install(&program, &plugins).unwrap());
        assert!(!install(&program, &plugins).unwrap());
        let mut running = std::process::Command::new(plugins.join(PLUGIN))
            .arg("60")
            .spawn()
            .unwrap();
        fs::write(&program, "#!/bin/sh\nexit 7\n").unwrap();
        assert!(install(&program, &plugins).unwrap());
        let status = std::process::Command::new(plugins.join(PLUGIN))
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(7));
        running.kill().unwrap();
        running.wait().unwrap();
        let names: Vec<_> = fs::read_dir(&plugins)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, [PLUGIN]);
    }

    #[test]
    fn a_network_without_state_has_nothing_to_reclaim() {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new(folder.path(), "none");
        assert_eq!(network.reclaim().unwrap(), Reclaimed::default());
        assert_eq!(network.attachments().unwrap(), 0);
        assert!(!folder.path().join("none").exists());
    }
}
