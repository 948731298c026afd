//! kind's lock: a file beside the kubeconfig that only one process can create.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kindnet_ui::UserError;

use crate::error::{Doing as _, Result};

/// Writers hold the lock for milliseconds; who waits longer than this found one left behind.
const PATIENCE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct Lock(PathBuf);

impl Lock {
    pub(super) async fn take(file: &Path) -> Result<Self> {
        Self::take_within(file, PATIENCE).await
    }

    async fn take_within(file: &Path, patience: Duration) -> Result<Self> {
        let what = || format!("cannot lock the kubeconfig {}", file.display());
        if let Some(folder) = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs_err::create_dir_all(folder).doing(what)?;
        }
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let mut options = fs_err::OpenOptions::new();
            match options.write(true).create_new(true).open(&path) {
                Ok(_) => return Ok(Self(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).doing(what),
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(UserError::failure(format!(
                    "{} has been there for {} seconds",
                    path.display(),
                    patience.as_secs()
                ))
                .hint(format!(
                    "if no other kind, kubectl or kindnetctl is running, remove it: `rm {}`",
                    path.display()
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs_err::remove_file(&self.0) {
            tracing::warn!(%error, "lock not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let held = Lock::take(&file).await.unwrap();
        let error = Lock::take_within(&file, Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(
            error.hint_text().unwrap().contains("config.lock"),
            "{error}"
        );
        drop(held);
        Lock::take(&file).await.unwrap();
    }
}
