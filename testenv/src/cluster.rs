//! A KIND cluster under test.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::command::{Output, Tool};
use crate::report::VerifyReport;

/// Address families of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only
    Ipv4,
    /// IPv6 only
    Ipv6,
    /// Both, IPv4 first
    Dual,
}

impl Family {
    /// The value of `--ipfamily`.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        }
    }

    /// The single families in it, as `ip -4` and `ip -6` know them.
    #[must_use]
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Ipv4 => &["4"],
            Self::Ipv6 => &["6"],
            Self::Dual => &["4", "6"],
        }
    }
}

/// What the environment provides; read from the variables `testenv/test` sets.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `kindnetctl`
    pub kindnetctl: PathBuf,
    /// `kind`, for interoperability; absent when no peer is to be had
    pub kind: Option<PathBuf>,
    /// Node image; kindnetctl's default when absent
    pub node_image: Option<String>,
    /// The kindnet image
    pub kindnet_image: String,
    /// Root of the checkout, for the manifests
    pub checkout: PathBuf,
}

impl Environment {
    /// Reads the environment.
    ///
    /// # Errors
    /// A variable is missing.
    pub fn read() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let need = |name: &str| {
            variable(name).with_context(|| format!("{name} is not set: run testenv/test"))
        };
        Ok(Self {
            kindnetctl: need("KINDNET_E2E_KINDNETCTL")?.into(),
            kind: variable("KINDNET_E2E_KIND").map(Into::into),
            node_image: variable("KINDNET_E2E_NODE_IMAGE"),
            kindnet_image: need("KINDNET_E2E_IMAGE")?,
            checkout: PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .parent()
                .context("the crate has no parent folder")?
                .to_owned(),
        })
    }

    /// kindnetctl with a kubeconfig of its own.
    #[must_use]
    pub fn kindnetctl(&self, kubeconfig: &std::path::Path) -> Tool {
        Tool::new(&self.kindnetctl)
            .env("KUBECONFIG", kubeconfig.to_string_lossy())
            .env("NO_COLOR", "1")
            .deadline(Duration::from_secs(600))
    }

    /// kind with a kubeconfig of its own.
    ///
    /// # Errors
    /// There is no kind on this machine.
    pub fn kind(&self, kubeconfig: &std::path::Path) -> Result<Tool> {
        let kind = self
            .kind
            .as_ref()
            .context("no kind: run testenv/prepare --with-peers")?;
        Ok(Tool::new(kind)
            .env("KUBECONFIG", kubeconfig.to_string_lossy())
            .deadline(Duration::from_secs(600)))
    }
}

/// A cluster; deleted when dropped, unless `KEEP` is set.
pub struct Cluster {
    /// What it was made with.
    pub environment: Environment,
    /// Name.
    pub name: String,
    /// Address families.
    pub family: Family,
    folder: TempDir,
}

impl Cluster {
    /// Makes a cluster of one control plane and one worker with `kindnetctl up`.
    ///
    /// # Errors
    /// kindnetctl failed.
    pub fn up(environment: &Environment, name: &str, family: Family) -> Result<Self> {
        let cluster = Self::adopt(environment, name, family)?;
        let mut args = vec![
            "up",
            "--name",
            name,
            "--ipfamily",
            family.flag(),
            "--workers",
            "1",
        ];
        args.extend(["--kindnet-image", &environment.kindnet_image]);
        if let Some(image) = &environment.node_image {
            args.extend(["--image", image]);
        }
        let output = cluster.kindnetctl(&args)?;
        eprintln!("{}", output.stderr.trim_end());
        output.success()?;
        Ok(cluster)
    }

    /// A cluster somebody else makes under this name.
    ///
    /// # Errors
    /// No temporary folder can be made.
    pub fn adopt(environment: &Environment, name: &str, family: Family) -> Result<Self> {
        Ok(Self {
            environment: environment.clone(),
            name: name.to_owned(),
            family,
            folder: tempfile::tempdir()?,
        })
    }

    /// The kubeconfig of this cluster alone.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Runs kindnetctl.
    ///
    /// # Errors
    /// It cannot be run; its own failure is in the output.
    pub fn kindnetctl(&self, args: &[&str]) -> Result<Output> {
        self.environment.kindnetctl(&self.kubeconfig()).run(args)
    }

    /// Runs kubectl as the administrator, on the control plane.
    ///
    /// # Errors
    /// It cannot be run; its own failure is in the output.
    pub fn kubectl(&self, args: &[&str]) -> Result<Output> {
        let mut line = vec!["kubectl"];
        line.extend(args);
        self.control_plane().exec(&line)
    }

    /// `kubectl apply -f -`.
    ///
    /// # Errors
    /// kubectl failed.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let args = [
            "exec",
            "-i",
            &self.control_plane().name,
            "kubectl",
            "apply",
            "-f",
            "-",
        ];
        Tool::new("docker")
            .run_with_input(args, manifest)?
            .success()
            .map(drop)
    }

    /// `kindnetctl verify` with more arguments; the report tells what failed.
    ///
    /// # Errors
    /// It could not run, or printed no report.
    pub fn verify(&self, args: &[&str]) -> Result<VerifyReport> {
        let image = &self.environment.kindnet_image;
        let mut line = vec![
            "verify", "--name", &self.name, "--image", image, "-o", "json",
        ];
        line.extend(args);
        let output = self.kindnetctl(&line)?;
        VerifyReport::parse(&output)
    }

    /// `kindnetctl install` with the image under test.
    ///
    /// # Errors
    /// kindnetctl failed.
    pub fn install(&self) -> Result<()> {
        let context = format!("kind-{}", self.name);
        let image = &self.environment.kindnet_image;
        let args = ["install", "--context", &context, "--kindnet-image", image];
        self.kindnetctl(&args)?.success().map(drop)
    }

    /// Changes the spec of the `Configuration` by a JSON merge patch.
    ///
    /// # Errors
    /// kubectl failed.
    pub fn configure(&self, spec: &str) -> Result<()> {
        let patch = format!(r#"{{"spec":{spec}}}"#);
        let object = ["-n", "kube-system", "patch", "configuration", "kindnet"];
        let args = [&object[..], &["--type=merge", "-p", &patch]].concat();
        self.kubectl(&args)?.success().map(drop)
    }

    /// The control plane.
    #[must_use]
    pub fn control_plane(&self) -> Node {
        Node {
            name: format!("{}-control-plane", self.name),
        }
    }

    /// The worker.
    #[must_use]
    pub fn worker(&self) -> Node {
        Node {
            name: format!("{}-worker", self.name),
        }
    }

    /// Both nodes.
    #[must_use]
    pub fn nodes(&self) -> [Node; 2] {
        [self.control_plane(), self.worker()]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_none()
            && let Err(error) = self
                .kindnetctl(&["down", "--name", &self.name])
                .and_then(Output::success)
        {
            eprintln!("cannot delete cluster {}: {error:#}", self.name);
        }
    }
}

/// A node container.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name of container and Node.
    pub name: String,
}

impl Node {
    /// Runs a program in the node.
    ///
    /// # Errors
    /// Docker cannot be run; the program's own failure is in the output.
    pub fn exec(&self, args: &[&str]) -> Result<Output> {
        let mut line = vec!["exec", &self.name];
        line.extend(args);
        Tool::new("docker").run(line)
    }

    /// Runs a shell command in the node and returns what it printed.
    ///
    /// # Errors
    /// It failed.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.exec(&["bash", "-c", script])?.success()
    }
}
