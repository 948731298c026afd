//! The probe against itself on loopback.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};

use kindnet_probe::run::run_probe;
use kindnet_probe::serve::{Identity, Listener};
use kindnet_probe::wire::{Action, Answer, Batch, Echo, Probe, ProblemKind, Seen};
use rstest::rstest;

fn server() -> u16 {
    let listener = Listener::bind(0).unwrap();
    let port = listener.port().unwrap();
    listener.start(Identity {
        pod: "pod-a".into(),
        node: "node-a".into(),
    });
    port
}

fn probe(action: Action) -> Probe {
    Probe {
        id: 1,
        attempt_ms: 500,
        deadline_ms: 500,
        action,
    }
}

fn echo(answer: Answer) -> Echo {
    match answer.result {
        Ok(Seen::Echo(echo)) => echo,
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::v4(Ipv4Addr::LOCALHOST.into())]
#[case::v6(Ipv6Addr::LOCALHOST.into())]
fn bodies_come_back_and_the_server_says_whom_it_saw(#[case] ip: IpAddr) {
    let to = SocketAddr::new(ip, server());
    for action in [
        Action::Tcp { to, bytes: 65536 },
        Action::Tcp { to, bytes: 0 },
        Action::Udp { to, bytes: 1000 },
        Action::DontFragment { to, size: None },
        Action::DontFragment {
            to,
            size: Some(1280),
        },
    ] {
        let seen = echo(run_probe(&probe(action.clone())));
        assert_eq!((seen.pod.as_str(), seen.node.as_str()), ("pod-a", "node-a"));
        assert_eq!(seen.peer, seen.local, "{action:?}");
        assert_eq!(seen.peer.ip(), ip);
        match action {
            Action::Tcp { bytes, .. } | Action::Udp { bytes, .. } => assert_eq!(seen.bytes, bytes),
            Action::DontFragment { size, .. } => {
                // The MTU of loopback is one more than a packet may have.
                assert_eq!(seen.bytes, size.unwrap_or(65535));
            }
            _ => {}
        }
    }
}

/// `ptp` gives every host several addresses; the answer has to come from the one that was asked.
#[test]
fn udp_answers_come_from_the_address_that_was_asked() {
    let to = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 77).into(), server());
    let seen = echo(run_probe(&probe(Action::Udp { to, bytes: 300 })));
    assert_eq!(seen.bytes, 300);
}

#[test]
fn a_closed_port_is_refused_and_tried_again_until_the_deadline() {
    let listener = Listener::bind(0).unwrap();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.port().unwrap());
    drop(listener);
    for action in [Action::Tcp { to, bytes: 1 }, Action::Udp { to, bytes: 200 }] {
        let answer = run_probe(&probe(action));
        assert_eq!(answer.result.unwrap_err().kind, ProblemKind::Refused);
        assert!(answer.attempts > 1);
    }
}

#[test]
fn the_binary_answers_each_probe_and_says_when_it_is_done() {
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server());
    let batch = Batch {
        probes: (0..20)
            .map(|id| Probe {
                id,
                ..probe(Action::Tcp { to, bytes: 100 })
            })
            .collect(),
        ..Batch::default()
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_kindnet-probe"))
        .arg("run")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Standard input stays open, as it does over an old exec protocol.
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", serde_json::to_string(&batch).unwrap()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let answers: Vec<Answer> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 21);
    assert_eq!(answers[20], Answer::end());
    let mut ids: Vec<_> = answers[..20].iter().map(|a| a.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());
    assert!(answers[..20].iter().all(|a| a.result.is_ok()));
}

#[test]
fn serve_ends_at_once_on_sigterm() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kindnet-probe"))
        .args(["serve", "--port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    assert!(line.starts_with("listening on port "));
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}
