//! A body over TCP, there and back.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::problem;
use crate::frame::{self, Header, MAX_HEADER};
use crate::wire::{Echo, Problem, ProblemKind};

fn connect(to: SocketAddr, timeout: Duration) -> Result<TcpStream, Problem> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))
        .map_err(|e| problem("TCP socket", &e))?;
    super::report_icmp_errors(&socket, to.is_ipv6())?;
    socket
        .connect_timeout(&to.into(), timeout)
        .map_err(|e| problem("TCP connect", &e))?;
    Ok(socket.into())
}

pub(super) fn echo(to: SocketAddr, bytes: u32, timeout: Duration) -> Result<Echo, Problem> {
    let deadline = Instant::now() + timeout;
    let connection = connect(to, timeout)?;
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    let set_up = || {
        connection.set_read_timeout(Some(left))?;
        connection.set_write_timeout(Some(left))?;
        connection.set_nodelay(true)
    };
    set_up().map_err(|e| problem("TCP socket", &e))?;
    let local = connection
        .local_addr()
        .map_err(|e| problem("TCP socket", &e))?;

    let nonce = super::nonce();
    let body = frame::body(nonce, bytes as usize);
    let sum = frame::checksum(&body);
    let mut request = frame::line(&Header {
        nonce,
        bytes,
        sum,
        ..Header::default()
    });
    request.extend_from_slice(&body);
    let sending = format!("TCP send of {bytes} bytes");
    (&connection)
        .write_all(&request)
        .map_err(|e| problem(&sending, &e))?;

    let receiving = format!("TCP answer of {bytes} bytes");
    let mut reader = BufReader::new(&connection).take(MAX_HEADER as u64);
    let mut line = Vec::new();
    reader
        .read_until(b'\n', &mut line)
        .map_err(|e| problem(&receiving, &e))?;
    if line.is_empty() {
        return Err(Problem::new(
            ProblemKind::Reset,
            "TCP: the server closed the connection without an answer",
        ));
    }
    let corrupt = |text: &str| Problem::new(ProblemKind::Corrupt, format!("TCP: {text}"));
    let answer: Header = serde_json::from_slice(&line)
        .map_err(|_| corrupt("the answer is not from a kindnet-probe"))?;
    let from = answer
        .from
        .ok_or_else(|| corrupt("the answer does not say who answers"))?;
    if answer.nonce != nonce || answer.bytes != bytes || answer.sum != sum {
        return Err(corrupt("the body arrived changed"));
    }
    reader.set_limit(bytes.into());
    let mut back = vec![0; bytes as usize];
    reader
        .read_exact(&mut back)
        .map_err(|e| problem(&receiving, &e))?;
    if back != body {
        return Err(corrupt("the body came back changed"));
    }
    Ok(Echo {
        peer: from.peer,
        pod: from.pod,
        node: from.node,
        local,
        bytes,
    })
}
