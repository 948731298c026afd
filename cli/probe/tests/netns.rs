//! The probe across network namespaces: client - router - server, over veth pairs whose MTU the
//! tests choose. Everything lives in namespaces made here and goes with them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};

use kindnet_probe::wire::{Action, Answer, Batch, Probe, ProblemKind, Seen};
use rstest::rstest;

/// A network namespace, held open by a process that does nothing.
struct Netns(Child);

impl Netns {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "--", "sleep", "60"])
            .spawn()
            .unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", child.id());
        let began = std::time::Instant::now();
        while std::fs::read_link(&path).ok().is_none_or(|ns| ns == own) {
            assert!(began.elapsed().as_secs() < 5, "no namespace");
            std::thread::yield_now();
        }
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// As `ip netns exec` does: /sys shows the links of the namespace it was mounted in.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--net",
                "--target",
                &self.pid(),
                "--",
                "unshare",
                "--mount",
                "sh",
                "-ec",
            ])
            .arg("mount -t sysfs sysfs /sys; exec \"$0\" \"$@\"")
            .arg(program);
        command
    }

    fn sh(&self, script: &str) {
        let status = self.command("sh").args(["-ec", script]).status().unwrap();
        assert!(status.success(), "{script}");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Path {
    client: Netns,
    router: Netns,
    _server: Netns,
    serve: Child,
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = self.serve.kill();
        let _ = self.serve.wait();
    }
}

const PORT: u16 = 7100;

/// 10.1.0.2/fd01::2 - router - 10.2.0.2/fd02::2; the far link has the given MTU on both ends.
fn path(far_mtu: u32) -> Path {
    let (client, router, server) = (Netns::new(), Netns::new(), Netns::new());
    let (c, s) = (client.pid(), server.pid());
    // A router asks for neighbours from its link-local address, which duplicate address detection
    // holds back for a second or two.
    for netns in [&client, &router, &server] {
        netns.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
    }
    router.sh(&format!(
        "ip link add near type veth peer name eth0 netns {c}
         ip link add far mtu {far_mtu} type veth peer name eth0 mtu {far_mtu} netns {s}
         ip addr add 10.1.0.1/24 dev near; ip -6 addr add fd01::1/64 dev near nodad
         ip addr add 10.2.0.1/24 dev far; ip -6 addr add fd02::1/64 dev far nodad
         ip link set near up; ip link set far up
         echo 1 > /proc/sys/net/ipv4/ip_forward
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
    ));
    for (netns, n) in [(&client, 1), (&server, 2)] {
        netns.sh(&format!(
            "ip link set lo up
             ip addr add 10.{n}.0.2/24 dev eth0; ip -6 addr add fd0{n}::2/64 dev eth0 nodad
             ip link set eth0 up
             ip route add default via 10.{n}.0.1; ip -6 route add default via fd0{n}::1"
        ));
    }
    let mut serve = server
        .command(env!("CARGO_BIN_EXE_kindnet-probe"))
        .args(["serve", "--port", &PORT.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = serve.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    Path {
        client,
        router,
        _server: server,
        serve,
    }
}

fn run(netns: &Netns, actions: &[Action]) -> Vec<Answer> {
    let probes = (0..)
        .zip(actions)
        .map(|(id, action)| Probe {
            id,
            attempt_ms: 400,
            deadline_ms: 1200,
            action: action.clone(),
        })
        .collect();
    let mut child = netns
        .command(env!("CARGO_BIN_EXE_kindnet-probe"))
        .arg("run")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let batch = serde_json::to_string(&Batch {
        probes,
        ..Batch::default()
    })
    .unwrap();
    writeln!(child.stdin.take().unwrap(), "{batch}").unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let mut answers: Vec<Answer> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.pop(), Some(Answer::end()));
    answers.sort_by_key(|a| a.id);
    answers
}

fn server(v6: bool) -> SocketAddr {
    let ip: IpAddr = if v6 { "fd02::2" } else { "10.2.0.2" }.parse().unwrap();
    SocketAddr::new(ip, PORT)
}

#[rstest]
#[ignore = "needs root"]
fn everything_passes_on_a_healthy_path(#[values(false, true)] v6: bool) {
    let path = path(1500);
    let to = server(v6);
    let answers = run(
        &path.client,
        &[
            Action::Icmp { to: to.ip() },
            Action::Tcp { to, bytes: 65536 },
            Action::Udp { to, bytes: 300 },
            Action::DontFragment { to, size: None },
        ],
    );
    assert!(answers.iter().all(|a| a.result.is_ok()), "{answers:?}");
    match &answers[3].result {
        Ok(Seen::Echo(echo)) => assert_eq!(echo.bytes, 1500),
        other => panic!("{other:?}"),
    }
}

/// The router says so: ICMP "fragmentation needed" and "packet too big".
#[rstest]
#[ignore = "needs root"]
fn a_smaller_link_on_the_way_fails_the_full_packet_only(#[values(false, true)] v6: bool) {
    let path = path(1400);
    let to = server(v6);
    let answers = run(
        &path.client,
        &[
            Action::DontFragment { to, size: None },
            Action::DontFragment {
                to,
                size: Some(1400),
            },
            Action::DontFragment {
                to,
                size: Some(1401),
            },
            Action::Tcp { to, bytes: 65536 },
        ],
    );
    let failed = answers[0].result.as_ref().unwrap_err();
    assert_eq!(failed.kind, ProblemKind::TooBig, "{failed}");
    assert!(failed.text.contains("1500"), "{failed}");
    if !v6 {
        assert_eq!(failed.mtu, Some(1400));
    }
    assert!(answers[1].result.is_ok(), "{:?}", answers[1]);
    assert!(answers[2].result.is_err());
    // TCP learns the MTU of the path and is fine.
    assert!(answers[3].result.is_ok(), "{:?}", answers[3]);
}

/// Nobody says so: the router drops big packets and keeps quiet about it.
#[rstest]
#[ignore = "needs root"]
fn a_black_hole_is_a_timeout(#[values(false, true)] v6: bool) {
    let path = path(1500);
    path.router.sh("nft add table inet t
         nft add chain inet t f '{ type filter hook forward priority 0; }'
         nft add rule inet t f meta length gt 1400 drop");
    let to = server(v6);
    let answers = run(
        &path.client,
        &[
            Action::DontFragment { to, size: None },
            Action::DontFragment {
                to,
                size: Some(1400),
            },
            Action::Tcp { to, bytes: 65536 },
            Action::Tcp { to, bytes: 100 },
        ],
    );
    let kinds: Vec<_> = answers
        .iter()
        .map(|a| a.result.as_ref().err().map(|p| p.kind))
        .collect();
    let timeout = Some(ProblemKind::Timeout);
    assert_eq!(kinds, [timeout, None, timeout, None]);
}

#[rstest]
#[ignore = "needs root"]
fn no_route_and_no_answer_are_told_apart(#[values(false, true)] v6: bool) {
    let path = path(1500);
    let to = server(v6);
    let (family, far) = if v6 {
        ("-6", "fd02::/64")
    } else {
        ("-4", "10.2.0.0/24")
    };
    path.router
        .sh(&format!("ip {family} route add unreachable {far} metric 1"));
    path.router
        .sh(&format!("ip {family} route del {far} dev far"));
    let answers = run(
        &path.client,
        &[Action::Icmp { to: to.ip() }, Action::Tcp { to, bytes: 1 }],
    );
    for answer in answers {
        let problem = answer.result.unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Unreachable, "{problem}");
    }
}

#[test]
#[ignore = "needs root"]
fn translated_sources_are_seen() {
    let path = path(1500);
    path.router.sh("nft add table ip t
         nft add chain ip t p '{ type nat hook postrouting priority 100; }'
         nft add rule ip t p oifname far masquerade");
    let to = server(false);
    let answers = run(&path.client, &[Action::Tcp { to, bytes: 1 }]);
    match &answers[0].result {
        Ok(Seen::Echo(echo)) => {
            assert_eq!(echo.local.ip(), "10.1.0.2".parse::<IpAddr>().unwrap());
            assert_eq!(echo.peer.ip(), "10.2.0.1".parse::<IpAddr>().unwrap());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs root"]
fn the_routes_of_a_namespace_are_reported() {
    let path = path(1400);
    let answers = run(
        &path.router,
        &[Action::Inspect {
            conf_dir: "/nonexistent".into(),
        }],
    );
    let Ok(Seen::Host(view)) = &answers[0].result else {
        panic!("{answers:?}");
    };
    for (to, dev) in [("10.1.0.9", "near"), ("fd02::9", "far")] {
        let route = view.route_to(to.parse().unwrap()).unwrap();
        assert_eq!(route.dev, dev);
    }
    assert!(view.forwarding_v4 && view.forwarding_v6);
    assert!(view.route_to("10.9.0.1".parse().unwrap()).is_none());
}
