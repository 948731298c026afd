//! Where the daemon is.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use kindnet_ui::UserError;

use super::DockerConfig;
use crate::error::{Doing as _, Result, unreachable_daemon};

const DEFAULT: &str = "unix:///var/run/docker.sock";

/// URL of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// Finds the daemon the way the `docker` command does.
    ///
    /// # Errors
    /// The context does not exist, or its transport is not supported.
    pub fn find(config: &DockerConfig) -> Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|v: &String| !v.is_empty());
        if let Some(host) = variable("DOCKER_HOST") {
            return Self::parse(
                &host,
                "DOCKER_HOST",
                variable("DOCKER_TLS_VERIFY").is_some(),
            );
        }
        let Some(context) = config.current_context() else {
            return Ok(Self(DEFAULT.into()));
        };
        let Some(host) = config.context_host(&context) else {
            return Err(
                UserError::usage(format!("the Docker context {context:?} does not exist"))
                    .hint("list them with `docker context ls`"),
            );
        };
        let tls = config.context_has_tls(&context);
        Self::parse(&host, &format!("Docker context {context:?}"), tls)
    }

    fn parse(host: &str, origin: &str, tls: bool) -> Result<Self> {
        let (scheme, _) = host.split_once("://").ok_or_else(|| {
            UserError::usage(format!("{origin}: {host:?} is not a URL"))
                .hint("use unix:///path/to/docker.sock or tcp://127.0.0.1:2375")
        })?;
        let tunnel = "forward its socket: `ssh -NL /tmp/docker.sock:/var/run/docker.sock HOST`, \
                      then DOCKER_HOST=unix:///tmp/docker.sock";
        match scheme {
            "unix" => Ok(Self(host.to_owned())),
            "tcp" | "http" if !tls => Ok(Self(host.to_owned())),
            "tcp" | "http" | "https" => Err(UserError::usage(format!(
                "{origin}: TLS to the Docker daemon is not supported"
            ))
            .hint(tunnel)),
            other => {
                Err(UserError::usage(format!("{origin}: {other}:// is not supported")).hint(tunnel))
            }
        }
    }

    pub(super) fn client(&self, timeout: Duration) -> Result<Docker> {
        let seconds = timeout.as_secs();
        match self.socket() {
            Some(path) if !Path::new(path).exists() => {
                Err(unreachable_daemon(std::io::ErrorKind::NotFound)
                    .source(std::io::Error::other(format!("{path} does not exist"))))
            }
            Some(path) => Docker::connect_with_unix(path, seconds, API_DEFAULT_VERSION)
                .doing(|| format!("cannot use {self}")),
            None => Docker::connect_with_http(&self.0, seconds, API_DEFAULT_VERSION)
                .doing(|| format!("cannot use {self}")),
        }
    }

    fn socket(&self) -> Option<&str> {
        self.0.strip_prefix("unix://")
    }

    /// Whether the daemon's loopback addresses are this machine's.
    #[must_use]
    pub fn is_local(&self) -> bool {
        if self.socket().is_some() {
            return true;
        }
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("unix:///run/docker.sock", true)]
    #[case("tcp://127.0.0.1:2375", true)]
    #[case("tcp://[::1]:2375", true)]
    #[case("http://localhost:2375", true)]
    #[case("tcp://192.0.2.1:2375", false)]
    #[case("tcp://docker:2375", false)]
    fn locality(#[case] host: &str, #[case] local: bool) {
        assert_eq!(
            Endpoint::parse(host, "test", false).unwrap().is_local(),
            local
        );
    }

    #[rstest]
    #[case("ssh://me@host", false, "DOCKER_HOST: ssh:// is not supported")]
    #[case(
        "tcp://host:2376",
        true,
        "DOCKER_HOST: TLS to the Docker daemon is not supported"
    )]
    #[case(
        "/run/docker.sock",
        false,
        r#"DOCKER_HOST: "/run/docker.sock" is not a URL"#
    )]
    fn unsupported(#[case] host: &str, #[case] tls: bool, #[case] message: &str) {
        let error = Endpoint::parse(host, "DOCKER_HOST", tls).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint_text().is_some());
    }
}
