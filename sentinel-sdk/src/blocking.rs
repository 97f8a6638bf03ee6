//! The connection of a thread that waits for its answers.
//!
//! Each thread has one of its own, so threads don't queue for each other. A guard keeps the one it was begun on alive: the agent takes a
//! closed connection for the death of what was begun on it. A forked child makes its own: the parent's would speak for the wrong process.

use std::cell::RefCell;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use sentinel_proto::app::{Reply, Request, RequestId};
use sentinel_proto::{FrameReader, encode_frame};

use crate::Error;
use crate::socket::{DEADLINE, cannot_connect, check_welcome, hello, path, refusal, request_of};

/// How long an answer is looked for before the thread sleeps. An agent on another CPU answers in a few microseconds; the wake-up of a
/// sleeping CPU alone costs ten times as much. With the agent on the same CPU each look yields to it.
const SPIN: Duration = Duration::from_micros(50);

thread_local! {
    static CONNECTION: RefCell<Option<Arc<Connection>>> = const { RefCell::new(None) };
}

/// A connection to the agent.
#[derive(Debug)]
pub(crate) struct Connection {
    pid: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    stream: UnixStream,
    reader: FrameReader,
    last_request: RequestId,
    /// After an error no answer can be told from another: the connection is of no use any more.
    broken: bool,
}

/// This thread's connection, made where there is none that works.
pub(crate) fn connection() -> Result<Arc<Connection>, Error> {
    CONNECTION.with_borrow_mut(|slot| {
        if let Some(connection) = slot.as_ref().filter(|connection| connection.is_usable()) {
            return Ok(Arc::clone(connection));
        }
        // A forked child closes its copy here; the parent's connection stays open.
        *slot = None;
        let connection = Arc::new(Connection::dial()?);
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    })
}

/// Asks on this thread's connection. One that the agent has closed meanwhile is made anew once, as nothing was asked on it yet.
pub(crate) fn ask(make: impl Fn(RequestId) -> Request) -> Result<(Arc<Connection>, Reply), Error> {
    let first = connection()?;
    match first.request(&make) {
        Ok(reply) => Ok((first, reply)),
        Err(Failure::NotSent(_)) => {
            let second = connection()?;
            let reply = second.request(&make).map_err(Failure::into_error)?;
            Ok((second, reply))
        }
        Err(failure) => Err(failure.into_error()),
    }
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// Nothing of the request has reached the agent.
    NotSent(std::io::Error),
    /// The agent may have it.
    Unanswered(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::NotSent(error) => cannot_connect(&error),
            Self::Unanswered(error) => error,
        }
    }
}

impl Connection {
    fn dial() -> Result<Self, Error> {
        let stream = UnixStream::connect(path()).map_err(|error| cannot_connect(&error))?;
        stream.set_write_timeout(Some(DEADLINE)).map_err(|error| cannot_connect(&error))?;
        let mut inner = Inner { stream, reader: FrameReader::new(), last_request: 0, broken: false };
        inner.send(&hello()).map_err(Failure::into_error)?;
        check_welcome(inner.receive(None)?)?;
        Ok(Self { pid: std::process::id(), inner: Mutex::new(inner) })
    }

    fn is_usable(&self) -> bool {
        self.pid == std::process::id() && !self.lock().broken
    }

    /// A panic while the lock was held can only have come from an allocation; what it left may be half an answer.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn request(&self, make: impl Fn(RequestId) -> Request) -> Result<Reply, Failure> {
        let mut inner = self.lock();
        inner.last_request += 1;
        let number = inner.last_request;
        inner.send(&make(number))?;
        match inner.receive(Some(number)).map_err(Failure::Unanswered)? {
            Reply::Refused(refused) => Err(Failure::Unanswered(refusal(&refused))),
            reply => Ok(reply),
        }
    }

    /// Says something that isn't answered. Where it can't be said, the connection is closed, which says the same.
    pub(crate) fn tell(&self, message: &Request) {
        let mut inner = self.lock();
        if inner.send(message).is_err() {
            // The agent ends what was begun here when it sees the end of the stream.
            drop(inner.stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

impl Inner {
    fn send(&mut self, message: &Request) -> Result<(), Failure> {
        let frame = encode_frame(message).map_err(|error| Failure::Unanswered(Error::invalid(error)))?;
        match self.stream.write_all(&frame) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.broken = true;
                Err(Failure::NotSent(error))
            }
        }
    }

    /// The answer to a request; to the first message, which has no number, whatever comes.
    fn receive(&mut self, number: Option<RequestId>) -> Result<Reply, Error> {
        let deadline = Instant::now() + DEADLINE;
        let result = loop {
            match self.reader.next_message::<Reply>() {
                Ok(Some(reply)) => {
                    let answers = request_of(&reply);
                    // A refusal without a number is about the whole connection.
                    if answers == number || answers.is_none() {
                        break Ok(reply);
                    }
                }
                Ok(None) => {
                    if let Err(error) = self.read(deadline) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(Error::unavailable(error)),
            }
        };
        self.broken = result.is_err();
        result
    }

    /// Takes what has come, and waits for something where nothing has.
    fn read(&mut self, deadline: Instant) -> Result<(), Error> {
        let mut buffer = [0_u8; 4096];
        let start = Instant::now();
        loop {
            match rustix::net::recv(&self.stream, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Error::unavailable("it closed the connection")),
                Ok((read, _)) => {
                    self.reader.push(&buffer[..read]);
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if start.elapsed() < SPIN => rustix::thread::sched_yield(),
                Err(Errno::AGAIN) => self.wait(deadline)?,
                Err(error) => return Err(Error::unavailable(std::io::Error::from(error))),
            }
        }
    }

    fn wait(&self, deadline: Instant) -> Result<(), Error> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::unavailable(format_args!("no answer within {} s", DEADLINE.as_secs())));
        }
        let timeout = Timespec::try_from(left).map_err(Error::unavailable)?;
        match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Error::unavailable(std::io::Error::from(error))),
        }
    }
}
