//! Throw-away network namespaces: a node, a peer, a host outside of the cluster, and a pod.
//!
//! ```text
//!   pod 10.244.1.5 --- node .2 ---+
//!                                 | lan (bridge) 172.31.0.0/24, fd31::/64
//!   10.244.2.5 on     peer .3 ---+
//!                  outside .9 ---+
//! ```

// Each test program uses a part of it.
#![allow(dead_code, reason = "shared by several test programs")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

static COUNT: AtomicU32 = AtomicU32::new(0);

pub const NAMES: [&str; 5] = ["lan", "node", "peer", "outside", "pod"];

/// The namespaces; removed when dropped.
pub struct Lab {
    prefix: String,
}

impl Lab {
    pub fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            prefix: format!("knet{}x{count}", std::process::id()),
        };
        for name in NAMES {
            run(&format!("ip netns add {}", lab.ns(name)));
            lab.ip(name, "link set lo up");
            lab.sh(
                name,
                "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0",
            );
        }
        lab.ip("lan", "link add br0 type bridge");
        lab.ip("lan", "link set br0 up");
        for (name, last) in [("node", 2), ("peer", 3), ("outside", 9)] {
            lab.ip(
                "lan",
                &format!(
                    "link add {name} type veth peer name eth0 netns {}",
                    lab.ns(name)
                ),
            );
            lab.ip("lan", &format!("link set {name} master br0 up"));
            lab.ip(name, &format!("address add 172.31.0.{last}/24 dev eth0"));
            lab.ip(name, &format!("address add fd31::{last}/64 dev eth0 nodad"));
            lab.ip(name, "link set eth0 up");
        }
        lab.ip(
            "node",
            &format!(
                "link add pod0 type veth peer name eth0 netns {}",
                lab.ns("pod")
            ),
        );
        for (name, link, v4, v6) in [
            ("node", "pod0", "10.244.1.1/24", "fd44:1::1/64"),
            ("pod", "eth0", "10.244.1.5/24", "fd44:1::5/64"),
        ] {
            lab.ip(name, &format!("address add {v4} dev {link}"));
            lab.ip(name, &format!("address add {v6} dev {link} nodad"));
            lab.ip(name, &format!("link set {link} up"));
        }
        lab.ip("pod", "route add default via 10.244.1.1");
        lab.ip("pod", "-6 route add default via fd44:1::1");
        lab.ip("peer", "address add 10.244.2.5/32 dev lo");
        lab.ip("peer", "address add fd44:2::5/128 dev lo");
        for host in ["peer", "outside"] {
            lab.ip(host, "route add 10.244.1.0/24 via 172.31.0.2");
            lab.ip(host, "-6 route add fd44:1::/64 via fd31::2");
        }
        lab
    }

    /// Full name of a namespace.
    pub fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// `ip ARGUMENTS` in a namespace; the output.
    pub fn ip(&self, name: &str, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.ns(name)))
    }

    /// A shell command in a namespace; the output.
    pub fn sh(&self, name: &str, command: &str) -> String {
        self.within(name, || run(command))
    }

    /// Runs on a thread of its own inside a namespace.
    pub fn within<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.ns(name));
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(path).unwrap();
                    setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`Lab::within`], asynchronous.
    pub fn block_on<T: Send>(&self, name: &str, work: impl Future<Output = T> + Send) -> T {
        self.within(name, || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(work)
        })
    }

    /// Connects from one namespace to an address in another.
    pub fn flow(&self, from: &str, to: &str, address: &str) -> Flow {
        let listener = self.within(to, || TcpListener::bind((address, 0)).unwrap());
        let target = listener.local_addr().unwrap();
        let client = self.within(from, || {
            TcpStream::connect_timeout(&target, PATIENCE).unwrap()
        });
        let (server, source) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Flow {
            client,
            server,
            source: source.ip(),
        }
    }

    /// Which source address a connection from one namespace shows in another.
    pub fn source_seen(&self, from: &str, to: &str, address: &str) -> IpAddr {
        let mut flow = self.flow(from, to, address);
        flow.exchange();
        flow.source()
    }
}

/// Longer than any packet takes here, by far.
const PATIENCE: Duration = Duration::from_secs(5);

/// An established connection.
pub struct Flow {
    client: TcpStream,
    server: TcpStream,
    source: IpAddr,
}

impl Flow {
    /// The address the server sees.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// Sends something there and back.
    pub fn exchange(&mut self) {
        let mut buffer = [0; 4];
        self.client.write_all(b"ping").unwrap();
        self.server.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"ping");
        self.server.write_all(b"pong").unwrap();
        self.client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"pong");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in NAMES {
            let _ = Command::new("ip")
                .args(["netns", "delete", &self.ns(name)])
                .status();
        }
    }
}

/// A shell command that has to succeed; its output.
pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
