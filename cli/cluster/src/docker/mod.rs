//! The Docker Engine: where it is, what it can do, and the few operations clusters need.

mod archive;
mod config;
mod endpoint;
mod exec;
mod facts;
mod images;
mod logs;
mod network;
mod text;
mod ula;

use std::time::Duration;

use bollard::Docker;
use kindnet_ui::UserError;

pub use archive::File;
pub use config::DockerConfig;
pub use endpoint::Endpoint;
pub use exec::{Output, Stream};
pub use facts::Facts;
pub use images::{ImageName, LocalImage, Progress};
pub(crate) use network::no_ipv6;
pub use network::{Network, NetworkOrigin};
pub use text::{LineBuffer, plain_lines};

use crate::error::{Doing as _, Result};

/// Creating a container copies the image's /var, and the first byte of a pull may take its time:
/// the default of two minutes is too short for either on a slow disk or line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(900);

/// How long a daemon may take for its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// The oldest API with `CgroupnsMode`, of Docker 20.10.
const OLDEST_API: (usize, usize) = (1, 41);

/// A connected daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) docker: Docker,
    /// Where the daemon is.
    pub endpoint: Endpoint,
    /// Docker's configuration file.
    pub config: DockerConfig,
    /// What the daemon says about itself.
    pub facts: Facts,
}

impl Engine {
    /// The connection itself, for what is not offered here.
    #[must_use]
    pub fn client(&self) -> &Docker {
        &self.docker
    }

    /// Connects to the daemon that the `docker` command would use: `DOCKER_HOST`, `DOCKER_CONTEXT`,
    /// the current context, or the default socket.
    ///
    /// # Errors
    /// No daemon answers there, it may not be used, or it is older than Docker 20.10.
    pub async fn connect() -> Result<Self> {
        let config = DockerConfig::load()?;
        let endpoint = Endpoint::find(&config)?;
        let docker = endpoint.client(REQUEST_TIMEOUT)?;
        let handshake = async {
            let docker = docker.negotiate_version().await?;
            let info = docker.info().await?;
            Ok::<_, bollard::errors::Error>((docker, info))
        };
        let (docker, info) = tokio::time::timeout(FIRST_ANSWER, handshake)
            .await
            .map_err(|_| {
                UserError::usage(format!(
                    "the Docker daemon at {endpoint} does not answer within {} seconds",
                    FIRST_ANSWER.as_secs()
                ))
                .hint("restart it: `sudo systemctl restart docker`")
            })?
            .doing(|| format!("cannot use the Docker daemon at {endpoint}"))?;
        let version = docker.client_version();
        let api = (version.major_version, version.minor_version);
        if api < OLDEST_API {
            return Err(UserError::usage(format!(
                "the Docker daemon speaks API {}.{}, but {}.{} is needed",
                api.0, api.1, OLDEST_API.0, OLDEST_API.1
            ))
            .hint("upgrade to Docker 20.10 or newer"));
        }
        let facts = Facts::new(&info, api, endpoint.is_local());
        Ok(Self {
            docker,
            endpoint,
            config,
            facts,
        })
    }
}
