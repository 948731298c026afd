//! The server: answers whatever reaches its port over TCP and UDP, and says what it saw.

mod tcp;
mod udp;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

/// Who serves.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Name of the pod.
    pub pod: String,
    /// Name of the node.
    pub node: String,
}

/// A server whose sockets are bound.
pub struct Listener {
    tcp: Vec<std::net::TcpListener>,
    udp: Vec<std::net::UdpSocket>,
}

impl Listener {
    /// Binds a port in every family the host has; port 0 picks one that is free in all of them.
    ///
    /// # Errors
    /// The port is taken in some family, or no family works.
    pub fn bind(port: u16) -> io::Result<Self> {
        let mut bound = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
        };
        let mut port = port;
        for any in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            let at = SocketAddr::new(any, port);
            let tcp = match socket(at, Type::STREAM, Protocol::TCP) {
                Ok(socket) => socket,
                Err(error) if family_missing(&error) => continue,
                Err(error) => return Err(error),
            };
            tcp.listen(128)?;
            let tcp = std::net::TcpListener::from(tcp);
            port = tcp.local_addr()?.port();
            let at = SocketAddr::new(any, port);
            let udp = socket(at, Type::DGRAM, Protocol::UDP)?;
            udp::prepare(&udp, at.is_ipv6())?;
            bound.tcp.push(tcp);
            bound.udp.push(udp.into());
        }
        if bound.tcp.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "neither IPv4 nor IPv6 is available",
            ));
        }
        Ok(bound)
    }

    /// The port.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn port(&self) -> io::Result<u16> {
        self.tcp[0].local_addr().map(|at| at.port())
    }

    /// Serves in threads of its own, for as long as the process lives.
    pub fn start(self, identity: Identity) {
        let identity = Arc::new(identity);
        for listener in self.tcp {
            let identity = Arc::clone(&identity);
            std::thread::spawn(move || tcp::serve(&listener, &identity));
        }
        for socket in self.udp {
            let identity = Arc::clone(&identity);
            std::thread::spawn(move || udp::serve(&socket, &identity));
        }
    }
}

fn socket(at: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

/// IPv6 switched off at boot, or by sysctl in this network namespace.
fn family_missing(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}
