//! Calling plugins as container runtimes do: environment, configuration on standard input, result on
//! standard output, one program after the other.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::Pod;

/// Whose plugins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Side {
    /// kindnet-cni
    Ours(PathBuf),
    /// ptp with host-local, then portmap, in this folder
    Chain(PathBuf),
}

const VERSION: &str = "1.0.0";
/// State of the plugins.
pub const STATE: &str = "/run/state";

/// The plugins of a network with their configurations.
pub struct Network {
    plugins: Vec<(PathBuf, Value)>,
    cni_path: PathBuf,
}

impl Network {
    /// A network with these subnets.
    pub fn new(side: &Side, subnets: &[&str]) -> Self {
        let ranges: Vec<Value> = subnets.iter().map(|s| json!([{"subnet": s}])).collect();
        let routes: Vec<Value> = subnets
            .iter()
            .map(|s| json!({"dst": if s.contains(':') { "::/0" } else { "0.0.0.0/0" }}))
            .collect();
        let ports = json!({"portMappings": true});
        let (plugins, cni_path) = match side {
            Side::Ours(program) => (
                vec![(
                    program.clone(),
                    json!({
                        "type": "kindnet-cni", "mtu": 1500, "ranges": ranges, "dataDir": STATE,
                        "capabilities": ports,
                    }),
                )],
                program.parent().unwrap_or(Path::new("/")).to_owned(),
            ),
            Side::Chain(folder) => (
                vec![
                    (
                        folder.join("ptp"),
                        json!({
                            "type": "ptp", "ipMasq": false, "mtu": 1500,
                            "ipam": {
                                "type": "host-local", "dataDir": STATE, "ranges": ranges, "routes": routes,
                            },
                        }),
                    ),
                    (
                        folder.join("portmap"),
                        json!({"type": "portmap", "capabilities": ports}),
                    ),
                ],
                folder.clone(),
            ),
        };
        Self { plugins, cni_path }
    }

    /// ADD of every plugin; the last result.
    pub fn add(&self, pod: &Pod, ports: &[Value]) -> Result<Value> {
        let mut result = Value::Null;
        for (program, config) in &self.plugins {
            let output = self.call("ADD", program, pod, &complete(config, ports, &result))?;
            result = serde_json::from_slice(&output)?;
        }
        Ok(result)
    }

    /// DEL of every plugin, the last one first.
    pub fn del(&self, pod: &Pod, ports: &[Value], result: &Value) -> Result<()> {
        for (program, config) in self.plugins.iter().rev() {
            self.call("DEL", program, pod, &complete(config, ports, result))?;
        }
        Ok(())
    }

    fn call(&self, command: &str, program: &Path, pod: &Pod, config: &Value) -> Result<Vec<u8>> {
        let mut child = Command::new(program)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", &pod.netns)
            .env("CNI_IFNAME", "eth0")
            .env(
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bench",
            )
            .env("CNI_PATH", &self.cni_path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        child
            .stdin
            .take()
            .context("no standard input")?
            .write_all(config.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "{command} of {}: {} {}",
                program.display(),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output.stdout)
    }
}

/// What a runtime adds to the configuration of a plugin.
fn complete(config: &Value, ports: &[Value], previous: &Value) -> Value {
    let mut config = config.clone();
    config["cniVersion"] = VERSION.into();
    config["name"] = "kindnet".into();
    if !ports.is_empty() && config.get("capabilities").is_some() {
        config["runtimeConfig"] = json!({"portMappings": ports});
    }
    if !previous.is_null() {
        config["prevResult"] = previous.clone();
    }
    config
}
