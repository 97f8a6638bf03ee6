//! The control: the same attempts, from outside every session, all the while. If one of them failed, a refusal inside would prove nothing.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Attempts outside, again and again until it is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    state: Arc<State>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// How the attempts outside went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

impl Control {
    /// Begins to connect to these servers, and to execute `/bin/true`.
    pub(crate) fn start(servers: Vec<SocketAddr>) -> Self {
        let state = Arc::new(State::default());
        let thread = std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                while !state.stop.load(Ordering::SeqCst) {
                    for server in &servers {
                        state.count(TcpStream::connect_timeout(server, Duration::from_secs(3)).is_ok());
                    }
                    state.count(Command::new("/bin/true").status().is_ok_and(|status| status.success()));
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { state, thread: Some(thread) }
    }

    /// So far.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            succeeded: self.state.succeeded.load(Ordering::SeqCst),
            failed: self.state.failed.load(Ordering::SeqCst),
        }
    }

    /// Waits until each attempt was made at least once more.
    pub(crate) fn wait_for_a_round(&self) {
        let before = self.tally();
        while self.tally().succeeded + self.tally().failed < before.succeeded + before.failed + 6 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl State {
    fn count(&self, succeeded: bool) {
        let counter = if succeeded { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
