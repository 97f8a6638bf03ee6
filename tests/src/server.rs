//! A real HTTP server on loopback, outside every session.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Answers each connection with a page, and counts them.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What each page holds.
pub const PAGE: &str = "Sentinel decides before an agent acts. The kernel holds it to the answer.\n";

impl Server {
    /// Listens on 127.0.0.1, on a port that was free.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Listens on this address.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("the server's address is free");
        let address = listener.local_addr().expect("a listener has an address");
        let accepted = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    accepted.fetch_add(1, Ordering::SeqCst);
                    let Ok(mut stream) = stream else { continue };
                    std::thread::spawn(move || {
                        let mut request = [0; 4096];
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
                            PAGE.len()
                        );
                        // A client that only connects, or goes away, is none of a test's business here.
                        drop(stream.set_read_timeout(Some(Duration::from_secs(5))));
                        if stream.read(&mut request).is_ok_and(|bytes| bytes > 0) {
                            drop(stream.write_all(answer.as_bytes()));
                        }
                    });
                }
            }
        });
        Self { address, accepted, stop, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have reached it. Waits until no more come: one that is established may not have been accepted yet.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        loop {
            let before = self.accepted.load(Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            if self.accepted.load(Ordering::SeqCst) == before {
                return before;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(std::net::TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
