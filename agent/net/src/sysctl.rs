//! Kernel parameters under /proc/sys/net.
//!
//! They are read first and written only to change something: in a container without privileges
//! /proc/sys is read-only, and the host's, mounted elsewhere, is what has to be used.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::{Error, Result};

/// Whether a parameter had to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It had the value already.
    None,
    /// It had this value before.
    From(String),
}

/// Parameters below a folder with the layout of /proc/sys/net.
#[derive(Debug, Clone)]
pub struct Sysctl {
    root: PathBuf,
}

impl Sysctl {
    /// Parameters below `root`, which is /proc/sys/net or where it is mounted.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where they are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Value of a parameter, for example `ipv4/ip_forward`; `None` where the kernel has no such
    /// parameter.
    ///
    /// # Errors
    /// It exists and cannot be read.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        match fs::read_to_string(self.root.join(key)) {
            Ok(value) => Ok(Some(value.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("read sysctl net/{key}"), error)),
        }
    }

    /// Makes a parameter have a value.
    ///
    /// # Errors
    /// There is no such parameter, or it has another value and cannot be written.
    pub fn ensure(&self, key: &str, value: &str) -> Result<Change> {
        let before = self.get(key)?;
        if before.as_deref() == Some(value) {
            return Ok(Change::None);
        }
        // A file that is not there must not be created where `root` is an ordinary folder.
        let written = fs::OpenOptions::new()
            .write(true)
            .open(self.root.join(key))
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
        match written {
            Ok(()) => Ok(Change::From(before.unwrap_or_default())),
            Err(error) => Err(Error::io(format!("set sysctl net/{key} to {value}"), error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_value_is_written_only_to_change_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ip_forward");
        fs::write(&file, "0\n").unwrap();
        let sysctl = Sysctl::new(dir.path());
        assert_eq!(
            sysctl.ensure("ip_forward", "1").unwrap(),
            Change::From("0".into())
        );
        assert_eq!(fs::read_to_string(&file).unwrap().trim(), "1");
        let mut permissions = fs::metadata(&file).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&file, permissions).unwrap();
        assert_eq!(sysctl.ensure("ip_forward", "1").unwrap(), Change::None);
    }

    #[test]
    fn a_missing_parameter_is_an_error_and_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let sysctl = Sysctl::new(dir.path());
        assert_eq!(sysctl.get("nothing").unwrap(), None);
        assert_eq!(
            sysctl.ensure("nothing", "1").unwrap_err().kind(),
            ErrorKind::Missing
        );
        assert!(!dir.path().join("nothing").exists());
    }
}
