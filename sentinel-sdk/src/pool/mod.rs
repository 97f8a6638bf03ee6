//! The connections of a client: how a request gets its answer.
//!
//! ```text
//! request ── permit ── connection at rest, or a new one (hello) ── frame ── answer ── connection to rest
//! ```
//!
//! Invariant: a connection has at most one request that somebody waits for, and one on which something went wrong is
//! shut for all. So the agent, which abandons the actions of a connection that closes, never leaves doors open for an
//! action that nobody knows of.

mod connection;
mod error;
mod lease;
mod patience;
mod per_process;
mod waiting;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use sentinel_proto::app::{Hello, RefusalCode, Reply, Request, RequestId, Welcome};
use sentinel_proto::{VERSION, encode_frame};
use tokio::sync::Semaphore;

pub(crate) use connection::{Connection, Progress};
pub(crate) use error::LinkError;
pub(crate) use per_process::{PerProcess, own_pid};
pub(crate) use waiting::{Deadline, Waiting, finish};

use connection::Reading;
use lease::Lease;

/// As many requests of threads wait for their answers at a time, and as many of tasks; a single agent serves them one
/// by one anyway.
const MOST_WAITING: usize = 4;
/// An agent that takes no more connections is dialled again so often.
const DIAL_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The connections of one process to one agent.
#[derive(Debug)]
pub(crate) struct Pool {
    path: PathBuf,
    /// Apart from those of tasks: a thread that waits for a permit may be the one that has to run the tasks which hold
    /// them.
    permits_of_threads: Semaphore,
    permits_of_tasks: Semaphore,
    /// The connection that was used last is the next to be used.
    at_rest: Mutex<Vec<Reading>>,
    next_request: AtomicU64,
}

impl Pool {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            permits_of_threads: Semaphore::new(MOST_WAITING),
            permits_of_tasks: Semaphore::new(MOST_WAITING),
            at_rest: Mutex::default(),
            next_request: AtomicU64::new(1),
        }
    }

    /// Closes a forked child's copies of its parent's connections, as far as that takes no waiting.
    pub(crate) fn leave_to_parent(&self) {
        match self.at_rest.try_lock() {
            Ok(mut at_rest) => at_rest.clear(),
            // They stay open, unused, until this process ends.
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => {}
        }
    }

    /// Sends a request and waits for its answer; comes with the connection that it went by.
    /// `preferred` is taken if it is at rest.
    ///
    /// # Errors
    /// There is no answer. Where the request was a `begin`, its connection is shut, so that nothing stays open.
    pub(crate) async fn ask(
        &self,
        request: impl FnOnce(RequestId) -> Request,
        preferred: Option<&Arc<Connection>>,
        waiting: Waiting,
        deadline: Deadline,
    ) -> Result<(Reply, Arc<Connection>), LinkError> {
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let request = request(number);
        let frame = encode_frame(&request).map_err(LinkError::Unwritable)?;
        loop {
            let mut lease = self.lease(preferred, waiting, deadline).await?;
            match lease.send(&frame, waiting, deadline).await {
                Ok(()) => return lease.answer(number, &request, waiting, deadline).await,
                // The agent went away while the connection was at rest, and has got no whole frame: ask the next one.
                Err(error) if !lease.is_new && error.kind() != io::ErrorKind::TimedOut => {}
                Err(error) => return Err(LinkError::of_waiting(error, deadline)),
            }
        }
    }

    /// Sends a request whose answer takes its time, on a connection of its own: it keeps no other from being asked.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn ask_apart(
        &self,
        request: impl FnOnce(RequestId) -> Request,
        waiting: Waiting,
        dialling: Deadline,
        deadline: Deadline,
    ) -> Result<Reply, LinkError> {
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let frame = encode_frame(&request(number)).map_err(LinkError::Unwritable)?;
        let mut reading = dial(&self.path, waiting, dialling).await?;
        let sent = reading.connection.send_whole(&frame, waiting, dialling).await;
        sent.map_err(|error| LinkError::of_waiting(error, dialling))?;
        reading.answer(number, waiting, deadline).await
    }

    /// A connection for one request.
    async fn lease(
        &self,
        preferred: Option<&Arc<Connection>>,
        waiting: Waiting,
        deadline: Deadline,
    ) -> Result<Lease<'_>, LinkError> {
        let on_error = |error| LinkError::of_waiting(error, deadline);
        let permits = match waiting {
            Waiting::InThread => &self.permits_of_threads,
            Waiting::InTask => &self.permits_of_tasks,
        };
        let permit = waiting.permit(permits, deadline).await.map_err(on_error)?;
        let mut busy = None;
        loop {
            if let Some(reading) = self.take(preferred) {
                return Ok(Lease::new(self, reading, permit, false));
            }
            match dial(&self.path, waiting, deadline).await {
                Ok(reading) => return Ok(Lease::new(self, reading, permit, true)),
                // Others of the session may close theirs, or one of ours may come to rest.
                Err(LinkError::Refused(refused)) if refused.code == RefusalCode::Busy => {
                    if waiting.pause(DIAL_AGAIN_AFTER, deadline).await.is_err() {
                        return Err(LinkError::Refused(refused));
                    }
                    busy = Some(refused);
                }
                // Why it was busy says more than that it was too late.
                Err(LinkError::TimedOut(patience)) => {
                    return Err(busy.map_or(LinkError::TimedOut(patience), LinkError::Refused));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&self, preferred: Option<&Arc<Connection>>) -> Option<Reading> {
        let mut at_rest = self.at_rest();
        let wanted = preferred
            .and_then(|wanted| at_rest.iter().rposition(|reading| Arc::ptr_eq(&reading.connection, wanted)));
        match wanted {
            Some(index) => Some(at_rest.remove(index)),
            None => at_rest.pop(),
        }
    }

    fn at_rest(&self) -> MutexGuard<'_, Vec<Reading>> {
        // Nothing panics while it is locked.
        self.at_rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects and says hello.
async fn dial(path: &Path, waiting: Waiting, deadline: Deadline) -> Result<Reading, LinkError> {
    let unreachable = |source| LinkError::Unreachable { path: path.to_owned(), source };
    let connection = loop {
        match Connection::open(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                waiting.pause(DIAL_AGAIN_AFTER, deadline).await.map_err(|_late| unreachable(error))?;
            }
            opened => break opened.map_err(unreachable)?,
        }
    };
    let hello =
        Hello { version: VERSION, client: concat!("sentinel-sdk ", env!("CARGO_PKG_VERSION")).to_owned() };
    let hello = encode_frame(&Request::Hello(hello)).map_err(LinkError::Unwritable)?;
    let mut reading = Reading::of(connection);
    let sent = reading.connection.send_whole(&hello, waiting, deadline).await;
    if let Err(error) = sent
        && error.kind() == io::ErrorKind::TimedOut
    {
        return Err(LinkError::TimedOut(deadline.patience));
    }
    // An agent that closes at once may have said why.
    match reading.next(waiting, deadline).await? {
        Reply::Welcome(Welcome { version: VERSION, .. }) => Ok(reading),
        Reply::Welcome(Welcome { version, .. }) => Err(LinkError::Version(version)),
        Reply::Refused(refused) => Err(LinkError::Refused(refused)),
        _ => Err(LinkError::Unexpected),
    }
}
