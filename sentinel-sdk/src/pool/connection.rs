//! A connection to the agent: frames out, frames in.
//!
//! Invariant: frames never mix. Whoever sends puts whole frames behind what is already outbound; only the holder of the
//! [`Reading`] half takes bytes in. The agent takes the actions that were begun on a connection for abandoned when it
//! closes, so it is held by all who have one in flight.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, shutdown, socket_with,
};
use sentinel_proto::FrameReader;
use sentinel_proto::app::{Reply, RequestId};

use super::LinkError;
use super::patience::Patience;
use super::waiting::{Deadline, Waiting};

/// A full socket buffer is tried again so often: the agent is far behind then.
const SEND_AGAIN_AFTER: Duration = Duration::from_millis(1);
const READ_BYTES: usize = 4 * 1024;
/// A frame that is no longer is sent as one piece.
#[cfg(feature = "embedded")]
const WHOLE_BYTES: usize = 4 * 1024;

/// How far a frame got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is with the kernel, all of it.
    Sent,
    /// Some of it waits for room; see [`Connection::flush`].
    Waiting,
}

/// The half of a connection that many may hold.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    outbound: Mutex<VecDeque<u8>>,
    is_lost: AtomicBool,
}

impl Connection {
    /// Connects, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where the agent is behind with accepting; else there is none.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket, outbound: Mutex::default(), is_lost: AtomicBool::new(false) })
    }

    /// Sends a frame behind what is outbound, as far as there is room.
    ///
    /// # Errors
    /// The connection is lost, and the agent has not got the whole frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<Progress> {
        let mut outbound = self.outbound();
        if !outbound.is_empty() {
            outbound.extend(frame);
            return self.send_outbound(&mut outbound);
        }
        match self.write(frame) {
            Ok(sent) if sent == frame.len() => Ok(Progress::Sent),
            Ok(sent) => {
                outbound.extend(frame.get(sent..).unwrap_or_default());
                Ok(Progress::Waiting)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a frame, if there is room for all of it now. False: nothing was sent, or it can't be known.
    #[cfg(feature = "embedded")]
    pub(crate) fn send_at_once(&self, frame: &[u8]) -> bool {
        let outbound = self.outbound();
        // The kernel takes what is so short whole or not at all.
        outbound.is_empty()
            && frame.len() <= WHOLE_BYTES
            && self.write(frame).is_ok_and(|sent| sent == frame.len())
    }

    /// Sends what is outbound, as far as there is room.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) fn flush(&self) -> io::Result<Progress> {
        self.send_outbound(&mut self.outbound())
    }

    /// Sends a frame, and waits until the kernel has all of it.
    ///
    /// # Errors
    /// The connection is lost, or takes nothing until the deadline.
    pub(crate) async fn send_whole(
        &self,
        frame: &[u8],
        waiting: Waiting,
        deadline: Deadline,
    ) -> io::Result<()> {
        let mut progress = self.send(frame)?;
        while progress == Progress::Waiting {
            waiting.pause(SEND_AGAIN_AFTER, deadline).await?;
            progress = self.flush()?;
        }
        Ok(())
    }

    /// Ends the connection for all who hold it: the agent abandons the actions that were begun on it, and shuts their
    /// doors.
    pub(crate) fn shut(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
        // One that is no longer connected needs no shutting.
        let _already_closed = shutdown(&self.socket, Shutdown::Both);
    }

    /// Whether it was shut from this side.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    fn outbound(&self) -> MutexGuard<'_, VecDeque<u8>> {
        // Nothing panics while it is locked.
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_outbound(&self, outbound: &mut VecDeque<u8>) -> io::Result<Progress> {
        while !outbound.is_empty() {
            match self.write(outbound.as_slices().0)? {
                0 => return Ok(Progress::Waiting),
                sent => drop(outbound.drain(..sent)),
            }
        }
        Ok(Progress::Sent)
    }

    /// Writes what there is room for, maybe nothing.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The half of a connection that one at a time holds.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) connection: Arc<Connection>,
    frames: FrameReader,
    /// Requests whose answers nobody waits for any more.
    forgotten: Vec<RequestId>,
    patience: Patience,
}

impl Reading {
    pub(crate) fn of(connection: Connection) -> Self {
        Self {
            connection: Arc::new(connection),
            frames: FrameReader::new(),
            forgotten: Vec::new(),
            patience: Patience::default(),
        }
    }

    /// Lets the answer to this request be skipped when it comes.
    pub(crate) fn forget(&mut self, request: RequestId) {
        self.forgotten.push(request);
    }

    /// The answer to this request.
    ///
    /// # Errors
    /// None has come until the deadline, the connection is lost, or what came makes no sense.
    pub(crate) async fn answer(
        &mut self,
        request: RequestId,
        waiting: Waiting,
        deadline: Deadline,
    ) -> Result<Reply, LinkError> {
        loop {
            let reply = self.next(waiting, deadline).await?;
            match (request_of(&reply), reply) {
                (Some(answered), reply) if answered == request => return Ok(reply),
                (Some(answered), _) if self.forgotten.contains(&answered) => {
                    self.forgotten.retain(|forgotten| *forgotten != answered);
                }
                (None, Reply::Refused(refused)) => return Err(LinkError::Refused(refused)),
                _ => return Err(LinkError::Unexpected),
            }
        }
    }

    /// The next message, whatever it is.
    ///
    /// # Errors
    /// As [`Reading::answer`].
    pub(crate) async fn next(&mut self, waiting: Waiting, deadline: Deadline) -> Result<Reply, LinkError> {
        loop {
            if let Some(reply) = self.frames.next_message()? {
                return Ok(reply);
            }
            // Who sleeps for this one anyway doesn't look first.
            let sleeps = waiting == Waiting::InThread && self.patience.is_at_an_end();
            if !sleeps && self.receive()? {
                continue;
            }
            if waiting == Waiting::InThread && self.patience.lasts(Instant::now) {
                rustix::thread::sched_yield();
                continue;
            }
            waiting.readable(self.connection.socket.as_fd(), deadline).await.map_err(|error| {
                if error.kind() == io::ErrorKind::TimedOut {
                    LinkError::TimedOut(deadline.patience)
                } else {
                    LinkError::Lost(error)
                }
            })?;
            self.receive()?;
        }
    }

    /// Takes in what is there; false where nothing is.
    fn receive(&mut self) -> Result<bool, LinkError> {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        match recv(&self.connection.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(LinkError::Lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(((received, _), _)) => {
                self.patience.is_rewarded();
                self.frames.push(received);
                Ok(true)
            }
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(LinkError::Lost(error.into())),
        }
    }
}

/// The request that a message answers, if it says so.
fn request_of(reply: &Reply) -> Option<RequestId> {
    match reply {
        Reply::Welcome(_) => None,
        Reply::Decision(answer) => Some(answer.request),
        Reply::Approval(answer) => Some(answer.request),
        Reply::Ended(ended) => Some(ended.request),
        Reply::Denials(denials) => Some(denials.request),
        Reply::Totals(totals) => Some(totals.request),
        Reply::Refused(refused) => refused.request,
    }
}
