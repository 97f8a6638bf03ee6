//! The inbound half of a connection: from bytes with senders to messages with senders.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use sentinel_proto::app::RefusalCode;
use sentinel_proto::{FrameError, FrameReader, VERSION, admin, app};
use tokio::time::Instant;

use super::patience::Patience;
use super::{Arrival, Connection, Door, MOST_WAITING, Message, first_lane};
use crate::clock::since_boot;
use crate::intake::Intake;
use crate::peer::{ReceiveError, Sender, receive};

/// A reader that has held more than this is replaced, so that its memory is given back.
const KEPT_BYTES: usize = 64 * 1024;

/// What has been read of a connection and not been handed on.
#[derive(Debug)]
pub(super) struct Reading {
    /// When nothing more was there to read, last: what came since was written since.
    drained_at: Duration,
    /// That time for the bytes in `frames`.
    since: Duration,
    frames: FrameReader,
    /// Who wrote the bytes in `frames`.
    sender: Option<Sender>,
    /// A descriptor that came with them.
    descriptor: Option<OwnedFd>,
    /// Since when a frame has been incomplete.
    begun_at: Option<Instant>,
    /// Whether whole frames may be left in `frames`.
    has_whole: bool,
    has_greeted: bool,
    most_held: usize,
    patience: Patience,
}

/// What a read has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be more.
    More,
    /// There is nothing now, but there will be soon.
    Soon,
    /// There is nothing more for now.
    Drained,
}

impl Reading {
    /// Of a connection from which nothing was there to read before `opened`.
    pub(super) fn new(opened: Duration) -> Self {
        Self {
            drained_at: opened,
            since: opened,
            frames: FrameReader::new(),
            sender: None,
            descriptor: None,
            begun_at: None,
            has_whole: false,
            has_greeted: false,
            most_held: 0,
            patience: Patience::default(),
        }
    }

    /// Since when a frame has been incomplete, if one is.
    pub(super) const fn begun_at(&self) -> Option<Instant> {
        self.begun_at
    }

    /// Whether more bytes should be read now: when the driver has handled what it was given. By then the next message
    /// has often come, and is found without a wait.
    pub(super) fn wants_more(&self, connection: &Connection) -> bool {
        !self.has_whole && connection.waiting.get() == 0 && self.may_deliver(connection)
    }

    fn may_deliver(&self, connection: &Connection) -> bool {
        let is_answered = !self.has_greeted || connection.lane().is_some();
        is_answered && connection.waiting.get() < MOST_WAITING && !connection.is_closing.get()
    }

    /// Reads once.
    pub(super) fn read(&mut self, connection: &Rc<Connection>, buffer: &mut [u8]) -> Progress {
        let takes_descriptor = connection.door == Door::Operator;
        let received = match receive(connection.socket.get_ref().as_fd(), buffer, takes_descriptor) {
            Ok(received) => received,
            Err(ReceiveError::System(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.drained_at = since_boot();
                return if self.patience.lasts(self.drained_at) { Progress::Soon } else { Progress::Drained };
            }
            Err(ReceiveError::System(error)) if error.kind() == io::ErrorKind::Interrupted => {
                return Progress::More;
            }
            Err(ReceiveError::System(_peer_gone)) => {
                connection.break_off();
                return Progress::Drained;
            }
            Err(error @ (ReceiveError::Anonymous | ReceiveError::Descriptors(_))) => {
                connection.refuse(None, RefusalCode::Identity, error.to_string());
                return Progress::More;
            }
        };
        self.patience.is_rewarded();
        let Some(sender) = received.sender.filter(|_| received.bytes > 0) else {
            connection.break_off();
            return Progress::Drained;
        };
        if !self.frames.is_empty() && self.sender != Some(sender) {
            connection.refuse(
                None,
                RefusalCode::Identity,
                "two processes wrote one frame; connect anew after a fork",
            );
            return Progress::More;
        }
        if received.descriptor.is_some() && self.descriptor.is_some() {
            connection.refuse(None, RefusalCode::Malformed, "a message came with more than one descriptor");
            return Progress::More;
        }
        if self.frames.is_empty() {
            self.since = self.drained_at;
        }
        self.sender = Some(sender);
        self.descriptor = received.descriptor.or_else(|| self.descriptor.take());
        self.frames.push(buffer.get(..received.bytes).unwrap_or_default());
        self.has_whole = true;
        self.most_held = self.most_held.max(self.frames.len());
        Progress::More
    }

    /// Hands whole messages on, as many as the driver has room for.
    pub(super) fn deliver(&mut self, connection: &Rc<Connection>, intake: &Intake<Arrival>) {
        while self.has_whole && self.may_deliver(connection) {
            let Some(sender) = self.sender else { return };
            match self.next(connection.door) {
                Ok(Some(message)) => {
                    self.begun_at = None;
                    if let Some((code, cause)) = self.out_of_turn(&message) {
                        return connection.refuse(None, code, cause);
                    }
                    connection.waiting.set(connection.waiting.get().saturating_add(1));
                    let lane = connection.lane().unwrap_or_else(|| first_lane(connection.door));
                    let (connection, since) = (Rc::clone(connection), self.since);
                    intake.push(lane, Arrival::Message { connection, sender, since, message });
                }
                Ok(None) => {
                    self.has_whole = false;
                    if self.frames.is_empty() {
                        self.begun_at = None;
                        if self.most_held > KEPT_BYTES {
                            (self.frames, self.most_held) = (FrameReader::new(), 0);
                        }
                    } else if self.begun_at.is_none() {
                        self.begun_at = Some(Instant::now());
                    }
                }
                Err(error) => {
                    let cause = shortened(&error.to_string());
                    tracing::info!(pid = sender.pid, cause = %cause.escape_debug(), "a malformed frame");
                    return connection.refuse(None, RefusalCode::Malformed, cause);
                }
            }
        }
    }

    fn next(&mut self, door: Door) -> Result<Option<Message>, FrameError> {
        Ok(match door {
            Door::Application => self.frames.next_message::<app::Request>()?.map(Message::Application),
            Door::Operator => {
                let message = self.frames.next_message::<admin::Request>()?;
                message.map(|message| {
                    let takes = matches!(message, admin::Request::StartSession(_));
                    let descriptor = if takes { self.descriptor.take() } else { None };
                    Message::Operator(message, descriptor)
                })
            }
        })
    }

    /// What is wrong with a message at this point of the conversation.
    fn out_of_turn(&mut self, message: &Message) -> Option<(RefusalCode, String)> {
        let hello = match message {
            Message::Application(app::Request::Hello(hello))
            | Message::Operator(admin::Request::Hello(hello), _) => Some(hello),
            Message::Application(_) | Message::Operator(..) => None,
        };
        match (hello, std::mem::replace(&mut self.has_greeted, true)) {
            (Some(hello), false) if hello.version == VERSION => None,
            (Some(hello), false) => Some((
                RefusalCode::Version,
                format!("version {} of the protocol isn't spoken here; say {VERSION}", hello.version),
            )),
            (Some(_), true) => Some((RefusalCode::Malformed, "a second hello; say it once".to_owned())),
            (None, true) => None,
            (None, false) => {
                Some((RefusalCode::Malformed, "the first message is no hello; say hello first".to_owned()))
            }
        }
    }
}

/// The message of an error that may quote what a peer sent: bounded.
fn shortened(text: &str) -> String {
    const MOST: usize = 400;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
