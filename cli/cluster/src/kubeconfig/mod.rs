//! The user's kubeconfig: kind's names, kind's merge rules, kind's lock.

mod cluster;
mod document;
mod lock;

use std::path::{Path, PathBuf};

use kindnet_ui::UserError;
use serde_json::Value;

pub use document::{internal_server, rename};

use crate::error::{Doing as _, Result};
use crate::names;
use lock::Lock;

/// Which kubeconfig files are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files(Vec<PathBuf>);

impl Files {
    /// The file given, or those of `KUBECONFIG`, or `~/.kube/config`.
    ///
    /// # Errors
    /// There is no home directory to look in.
    pub fn find(explicit: Option<&Path>) -> Result<Self> {
        Self::resolve(
            explicit,
            std::env::var("KUBECONFIG").ok().as_deref(),
            std::env::home_dir(),
        )
    }

    fn resolve(
        explicit: Option<&Path>,
        variable: Option<&str>,
        home: Option<PathBuf>,
    ) -> Result<Self> {
        if let Some(path) = explicit {
            return Ok(Self(vec![path.to_owned()]));
        }
        let mut listed: Vec<PathBuf> = Vec::new();
        for path in std::env::split_paths(variable.unwrap_or_default()) {
            if !path.as_os_str().is_empty() && !listed.contains(&path) {
                listed.push(path);
            }
        }
        if listed.is_empty() {
            let home = home
                .filter(|home| !home.as_os_str().is_empty())
                .ok_or_else(|| {
                    UserError::usage("there is no home directory for the kubeconfig")
                        .hint("set KUBECONFIG or use --kubeconfig")
                })?;
            listed.push(home.join(".kube/config"));
        }
        Ok(Self(listed))
    }

    /// The file to write to: the first that exists, else the last.
    #[must_use]
    pub fn target(&self) -> &Path {
        self.0
            .iter()
            .find(|path| path.is_file())
            .or(self.0.last())
            .map_or(Path::new(""), PathBuf::as_path)
    }

    /// Whether [`Files::merge`] would succeed now. Nothing is changed: a folder that is not there is
    /// not made.
    ///
    /// # Errors
    /// The file is no kubeconfig, is locked for long, or its folder may not be written.
    pub async fn check(&self) -> Result<()> {
        let path = self.target();
        read(path)?;
        let what = || format!("the kubeconfig {} cannot be written", path.display());
        let real = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        // The lock goes beside the name, the new content beside what it stands for.
        for file in [path, real.as_path()] {
            let folder = existing_folder(file);
            tempfile::Builder::new()
                .prefix(".kindnetctl-")
                .tempfile_in(&folder)
                .map_err(|error| {
                    UserError::usage(what())
                        .hint("name another file with --kubeconfig or KUBECONFIG")
                        .source(error)
                })?;
        }
        if path.parent().is_some_and(Path::is_dir) {
            drop(Lock::take(path).await?);
        }
        Ok(())
    }

    /// Adds a cluster, replaces what has its names, and makes it the current context. Returns the
    /// file that was written.
    ///
    /// # Errors
    /// The file is locked, is no kubeconfig, or cannot be written.
    pub async fn merge(&self, entry: &Value) -> Result<PathBuf> {
        let path = self.target();
        let _lock = Lock::take(path).await?;
        let mut config = read(path)?;
        document::merge(&mut config, entry);
        write(path, &config)?;
        Ok(path.to_owned())
    }

    /// Removes a cluster from every file. Returns the files that had it.
    ///
    /// # Errors
    /// A file is locked, is no kubeconfig, or cannot be written.
    pub async fn remove(&self, cluster: &str) -> Result<Vec<PathBuf>> {
        let name = names::context(cluster);
        let mut changed = Vec::new();
        for path in &self.0 {
            if !path.is_file() {
                continue;
            }
            let _lock = Lock::take(path).await?;
            let mut config = read(path)?;
            if document::remove(&mut config, &name) {
                write(path, &config)?;
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }
}

/// The folder a file is in, or the one its missing folders would be made in.
fn existing_folder(file: &Path) -> PathBuf {
    let mut folders = file
        .ancestors()
        .skip(1)
        .filter(|folder| !folder.as_os_str().is_empty());
    folders
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("."))
        .to_owned()
}

fn read(path: &Path) -> Result<Value> {
    let what = || format!("cannot read the kubeconfig {}", path.display());
    let text = match fs_err::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).doing(what),
    };
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let config: Value = kindnet_api::yaml::from_str(&text).map_err(|error| {
        UserError::usage(what())
            .hint("it is not valid YAML; repair it, or use --kubeconfig with another file")
            .source(error)
    })?;
    if !config.is_object() {
        return Err(UserError::usage(what())
            .hint("it is not a kubeconfig; use --kubeconfig with another file"));
    }
    Ok(config)
}

/// Writes through a temporary file beside it, so that a reader never sees half of it. A symbolic
/// link stays one.
fn write(path: &Path, config: &Value) -> Result<()> {
    let what = || format!("cannot write the kubeconfig {}", path.display());
    let text = kindnet_api::yaml::to_string(config).doing(what)?;
    let target = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // Mode 0600 is what tempfile gives.
    let mut file = tempfile::NamedTempFile::new_in(folder).doing(what)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).doing(what)?;
    file.as_file().sync_all().doing(what)?;
    file.persist(&target)
        .map_err(|error| error.error)
        .doing(what)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_rules_for_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let list = format!("{}:{}:", a.display(), b.display());
        let files = || Files::resolve(None, Some(&list), None).unwrap();
        assert_eq!(files().target(), b, "none exists: the last");
        fs_err::write(&b, "").unwrap();
        assert_eq!(files().target(), b);
        fs_err::write(&a, "").unwrap();
        assert_eq!(files().target(), a, "the first that exists");
        let home = Files::resolve(None, Some(""), Some("/home/me".into())).unwrap();
        assert_eq!(home.target(), Path::new("/home/me/.kube/config"));
        let explicit = Files::resolve(Some(Path::new("x")), Some(&list), None).unwrap();
        assert_eq!(explicit.target(), Path::new("x"));
        assert!(Files::resolve(None, None, None).is_err());
    }

    fn entry(cluster: &str) -> Value {
        let name = names::context(cluster);
        serde_json::json!({
            "clusters": [{"name": name, "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        })
    }

    #[tokio::test]
    async fn what_is_merged_is_removed_again_and_the_rest_stays() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/config");
        let files = Files(vec![path.clone()]);
        files.merge(&entry("a")).await.unwrap();
        assert_eq!(
            fs_err::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let before = fs_err::read_to_string(&path).unwrap();
        files.merge(&entry("b")).await.unwrap();
        assert_eq!(files.remove("b").await.unwrap(), [path.as_path()]);
        let after = fs_err::read_to_string(&path).unwrap();
        assert_eq!(
            after,
            before.replace("current-context: kind-a", "current-context: ''")
        );
        assert!(files.remove("b").await.unwrap().is_empty());
        assert!(
            !path.with_extension("lock").exists()
                && !folder.path().join("sub/config.lock").exists()
        );
    }

    #[tokio::test]
    async fn a_broken_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs_err::write(&path, "a: [").unwrap();
        assert!(Files(vec![path.clone()]).merge(&entry("a")).await.is_err());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "a: [");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let files = |path: PathBuf| Files(vec![path]);
        files(folder.path().join("new/folder/config"))
            .check()
            .await
            .unwrap();
        assert!(!folder.path().join("new").exists());
        // Not even root may write there.
        let error = files("/proc/kindnetctl/config".into())
            .check()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/proc/kindnetctl/config"));
        assert!(error.hint_text().unwrap().contains("--kubeconfig"));
        let broken = folder.path().join("config");
        fs_err::write(&broken, "a: [").unwrap();
        assert!(files(broken).check().await.is_err());
        // A file where a folder should be.
        assert!(
            files(folder.path().join("config/config"))
                .check()
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_symbolic_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs_err::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        Files(vec![link.clone()]).merge(&entry("a")).await.unwrap();
        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs_err::read_to_string(&real).unwrap().contains("kind-a"));
    }
}
