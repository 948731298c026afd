//! Docker's configuration file and what hangs off it: contexts, proxies, registry logins.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use kindnet_ui::UserError;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::error::Result;

/// Key of Docker Hub in the file.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// `~/.docker`, or what `DOCKER_CONFIG` names.
#[derive(Debug, Clone, Default)]
pub struct DockerConfig {
    folder: PathBuf,
    /// Content of `config.json`; null when there is none.
    pub file: Value,
}

impl DockerConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn load() -> Result<Self> {
        let folder = match std::env::var_os("DOCKER_CONFIG").filter(|v| !v.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => match std::env::var_os("HOME") {
                Some(home) => PathBuf::from(home).join(".docker"),
                None => return Ok(Self::default()),
            },
        };
        Self::read(&folder)
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let file = match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                UserError::usage(format!("{} is not valid JSON", path.display())).source(error)
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => {
                return Err(UserError::usage("Docker's configuration cannot be read").source(error));
            }
        };
        Ok(Self {
            folder: folder.to_owned(),
            file,
        })
    }

    /// Name of the context in use, where it is not the default one.
    pub(super) fn current_context(&self) -> Option<String> {
        std::env::var("DOCKER_CONTEXT")
            .ok()
            .filter(|name| !name.is_empty())
            .or_else(|| self.file["currentContext"].as_str().map(str::to_owned))
            .filter(|name| !name.is_empty() && name != "default")
    }

    /// URL of a context's daemon. The folder is named by a hash of the context; its file holds the
    /// name in clear.
    pub(super) fn context_host(&self, name: &str) -> Option<String> {
        let (_, meta) = self.context(name)?;
        let host = meta["Endpoints"]["docker"]["Host"].as_str()?;
        Some(host.to_owned())
    }

    /// Whether a context brings certificates for its daemon, or is told not to check the daemon's.
    pub(super) fn context_has_tls(&self, name: &str) -> bool {
        self.context(name).is_some_and(|(folder, meta)| {
            let certificates = self.folder.join("contexts/tls").join(folder).join("docker");
            meta["Endpoints"]["docker"]["SkipTLSVerify"] == true || certificates.is_dir()
        })
    }

    /// The folder of a context and its description.
    fn context(&self, name: &str) -> Option<(std::ffi::OsString, Value)> {
        let folders = fs_err::read_dir(self.folder.join("contexts/meta")).ok()?;
        folders
            .filter_map(|folder| {
                let folder = folder.ok()?;
                let bytes = fs_err::read(folder.path().join("meta.json")).ok()?;
                let meta = serde_json::from_slice::<Value>(&bytes).ok()?;
                Some((folder.file_name(), meta))
            })
            .find(|(_, meta)| meta["Name"] == name)
    }

    /// The login for a registry host, from a credential helper or from the file.
    ///
    /// # Errors
    /// A helper is configured but does not work.
    pub async fn credentials(&self, registry: &str) -> Result<Option<DockerCredentials>> {
        let keys: Vec<&str> = match registry {
            "docker.io" => vec![HUB_KEY, "index.docker.io", "docker.io"],
            other => vec![other],
        };
        for key in &keys {
            let helper = self.file["credHelpers"][key]
                .as_str()
                .or_else(|| self.file["credsStore"].as_str())
                .filter(|helper| !helper.is_empty());
            if let Some(helper) = helper
                && let Some(found) = from_helper(helper, key).await?
            {
                return Ok(Some(found));
            }
        }
        Ok(keys.iter().find_map(|key| {
            let https = format!("https://{key}");
            let entry = match &self.file["auths"][key] {
                Value::Null => &self.file["auths"][https.as_str()],
                found => found,
            };
            from_entry(entry, key)
        }))
    }
}

fn from_entry(entry: &Value, key: &str) -> Option<DockerCredentials> {
    let serveraddress = Some(key.to_owned());
    if let Some(token) = entry["identitytoken"].as_str().filter(|t| !t.is_empty()) {
        return Some(DockerCredentials {
            identitytoken: Some(token.to_owned()),
            serveraddress,
            ..DockerCredentials::default()
        });
    }
    let decoded = STANDARD.decode(entry["auth"].as_str()?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(DockerCredentials {
        username: Some(user.to_owned()),
        // Some versions of Docker pad the value with NUL bytes.
        password: Some(password.trim_end_matches('\0').to_owned()),
        serveraddress,
        ..DockerCredentials::default()
    })
}

/// Asks `docker-credential-HELPER get`. See
/// <https://github.com/docker/docker-credential-helpers#development>.
async fn from_helper(helper: &str, key: &str) -> Result<Option<DockerCredentials>> {
    let program = format!("docker-credential-{helper}");
    let failed = |error: std::io::Error| {
        UserError::failure(format!("cannot ask {program} for the login to {key}"))
            .hint("install it, or remove it from Docker's config.json")
            .source(error)
    };
    let mut child = tokio::process::Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(key.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if !output.status.success() {
        // The helper's way to say that it knows no such login.
        return Ok(None);
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|e| failed(e.into()))?;
    let secret = answer["Secret"].as_str().unwrap_or_default().to_owned();
    let credentials = match answer["Username"].as_str() {
        Some("<token>") => DockerCredentials {
            identitytoken: Some(secret),
            ..DockerCredentials::default()
        },
        user => DockerCredentials {
            username: user.map(str::to_owned),
            password: Some(secret),
            ..DockerCredentials::default()
        },
    };
    Ok(Some(DockerCredentials {
        serveraddress: Some(key.to_owned()),
        ..credentials
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: Value) -> (tempfile::TempDir, DockerConfig) {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("config.json"), json.to_string()).unwrap();
        let config = DockerConfig::read(folder.path()).unwrap();
        (folder, config)
    }

    #[tokio::test]
    async fn logins_of_the_file() {
        let (_folder, config) = config(serde_json::json!({"auths": {
            HUB_KEY: {"auth": STANDARD.encode("me:pass:word")},
            "example.test:5000": {"identitytoken": "token"},
        }}));
        let hub = config.credentials("docker.io").await.unwrap().unwrap();
        assert_eq!(hub.username.as_deref(), Some("me"));
        assert_eq!(hub.password.as_deref(), Some("pass:word"));
        let own = config
            .credentials("example.test:5000")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(own.identitytoken.as_deref(), Some("token"));
        assert!(config.credentials("other.test").await.unwrap().is_none());
    }

    #[test]
    fn contexts_are_found_by_name() {
        let (folder, config) = config(serde_json::json!({}));
        let meta = folder.path().join("contexts/meta/00ff");
        fs_err::create_dir_all(&meta).unwrap();
        let content = serde_json::json!({
            "Name": "rootless",
            "Endpoints": {"docker": {"Host": "unix:///run/user/1000/docker.sock"}},
        });
        fs_err::write(meta.join("meta.json"), content.to_string()).unwrap();
        assert_eq!(
            config.context_host("rootless").as_deref(),
            Some("unix:///run/user/1000/docker.sock")
        );
        assert_eq!(config.context_host("other"), None);
        assert!(!config.context_has_tls("rootless"));
        let certificates = folder.path().join("contexts/tls/00ff/docker");
        fs_err::create_dir_all(certificates).unwrap();
        assert!(config.context_has_tls("rootless"));
    }

    #[test]
    fn a_missing_file_is_no_error_and_a_broken_one_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DockerConfig::read(folder.path()).unwrap().file.is_null());
        fs_err::write(folder.path().join("config.json"), "{").unwrap();
        assert!(DockerConfig::read(folder.path()).is_err());
    }
}
