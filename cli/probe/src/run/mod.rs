//! The client: runs a batch of probes side by side and repeats each until it succeeds or its
//! deadline has passed.
//!
//! Repeating is not there to hide losses (the number of attempts is part of the answer) but because
//! Kubernetes promises much of what is probed only eventually: endpoints, NodePorts, DNS records.

mod dns;
mod icmp;
mod inspect;
mod mtu;
mod tcp;
mod udp;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::wire::{Action, Answer, Batch, Probe, Problem, ProblemKind, Seen};

/// Pause after a failed attempt that came back at once.
const PAUSE: Duration = Duration::from_millis(50);

/// One attempt while links settle.
const SETTLE_ATTEMPT: Duration = Duration::from_millis(200);

/// Runs all probes of a batch and hands each answer to `answered` as it comes in.
pub fn run(batch: Batch, mut answered: impl FnMut(Answer)) {
    settle(&batch.settle, Duration::from_millis(batch.settle_ms.into()));
    let (sender, answers) = mpsc::channel();
    for probe in batch.probes {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let _ = sender.send(run_probe(&probe));
        });
    }
    drop(sender);
    for answer in answers {
        answered(answer);
    }
}

/// Waits until all hosts answer, or not: what does not answer is for the probes to find out.
fn settle(hosts: &[IpAddr], limit: Duration) {
    let deadline = Instant::now() + limit;
    std::thread::scope(|scope| {
        for host in hosts {
            scope.spawn(|| {
                while Instant::now() < deadline && icmp::echo(*host, SETTLE_ATTEMPT).is_err() {
                    std::thread::sleep(PAUSE);
                }
            });
        }
    });
}

/// Runs one probe.
#[must_use]
pub fn run_probe(probe: &Probe) -> Answer {
    let attempt = Duration::from_millis(probe.attempt_ms.max(1).into());
    let deadline = Instant::now() + Duration::from_millis(probe.deadline_ms.into());
    let mut attempts = 0;
    let mut told = None;
    loop {
        attempts += 1;
        let began = Instant::now();
        let result = perform(&probe.action, attempt);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let problem = match result {
            Ok(seen) => {
                return Answer {
                    id: probe.id,
                    attempts,
                    micros,
                    result: Ok(seen),
                };
            }
            Err(problem) => problem,
        };
        let last = final_problem(&probe.action, &problem) || Instant::now() + PAUSE >= deadline;
        // Routers limit how often they say why; silence after that is not news.
        if problem.kind != ProblemKind::Timeout || told.is_none() {
            told = Some(problem);
        }
        if last {
            let problem = told.take().expect("set above");
            return Answer {
                id: probe.id,
                attempts,
                micros,
                result: Err(problem),
            };
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether trying again cannot help. Where no particular address is expected, a name server that
/// answers has said all it will.
fn final_problem(action: &Action, problem: &Problem) -> bool {
    match (action, problem.kind) {
        (_, ProblemKind::Permission) => true,
        (Action::Dns { expect, .. }, ProblemKind::NoName | ProblemKind::ServerFailure) => {
            expect.is_empty()
        }
        _ => false,
    }
}

fn perform(action: &Action, timeout: Duration) -> Result<Seen, Problem> {
    match action {
        Action::Tcp { to, bytes } => tcp::echo(*to, *bytes, timeout).map(Seen::Echo),
        Action::Udp { to, bytes } => udp::echo(*to, *bytes, timeout).map(Seen::Echo),
        Action::DontFragment { to, size } => mtu::echo(*to, *size, timeout).map(Seen::Echo),
        Action::Icmp { to } => icmp::echo(*to, timeout).map(|()| Seen::Nothing),
        Action::Dns { name, v6, expect } => dns::lookup(name, *v6, expect, timeout),
        Action::Inspect { conf_dir } => Ok(Seen::Host(Box::new(inspect::host(conf_dir.as_ref())))),
    }
}

/// A number nobody else uses at the moment.
fn nonce() -> u64 {
    // The standard library seeds every RandomState differently; no need for a crate.
    RandomState::new().build_hasher().finish()
}

/// Has ICMP errors on the way reported at once. Otherwise the kernel keeps most of them to itself,
/// because a route may come back; that is worth less here than knowing what a router said.
fn report_icmp_errors(socket: &impl std::os::fd::AsFd, v6: bool) -> Result<(), Problem> {
    use nix::sys::socket::{setsockopt, sockopt};
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)
    } else {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)
    }
    .map_err(|e| problem("socket", &e.into()))
}

/// Names what an error of the kernel means for a packet.
fn problem(what: &str, error: &io::Error) -> Problem {
    use nix::libc;
    let kind = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => ProblemKind::Refused,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL) => {
            ProblemKind::Unreachable
        }
        Some(libc::EMSGSIZE) => ProblemKind::TooBig,
        Some(libc::ECONNRESET | libc::EPIPE) => ProblemKind::Reset,
        // Not a matter of rights: it is what a local packet filter that rejects looks like to the
        // sender, such as the one for a Service without endpoints.
        Some(libc::EPERM) => ProblemKind::Refused,
        Some(libc::EACCES) => ProblemKind::Permission,
        _ => match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ProblemKind::Timeout,
            io::ErrorKind::UnexpectedEof => ProblemKind::Reset,
            _ => ProblemKind::Other,
        },
    };
    let text = match kind {
        ProblemKind::Timeout => format!("{what}: no answer in time"),
        ProblemKind::Refused => format!("{what}: refused"),
        ProblemKind::Unreachable => format!("{what}: no route"),
        ProblemKind::Reset => format!("{what}: the connection broke"),
        _ => format!("{what}: {error}"),
    };
    Problem::new(kind, text)
}
