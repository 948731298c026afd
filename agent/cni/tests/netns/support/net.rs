//! Servers and clients.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Netns;

const PATIENCE: Duration = Duration::from_secs(2);

/// A server that says its name and whom it sees, until dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// TCP on a port of every address.
    pub fn tcp(netns: &Netns, port: u16, name: &str) -> Self {
        let listener = netns.enter(|| TcpListener::bind(("::", port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let name = name.to_owned();
        Self::start(move || {
            if let Ok((mut stream, peer)) = listener.accept() {
                drop(stream.write_all(format!("{name} {}", canonical(peer)).as_bytes()));
            }
        })
    }

    /// UDP on a port of every address.
    pub fn udp(netns: &Netns, port: u16, name: &str) -> Self {
        let socket = netns.enter(|| UdpSocket::bind(("::", port)).unwrap());
        socket.set_nonblocking(true).unwrap();
        let name = name.to_owned();
        Self::start(move || {
            if let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
                drop(socket.send_to(format!("{name} {}", canonical(peer)).as_bytes(), peer));
            }
        })
    }

    fn start(mut serve: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                serve();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn canonical(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

/// What a TCP server answers, or why it does not.
pub fn tcp(from: &Netns, to: &str) -> Result<String, String> {
    let to: SocketAddr = to.parse().unwrap();
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .map_err(|e| e.to_string())?;
        Ok(text)
    })
}

/// A UDP client that keeps its port.
pub struct UdpClient(UdpSocket);

impl UdpClient {
    pub fn new(from: &Netns, to: &str) -> Self {
        let to: SocketAddr = to.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = from.enter(|| {
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(to).unwrap();
            socket
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub fn ask(&self) -> Result<String, String> {
        self.0.send(b"?").map_err(|e| e.to_string())?;
        let mut buffer = [0; 256];
        let length = self.0.recv(&mut buffer).map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}
