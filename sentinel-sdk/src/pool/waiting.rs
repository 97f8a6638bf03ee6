//! How a request waits: in a thread, or in a task of a tokio runtime.
//!
//! Invariant: a future that waits [`Waiting::InThread`] never yields, so [`finish`] brings it to its end. The protocol
//! is thus written once, and behaves the same for blocking and for async callers.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, SemaphorePermit};

const A_DAY: Duration = Duration::from_hours(24);

/// Until when to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    /// How long that is, for messages.
    pub(crate) patience: Duration,
}

impl Deadline {
    pub(crate) fn after(patience: Duration) -> Self {
        let now = Instant::now();
        // What lies beyond the clock's range is as good as a day; without that too it is late at once.
        let at = now.checked_add(patience).or_else(|| now.checked_add(A_DAY)).unwrap_or(now);
        Self { at, patience }
    }

    /// The time that is left.
    ///
    /// # Errors
    /// None is.
    pub(crate) fn left(self) -> io::Result<Duration> {
        match self.at.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

/// Where the caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Its thread is blocked meanwhile.
    InThread,
    /// Its task is, on a tokio runtime that drives I/O and time.
    InTask,
}

impl Waiting {
    /// For an async caller: in its task, or in its thread where that is no tokio runtime's.
    pub(crate) fn of_caller() -> Self {
        if tokio::runtime::Handle::try_current().is_ok() { Self::InTask } else { Self::InThread }
    }

    /// Waits until the socket can be read, or is closed. Only one may wait for a socket at a time.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] at the deadline; what the system says otherwise.
    pub(crate) async fn readable(self, socket: BorrowedFd<'_>, deadline: Deadline) -> io::Result<()> {
        let left = deadline.left()?;
        match self {
            Self::InThread => {
                // A timeout beyond what the kernel can hold is no timeout.
                let timeout = Timespec::try_from(left).ok();
                match poll(&mut [PollFd::new(&socket, PollFlags::IN)], timeout.as_ref()) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => deadline.left().map(drop),
                    Err(error) => Err(error.into()),
                }
            }
            Self::InTask => {
                // SAFETY: the borrow keeps the socket open as long as `watched` lives.
                let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
                match tokio::time::timeout(left, watched.readable()).await {
                    Ok(ready) => ready.map(drop),
                    Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
                }
            }
        }
    }

    /// Waits, after which what could not be done may be tried again.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] at the deadline.
    pub(crate) async fn pause(self, pause: Duration, deadline: Deadline) -> io::Result<()> {
        let pause = deadline.left()?.min(pause);
        match self {
            Self::InThread => std::thread::sleep(pause),
            Self::InTask => tokio::time::sleep(pause).await,
        }
        Ok(())
    }

    /// Waits for a permit. Those who wait get theirs in order.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] at the deadline.
    pub(crate) async fn permit(
        self,
        permits: &Semaphore,
        deadline: Deadline,
    ) -> io::Result<SemaphorePermit<'_>> {
        if let Ok(permit) = permits.try_acquire() {
            return Ok(permit);
        }
        let permit = match self {
            Self::InThread => park_until(permits.acquire(), deadline)?,
            Self::InTask => match tokio::time::timeout(deadline.left()?, permits.acquire()).await {
                Ok(permit) => permit,
                Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
            },
        };
        permit.map_err(|_never_closed| io::ErrorKind::NotConnected.into())
    }
}

/// Brings a future to its end that waits [`Waiting::InThread`].
pub(crate) fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => return value,
            // It never is. If it ever were, to ask again is slow, and a panic here might come while another one unwinds.
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks the thread until the future is ready.
fn park_until<T>(future: impl Future<Output = T>, deadline: Deadline) -> io::Result<T> {
    // A thread that polls a tokio task may have no budget left, and would never be given a permit.
    let mut future = pin!(tokio::task::unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return Ok(value),
            Poll::Pending => std::thread::park_timeout(deadline.left()?),
        }
    }
}
