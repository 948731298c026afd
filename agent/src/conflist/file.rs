//! The file itself.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use kindnet_api::names;
use kindnet_core::conflist::is_ours;

/// Temporary files start and end so; the runtime reads only `.conf`, `.conflist` and `.json`.
const TEMPORARY: (&str, &str) = (".10-kindnet.", ".tmp");

/// The CNI configuration in its folder.
#[derive(Debug, Clone)]
pub struct ConflistFile {
    dir: PathBuf,
    path: PathBuf,
}

/// What came of removing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// There was none.
    Absent,
    /// It is somebody else's and still there.
    Foreign,
}

impl ConflistFile {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            path: dir.join(names::CONFLIST_FILE),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; `None` where there is none. What is not text counts as something else.
    pub fn read(&self) -> io::Result<Option<String>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces it in one step: whoever looks sees the old content or the new, also after a crash.
    pub fn write(&self, content: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut temporary = tempfile::Builder::new()
            .prefix(TEMPORARY.0)
            .suffix(TEMPORARY.1)
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(&self.dir)?;
        temporary.write_all(content.as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist(&self.path).map_err(|e| e.error)?;
        fs::File::open(&self.dir)?.sync_all()
    }

    /// Removes it if kindnet wrote it.
    pub fn remove(&self) -> io::Result<Removal> {
        self.remove_leftovers();
        match self.read()? {
            None => Ok(Removal::Absent),
            Some(content) if !is_ours(&content) => Ok(Removal::Foreign),
            Some(_) => {
                fs::remove_file(&self.path)?;
                Ok(Removal::Removed)
            }
        }
    }

    /// Removes temporary files of runs that were killed.
    pub fn remove_leftovers(&self) {
        for name in self.neighbours() {
            if name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1) {
                // Harmless if it stays: no runtime reads it.
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
    }

    /// Names of everything in the folder.
    pub fn neighbours(&self) -> Vec<String> {
        fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// Whether an error of [`ConflistFile::write`] says that the folder is there and yet nothing can be
/// created in it, as happens to a mount whose source is removed.
pub fn is_orphaned(dir: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && dir.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kindnet_api::conflist::Conflist;

    fn content() -> String {
        Conflist::standard(&["10.244.0.0/24".parse().unwrap()], Some(1500)).to_json()
    }

    #[test]
    fn it_is_written_whole_readable_by_all_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = ConflistFile::new(&dir.path().join("net.d"));
        file.write(&content()).unwrap();
        assert_eq!(file.read().unwrap(), Some(content()));
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(file.neighbours(), [names::CONFLIST_FILE]);
    }

    #[test]
    fn only_ours_is_removed_and_so_are_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let file = ConflistFile::new(dir.path());
        assert_eq!(file.remove().unwrap(), Removal::Absent);
        fs::write(dir.path().join(".10-kindnet.abc.tmp"), "half").unwrap();
        fs::write(file.path(), "{}").unwrap();
        assert_eq!(file.remove().unwrap(), Removal::Foreign);
        assert_eq!(file.neighbours(), [names::CONFLIST_FILE]);
        file.write(&content()).unwrap();
        assert_eq!(file.remove().unwrap(), Removal::Removed);
        assert!(file.neighbours().is_empty());
    }

    #[test]
    fn an_unwritable_folder_is_an_error_and_the_old_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        let nested = blocked.join("net.d");
        let error = ConflistFile::new(&nested).write("x").unwrap_err();
        assert!(!is_orphaned(&nested, &error));
    }
}
