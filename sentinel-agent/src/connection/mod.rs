//! A connection: frames in, frames out.
//!
//! Invariant: whatever a peer sends or doesn't, it costs others nothing: one frame's bytes and [`MOST_WAITING`]
//! messages are kept for it, [`MOST_OUTBOUND_BYTES`] of answers, and what it has to finish has a deadline.

mod patience;
mod reading;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{SendFlags, send};
use sentinel_proto::app::{RefusalCode, Refused, RequestId};
use sentinel_proto::{SessionId, admin, app, encode_frame};
use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::since_boot;
use crate::daemon::{LoadedPolicy, PoliciesError};
use crate::driver::NameArrival;
use crate::enforcer::Mark;
use crate::intake::{Intake, Lane};
use crate::peer::{Opener, Sender};
use crate::watch;
use reading::{Progress, Reading};

/// From its start on, a connection has so long to say hello.
pub const HELLO_TIME: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5_000 });
/// From its first byte on, a frame has so long to be whole; and the last answer to be taken.
pub const FRAME_TIME: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 10_000 });
/// A connection's messages that wait for the driver; it isn't read meanwhile.
pub const MOST_WAITING: usize = 16;
/// Answers that a peer has not taken; one that lets more pile up is closed.
pub const MOST_OUTBOUND_BYTES: usize = 256 * 1024;

/// Which socket it came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `agent.sock`.
    Application,
    /// `admin.sock`.
    Operator,
}

/// A whole message.
#[derive(Debug)]
pub enum Message {
    /// Of an application.
    Application(app::Request),
    /// Of an operator, with the descriptor that came along.
    Operator(admin::Request, Option<OwnedFd>),
}

/// What connections bring to the driver.
#[derive(Debug)]
pub enum Arrival {
    /// A message.
    Message {
        /// On which connection.
        connection: Rc<Connection>,
        /// Who the kernel says wrote it.
        sender: Sender,
        /// After when it was written: nothing was there to read then (CLOCK_BOOTTIME).
        since: Duration,
        /// It.
        message: Message,
    },
    /// A connection is over, and everything that it had to say has been handled.
    Closed(Rc<Connection>),
    /// A process with actions is over.
    ProcessGone {
        /// Its pid.
        pid: u32,
        /// When its mark was made: a later process with that pid is another.
        marked_at: Duration,
    },
    /// The resolver asks or tells something.
    Name(Box<NameArrival>),
    /// A session was killed a moment ago: are its processes gone?
    SessionKilled(SessionId),
    /// The policies were read anew.
    PoliciesRead {
        /// What was read, or all that is wrong.
        read: Result<BTreeMap<String, LoadedPolicy>, PoliciesError>,
        /// Who asked, by which request and as which uid; none: a signal.
        asked: Option<(Rc<Connection>, RequestId, u32)>,
    },
}

/// The driver's side of a connection.
#[derive(Debug)]
pub struct Connection {
    /// Its number, never used again.
    pub id: u64,
    /// Which socket it came in by.
    pub door: Door,
    /// The process that opened it.
    pub opener: Opener,
    socket: AsyncFd<OwnedFd>,
    lane: Cell<Option<Lane>>,
    opener_mark: Cell<Option<Mark>>,
    waiting: Cell<usize>,
    outbound: RefCell<VecDeque<u8>>,
    is_closing: Cell<bool>,
    is_broken: Cell<bool>,
    changed: Notify,
}

impl Connection {
    /// A connection that was just accepted.
    ///
    /// # Errors
    /// The kernel doesn't say who opened it, or it can't be watched.
    pub fn new(id: u64, door: Door, socket: OwnedFd) -> io::Result<Rc<Self>> {
        let opener = Opener::of(socket.as_fd())?;
        Ok(Rc::new(Self {
            id,
            door,
            opener,
            socket: watch::readable(socket)?,
            lane: Cell::new(None),
            opener_mark: Cell::new(None),
            waiting: Cell::new(0),
            outbound: RefCell::default(),
            is_closing: Cell::new(false),
            is_broken: Cell::new(false),
            changed: Notify::new(),
        }))
    }

    /// The lane of its messages, once its hello was answered.
    #[must_use]
    pub fn lane(&self) -> Option<Lane> {
        self.lane.get()
    }

    /// The mark of the process that opened it, once it was looked up; it stays the same as long as that process lives.
    #[must_use]
    pub fn opener_mark(&self) -> Option<Mark> {
        self.opener_mark.get()
    }

    /// Remembers the mark of the process that opened it.
    pub fn know_opener(&self, mark: Mark) {
        self.opener_mark.set(Some(mark));
    }

    /// Lets the conversation begin: its messages go to this lane from now on.
    pub fn greet(&self, lane: Lane) {
        self.lane.set(Some(lane));
        self.changed.notify_one();
    }

    /// Says that the driver has handled one of its messages, so that more may be read.
    pub fn handled(&self) {
        let waiting = self.waiting.get();
        self.waiting.set(waiting.saturating_sub(1));
        if waiting == 1 || waiting >= MOST_WAITING {
            self.changed.notify_one();
        }
    }

    /// Sends a message, at once if the peer takes it. One that can't be sent ends the connection.
    pub fn send<T: Serialize>(&self, message: &T) {
        let frame = match encode_frame(message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(connection = self.id, %error, "an answer could not be written; closing");
                return self.break_off();
            }
        };
        let mut outbound = self.outbound.borrow_mut();
        let mut rest = frame.as_slice();
        if outbound.is_empty() {
            match self.write(rest) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_peer_gone) => return self.break_off(),
            }
        }
        if rest.is_empty() {
            return;
        }
        if outbound.len().saturating_add(rest.len()) > MOST_OUTBOUND_BYTES {
            tracing::info!(pid = self.opener.sender.pid, "a peer doesn't take its answers; closing");
            return self.break_off();
        }
        outbound.extend(rest);
        self.changed.notify_one();
    }

    /// Refuses a message. Without a request number, or where no conversation has begun, the connection ends.
    pub fn refuse(&self, request: Option<RequestId>, code: RefusalCode, message: impl Into<String>) {
        let refused = Refused { request, code, message: message.into() };
        match self.door {
            Door::Application => self.send(&app::Reply::Refused(refused)),
            Door::Operator => self.send(&admin::Reply::Refused(refused)),
        }
        if request.is_none() || self.lane.get().is_none() {
            self.close();
        }
    }

    /// Ends the connection when what is outbound has been taken.
    pub fn close(&self) {
        self.is_closing.set(true);
        self.changed.notify_one();
    }

    fn break_off(&self) {
        self.is_broken.set(true);
        self.changed.notify_one();
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.socket.get_ref(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    /// Writes what is outbound, as far as the peer takes it.
    fn flush(&self) -> io::Result<()> {
        let mut outbound = self.outbound.borrow_mut();
        while !outbound.is_empty() {
            let (first, _) = outbound.as_slices();
            let sent = self.write(first)?;
            outbound.drain(..sent);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.is_broken.get() || (self.is_closing.get() && self.outbound.borrow().is_empty())
    }
}

/// Serves a connection until it is over: messages go to the intake, answers to the peer. `buffer` is for the bytes of
/// one read, and shared. `on_greeted` is dropped when the hello was answered, or at the end.
pub async fn serve<G>(
    connection: Rc<Connection>,
    intake: Rc<Intake<Arrival>>,
    buffer: Rc<RefCell<Box<[u8]>>>,
    on_greeted: G,
) {
    let opened = Instant::now();
    let mut reading = Reading::new(since_boot());
    let mut stranger = Some(on_greeted);
    let mut closing_since = None;
    while !connection.is_over() {
        reading.deliver(&connection, &intake);
        if connection.lane.get().is_some() {
            stranger = None;
        }
        let is_closing = connection.is_closing.get();
        let due = if is_closing {
            Some(*closing_since.get_or_insert_with(Instant::now) + FRAME_TIME)
        } else if connection.lane.get().is_none() {
            Some(opened + HELLO_TIME)
        } else {
            reading.begun_at().map(|begun| begun + FRAME_TIME)
        };
        let wants_more = !is_closing && reading.wants_more(&connection);
        let has_outbound = !connection.outbound.borrow().is_empty();
        tokio::select! {
            biased;
            ready = connection.socket.readable(), if wants_more => match ready {
                Ok(mut guard) => match reading.read(&connection, &mut buffer.borrow_mut()) {
                    Progress::More => {}
                    // Whoever was just answered gets the processor; but not while others wait for an answer.
                    Progress::Soon if intake.is_empty() => rustix::thread::sched_yield(),
                    Progress::Soon | Progress::Drained => guard.clear_ready(),
                },
                Err(_runtime_gone) => break,
            },
            ready = watch::writable(connection.socket.get_ref().as_fd()), if has_outbound => match ready {
                Ok(()) => match connection.flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                    // Where it is full again it is waited for anew.
                    _ => {}
                },
                Err(error) => {
                    tracing::error!(connection = connection.id, %error, "a peer's answers can't be kept for it; closing");
                    break;
                }
            },
            () = connection.changed.notified() => {}
            () = until(due), if due.is_some() => {
                if is_closing {
                    break;
                }
                let late = if connection.lane.get().is_none() {
                    format!("no hello within {} s", HELLO_TIME.as_secs())
                } else {
                    format!("a frame was not whole within {} s", FRAME_TIME.as_secs())
                };
                connection.refuse(None, RefusalCode::Malformed, late);
            }
        }
    }
    drop(stranger);
    connection.is_broken.set(true);
    let lane = match (connection.lane.get(), connection.door) {
        (Some(lane), _) => lane,
        (None, door) => first_lane(door),
    };
    intake.push(lane, Arrival::Closed(connection));
}

/// Waits until it is due.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The lane of a hello.
const fn first_lane(door: Door) -> Lane {
    match door {
        Door::Application => Lane::Strangers,
        Door::Operator => Lane::Host,
    }
}
