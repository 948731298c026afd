//! Looks names up as a pod's resolver does (`resolv.conf(5)`), with a codec of the few parts of RFC
//! 1035 that takes. Not the system's resolver: that one hides which server answered what.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{problem, udp};
use crate::wire::{Problem, ProblemKind, Seen};

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const NO_ERROR: u8 = 0;
const NX_DOMAIN: u8 = 3;

pub(super) fn lookup(
    name: &str,
    v6: bool,
    expect: &[IpAddr],
    timeout: Duration,
) -> Result<Seen, Problem> {
    let other = |text: String| Problem::new(ProblemKind::Other, text);
    let text = fs_err::read_to_string("/etc/resolv.conf").map_err(|e| other(e.to_string()))?;
    let config = Config::parse(&text);
    let server = config
        .server
        .ok_or_else(|| other("/etc/resolv.conf names no name server".to_owned()))?;
    let deadline = Instant::now() + timeout;
    let kind = if v6 { TYPE_AAAA } else { TYPE_A };
    for candidate in config.candidates(name) {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = ask((server, 53).into(), &candidate, kind, left)?;
        match answer.code {
            NO_ERROR if !answer.addresses.is_empty() => {
                return compare(answer.addresses, expect, candidate, server);
            }
            NO_ERROR | NX_DOMAIN => {}
            code => {
                return Err(Problem::new(
                    ProblemKind::ServerFailure,
                    format!(
                        "name server {server} answers {} for {candidate}",
                        code_name(code)
                    ),
                ));
            }
        }
    }
    let record = if v6 { "AAAA" } else { "A" };
    Err(Problem::new(
        ProblemKind::NoName,
        format!("name server {server} knows no {record} record of {name}"),
    ))
}

fn compare(
    mut addresses: Vec<IpAddr>,
    expect: &[IpAddr],
    name: String,
    server: IpAddr,
) -> Result<Seen, Problem> {
    addresses.sort_unstable();
    addresses.dedup();
    let mut wanted = expect.to_vec();
    wanted.sort_unstable();
    if wanted.is_empty() || wanted == addresses {
        return Ok(Seen::Names {
            addresses,
            name,
            server,
        });
    }
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Err(Problem::new(
        ProblemKind::OtherAddresses,
        format!("{name} has {}", list.join(", ")),
    ))
}

fn code_name(code: u8) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        code => format!("code {code}"),
    }
}

/// What matters of `/etc/resolv.conf`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Config {
    server: Option<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Config {
    fn parse(text: &str) -> Self {
        let mut config = Self {
            ndots: 1,
            ..Self::default()
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if config.server.is_none() => {
                    config.server = words.next().and_then(|w| w.parse().ok());
                }
                Some("search") => config.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for value in words.filter_map(|w| w.strip_prefix("ndots:")) {
                        config.ndots = value.parse().unwrap_or(config.ndots);
                    }
                }
                _ => {}
            }
        }
        config
    }

    /// The names to ask for, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let listed = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let own = std::iter::once(name.to_owned());
        if name.matches('.').count() >= self.ndots {
            own.chain(listed).collect()
        } else {
            listed.chain(own).collect()
        }
    }
}

struct Reply {
    code: u8,
    truncated: bool,
    addresses: Vec<IpAddr>,
}

fn ask(server: SocketAddr, name: &str, kind: u16, timeout: Duration) -> Result<Reply, Problem> {
    let id = u16::try_from(super::nonce() & 0xffff).expect("masked");
    let query = query(id, name, kind)
        .ok_or_else(|| Problem::new(ProblemKind::Other, format!("{name} is no DNS name")))?;
    let what = format!("DNS query to {}", server.ip());
    let socket = udp::connect(server)?;
    socket.send(&query).map_err(|e| problem(&what, &e))?;
    let deadline = Instant::now() + timeout;
    let mut buffer = vec![0; 4096];
    let reply = loop {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        socket
            .set_read_timeout(Some(left))
            .map_err(|e| problem(&what, &e))?;
        let received = socket.recv(&mut buffer).map_err(|e| problem(&what, &e))?;
        if let Some(reply) = parse(&buffer[..received], id, kind) {
            break reply;
        }
    };
    if !reply.truncated {
        return Ok(reply);
    }
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    ask_tcp(server, &query, id, kind, left).map_err(|e| problem(&what, &e))
}

/// RFC 1035, section 4.2.2: two bytes of length before each message.
fn ask_tcp(
    server: SocketAddr,
    query: &[u8],
    id: u16,
    kind: u16,
    timeout: Duration,
) -> std::io::Result<Reply> {
    let mut connection = TcpStream::connect_timeout(&server, timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    let length = u16::try_from(query.len()).expect("a query is short");
    connection.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    connection.read_exact(&mut message)?;
    parse(&message, id, kind).ok_or_else(|| std::io::Error::other("an answer to something else"))
}

/// A recursive query for one record; none where the name cannot be written.
fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(name.len() + 18);
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|l| (1..64).contains(l))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    (name.len() < 254).then_some(message)
}

/// The addresses of an answer; none where the message is not an answer to this query.
fn parse(message: &[u8], id: u16, kind: u16) -> Option<Reply> {
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *message.get(at)?,
            *message.get(at + 1)?,
        ]))
    };
    if word(0)? != id || message.get(2)? & 0x80 == 0 {
        return None;
    }
    let mut reply = Reply {
        code: message.get(3)? & 0x0f,
        truncated: message.get(2)? & 0x02 != 0,
        addresses: Vec::new(),
    };
    let mut at = 12;
    for _ in 0..word(4)? {
        at = skip_name(message, at)? + 4;
    }
    for _ in 0..word(6)? {
        at = skip_name(message, at)?;
        let (found, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = message.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        // CNAMEs lead to records further down; the server follows them.
        if found != kind {
            continue;
        }
        if let Ok(v4) = <[u8; 4]>::try_from(data) {
            reply.addresses.push(Ipv4Addr::from(v4).into());
        } else if let Ok(v6) = <[u8; 16]>::try_from(data) {
            reply.addresses.push(Ipv6Addr::from(v6).into());
        }
    }
    Some(reply)
}

/// Position after a name, which may end in a pointer (section 4.1.4).
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POD: &str = "search ns.svc.cluster.local svc.cluster.local cluster.local\n\
                       nameserver 10.96.0.10\nnameserver 10.96.0.11\noptions ndots:5\n";

    #[test]
    fn few_dots_go_through_the_search_list_first() {
        let config = Config::parse(POD);
        assert_eq!(config.server, Some("10.96.0.10".parse().unwrap()));
        assert_eq!(
            config.candidates("echo"),
            [
                "echo.ns.svc.cluster.local",
                "echo.svc.cluster.local",
                "echo.cluster.local",
                "echo"
            ]
        );
        assert_eq!(config.candidates("example.org."), ["example.org"]);
        assert_eq!(config.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
    }

    #[test]
    fn an_answer_with_a_cname_and_a_pointer() {
        let mut message = query(7, "a.b", TYPE_A).unwrap();
        message[2] |= 0x80;
        message[7] = 2;
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12]);
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 0, 1]);
        let reply = parse(&message, 7, TYPE_A).unwrap();
        assert_eq!(reply.code, 0);
        assert_eq!(reply.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(parse(&message, 8, TYPE_A).is_none());
    }

    #[test]
    fn other_addresses_are_named() {
        let have = vec!["10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        let server = "10.96.0.10".parse().unwrap();
        let error = compare(
            have.clone(),
            &["10.0.0.3".parse().unwrap()],
            "n".into(),
            server,
        );
        assert_eq!(error.unwrap_err().text, "n has 10.0.0.1, 10.0.0.2");
        assert!(compare(have.clone(), &have, "n".into(), server).is_ok());
        assert!(compare(have, &[], "n".into(), server).is_ok());
    }

    #[test]
    fn a_name_that_cannot_be_written_is_not_asked_for() {
        assert!(query(1, "a..b", TYPE_A).is_none());
        assert!(query(1, &"a".repeat(64), TYPE_A).is_none());
        assert!(query(1, &vec!["a"; 200].join("."), TYPE_A).is_none());
    }

    proptest! {
        #[test]
        fn garbage_is_no_panic(mut message in proptest::collection::vec(any::<u8>(), 12..200)) {
            message[..2].copy_from_slice(&[0, 7]);
            message[2] |= 0x80;
            let _ = parse(&message, 7, TYPE_AAAA);
        }
    }
}
