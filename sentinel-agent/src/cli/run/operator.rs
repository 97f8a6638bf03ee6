//! The conversation with the agent on `admin.sock`, up to the session's start: one question, one answer.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sentinel_proto::admin::{Attach, Reply, Request, SessionStarted, StartSession};
use sentinel_proto::app::{Hello, RequestId};
use sentinel_proto::{FrameReader, SessionId, VERSION, encode_frame};

use super::failure::Failure;

/// The longest that the agent may think about a question.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The only request of a launcher.
const START: RequestId = 1;

/// A connection to the agent.
#[derive(Debug)]
pub(super) struct Operator {
    stream: UnixStream,
    reader: FrameReader,
    runtime: PathBuf,
}

impl Operator {
    /// Connects and says hello.
    pub(super) fn connect(runtime: &Path) -> Result<Self, Failure> {
        let socket = runtime.join("admin.sock");
        let stream = UnixStream::connect(&socket).map_err(|source| match source.kind() {
            ErrorKind::PermissionDenied => Failure::Forbidden { socket },
            _ => Failure::NoAgent { socket, source },
        })?;
        stream.set_read_timeout(Some(ANSWER_TIME)).map_err(Failure::Conversation)?;
        stream.set_write_timeout(Some(ANSWER_TIME)).map_err(Failure::Conversation)?;
        let mut operator = Self { stream, reader: FrameReader::new(), runtime: runtime.to_owned() };
        let hello =
            Hello { version: VERSION, client: concat!("sentinel ", env!("CARGO_PKG_VERSION")).to_owned() };
        operator.stream.write_all(&encode_frame(&Request::Hello(hello))?).map_err(Failure::Conversation)?;
        match operator.answer()? {
            Reply::Welcome(_) => Ok(operator),
            other => Err(unexpected(other)),
        }
    }

    /// Asks for a session for the process behind `pidfd`.
    pub(super) fn start_session(
        &mut self,
        pidfd: BorrowedFd<'_>,
        request: impl FnOnce(RequestId) -> StartSession,
    ) -> Result<SessionStarted, Failure> {
        let frame = encode_frame(&Request::StartSession(Box::new(request(START))))?;
        let descriptors = [pidfd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Failure::Conversation(io::Error::other("no room for the process's descriptor")));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL)
            .map_err(|errno| Failure::Conversation(errno.into()))?;
        // The descriptor went with the first byte.
        self.stream.write_all(frame.get(sent..).unwrap_or_default()).map_err(Failure::Conversation)?;
        match self.answer()? {
            Reply::SessionStarted(started) if started.request == START => Ok(*started),
            other => Err(unexpected(other)),
        }
    }

    /// Says that this is the launcher of a running session, whose agent was started anew.
    pub(super) fn attach(mut self, session: SessionId) -> Result<Self, Failure> {
        let frame = encode_frame(&Request::Attach(Attach { request: START, session }))?;
        self.stream.write_all(&frame).map_err(Failure::Conversation)?;
        match self.answer()? {
            Reply::Done(_) => Ok(self),
            other => Err(unexpected(other)),
        }
    }

    /// The stream, what has been read of it beyond the last answer, and where the agent is.
    pub(super) fn into_parts(self) -> (UnixStream, FrameReader, PathBuf) {
        (self.stream, self.reader, self.runtime)
    }

    fn answer(&mut self) -> Result<Reply, Failure> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(reply) = self.reader.next_message()? {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Failure::Conversation(ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.reader.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Conversation(error)),
            }
        }
    }
}

fn unexpected(reply: Reply) -> Failure {
    match reply {
        Reply::Refused(refused) => Failure::Refused(refused),
        other => Failure::OutOfTurn(format!("{other:?}").chars().take(200).collect()),
    }
}
