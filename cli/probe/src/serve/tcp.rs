//! TCP: any number of requests per connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Identity;
use crate::frame::{self, Header, MAX_BODY, MAX_HEADER, Server};

/// Connections served at a time; more are closed at once. Far above what a run opens.
const MAX_CONNECTIONS: usize = 256;

/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

pub(super) fn serve(listener: &TcpListener, identity: &Arc<Identity>) {
    let open = Arc::new(AtomicUsize::new(0));
    for connection in listener.incoming() {
        let Ok(connection) = connection else {
            // Out of file descriptors, or the peer went away: give others time to finish.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (identity, open) = (Arc::clone(identity), Arc::clone(&open));
        std::thread::spawn(move || {
            // A client that breaks off is its own affair.
            let _ = converse(connection, &identity);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn converse(connection: TcpStream, identity: &Identity) -> io::Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    connection.set_write_timeout(Some(IDLE))?;
    connection.set_nodelay(true)?;
    let peer = connection.peer_addr()?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    loop {
        let mut line = Vec::new();
        let read = reader
            .by_ref()
            .take(MAX_HEADER as u64)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let request: Header = serde_json::from_slice(&line)?;
        if request.bytes > MAX_BODY {
            return Err(io::Error::other("the body is too big"));
        }
        let mut body = vec![0; request.bytes as usize];
        reader.read_exact(&mut body)?;
        // The checksum of what arrived, not the one that was announced: the client compares.
        let mut answer = frame::line(&Header {
            nonce: request.nonce,
            bytes: request.bytes,
            sum: frame::checksum(&body),
            dont_fragment: false,
            from: Some(Server {
                peer,
                pod: identity.pod.clone(),
                node: identity.node.clone(),
            }),
        });
        answer.extend_from_slice(&body);
        writer.write_all(&answer)?;
    }
}
