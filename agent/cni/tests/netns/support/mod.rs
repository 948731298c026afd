//! A host and its pods, each a network namespace.

mod net;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use net::*;

/// A network namespace with a name, removed when dropped.
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new(kind: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kntest-{}-{kind}{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Self { name }
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs `work` on a thread in this namespace; programs it starts are in it, too.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(self.path()).unwrap();
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// `ip -j ARGS`, read.
    pub fn ip(&self, args: &str) -> Value {
        let words: Vec<&str> = ["-n", &self.name, "-j"]
            .into_iter()
            .chain(args.split(' '))
            .collect();
        let text = run("ip", &words);
        if text.trim().is_empty() {
            json!([])
        } else {
            serde_json::from_str(&text).unwrap()
        }
    }

    /// Any program, in this namespace.
    pub fn run(&self, program: &str, args: &str) -> String {
        let words: Vec<&str> = args.split(' ').collect();
        self.enter(|| run(program, &words))
    }

    /// Names of the links.
    pub fn links(&self) -> Vec<String> {
        let links = self.ip("link");
        let names = links
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| name != "lo").collect()
    }

    /// `DST via GW` of every route but those the kernel made.
    pub fn routes(&self, family: u8) -> Vec<String> {
        let mut routes = Vec::new();
        for route in self.ip(&format!("-{family} route")).as_array().unwrap() {
            if route["protocol"] != "kernel" {
                let via = route["gateway"]
                    .as_str()
                    .map(|gw| format!(" via {gw}"))
                    .unwrap_or_default();
                routes.push(format!("{}{via}", route["dst"].as_str().unwrap()));
            }
        }
        routes.sort();
        routes
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Links of the test die with it.
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .output(),
        );
    }
}

/// A host with a network on it.
pub struct Host {
    pub netns: Netns,
    pub state: TempDir,
    pub plugin: PathBuf,
    pub config: Value,
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    pub ok: bool,
    pub output: String,
}

impl Answer {
    #[track_caller]
    pub fn success(&self) -> Value {
        assert!(self.ok, "{}", self.output);
        serde_json::from_str(&self.output).unwrap_or_default()
    }

    /// The code and the message of an error.
    #[track_caller]
    pub fn error(&self) -> (u64, String) {
        assert!(!self.ok, "succeeded: {}", self.output);
        let body: Value = serde_json::from_str(&self.output).unwrap();
        assert!(body["cniVersion"].is_string(), "{body}");
        (
            body["code"].as_u64().unwrap(),
            body["msg"].as_str().unwrap().to_owned(),
        )
    }
}

pub const V4: &str = "10.77.1.0/24";
pub const V6: &str = "fd00:77:1::/64";

impl Host {
    pub fn new(subnets: &[&str]) -> Self {
        let netns = Netns::new("host");
        netns.run("ip", "link set lo up");
        let state = tempfile::tempdir_in("/run").unwrap();
        let ranges: Vec<Value> = subnets.iter().map(|s| json!([{"subnet": s}])).collect();
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "kindnet-cni",
            "dataDir": state.path(), "ranges": ranges,
        });
        Self {
            netns,
            state,
            plugin: env!("CARGO_BIN_EXE_kindnet-cni").into(),
            config,
        }
    }

    pub fn dual() -> Self {
        Self::new(&[V4, V6])
    }

    /// The configuration with fields added or replaced.
    pub fn with(&self, fields: Value) -> Value {
        let mut config = self.config.clone();
        for (key, value) in fields.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    /// The configuration with ports as containerd sends them: `tcp 8080:80`, `udp 192.0.2.1:53:5353`.
    pub fn with_ports(&self, ports: &[&str]) -> Value {
        let mappings: Vec<Value> = ports
            .iter()
            .map(|port| {
                let (protocol, rest) = port.split_once(' ').unwrap();
                let (rest, container) = rest.rsplit_once(':').unwrap();
                let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
                json!({
                    "HostPort": host.parse::<u16>().unwrap(),
                    "ContainerPort": container.parse::<u16>().unwrap(),
                    "Protocol": protocol,
                    "HostIP": ip.trim_matches(['[', ']']),
                })
            })
            .collect();
        self.with(json!({"runtimeConfig": {"portMappings": mappings}}))
    }

    /// Runs the plugin with any environment.
    pub fn call(&self, env: &[(&str, &str)], config: &Value) -> Answer {
        let input = config.to_string();
        let output = self.netns.enter(|| {
            let mut child = Command::new(&self.plugin)
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("CNI_PATH", "/opt/cni/bin")
                .envs(env.iter().copied())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // A plugin that was told to die early does not read.
            drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
            child.wait_with_output().unwrap()
        });
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        Answer {
            ok: output.status.success(),
            output: String::from_utf8(output.stdout).unwrap(),
        }
    }

    /// A command about `eth0` of a container.
    pub fn command(&self, command: &str, id: &str, netns: &str, config: &Value) -> Answer {
        let env = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
        ];
        self.call(&env, config)
    }

    pub fn add(&self, id: &str, pod: &Netns) -> Value {
        self.add_with(id, pod, &self.config)
    }

    pub fn add_with(&self, id: &str, pod: &Netns, config: &Value) -> Value {
        self.command("ADD", id, &pod.path(), config).success()
    }

    pub fn del(&self, id: &str, netns: &str) {
        self.command("DEL", id, netns, &self.config).success();
    }

    /// Asserts that nothing is left of any pod.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert_eq!(self.netns.links(), [""; 0], "links of the host");
        assert_eq!(self.netns.routes(4), [""; 0]);
        assert_eq!(self.netns.routes(6), [""; 0]);
        self.assert_no_attachments();
        let bits: Vec<_> = self
            .ranges()
            .into_iter()
            .filter(|(_, bits)| *bits != 0)
            .collect();
        assert!(bits.is_empty(), "addresses in use: {bits:?}");
    }

    #[track_caller]
    pub fn assert_no_attachments(&self) {
        assert_eq!(files(&self.state.path().join("net/attachments")), [""; 0]);
    }

    /// How many addresses of each range are in use according to its index.
    fn ranges(&self) -> Vec<(String, u32)> {
        let folder = self.state.path().join("net/ranges");
        let count = |name: &String| {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            bytes
                .get(64..)
                .unwrap_or_default()
                .iter()
                .map(|byte| byte.count_ones())
                .sum()
        };
        files(&folder)
            .into_iter()
            .map(|name| (name.clone(), count(&name)))
            .collect()
    }
}

/// The addresses of a result, without prefix lengths.
pub fn ips(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| {
        ip["address"]
            .as_str()
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .to_owned()
    })
    .collect()
}

/// Names of the files in a folder.
pub fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{program} {args:?}: {text}");
    String::from_utf8(stdout).unwrap()
}
