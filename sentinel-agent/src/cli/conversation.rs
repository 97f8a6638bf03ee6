//! One question to a running agent on `admin.sock`, and its answer.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sentinel_proto::admin::{Reply, Request};
use sentinel_proto::app::{Hello, RefusalCode};
use sentinel_proto::{FrameError, FrameReader, VERSION, encode_frame};

use super::terminal::visible;

/// How long the agent may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Where the agent is.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentArguments {
    /// Where the agent has its sockets
    #[arg(long, global = true, value_name = "DIR", default_value = crate::cli::private_agent::RUNTIME)]
    pub runtime: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no agent answers at `{}`: {source}; start `sentinel-agent`, or name another folder with --runtime", socket.display())]
    NoAgent { socket: PathBuf, source: io::Error },
    #[error("`{}` is for root and the group `sentinel`; use sudo, or join the group", socket.display())]
    Forbidden { socket: PathBuf },
    #[error("the conversation with the agent broke: {0}")]
    Conversation(#[from] io::Error),
    #[error("the agent says what this version doesn't understand: {0}")]
    Frame(#[from] FrameError),
    #[error("the agent refused: {message}")]
    Refused { code: RefusalCode, message: String },
}

impl AskError {
    /// Tells it, and answers the exit status: 69 no agent, 77 not allowed, 66 no such thing, 1 it could not be done.
    pub(super) fn tell(&self) -> ExitCode {
        let _closed = writeln!(io::stderr(), "sentinel: {}", visible(&self.to_string()));
        ExitCode::from(match self {
            Self::Forbidden { .. } | Self::Refused { code: RefusalCode::Identity, .. } => 77,
            Self::Refused { code: RefusalCode::NotFound, .. } => 66,
            Self::Refused { code: RefusalCode::Failed | RefusalCode::Busy, .. } => 1,
            Self::Refused { code: RefusalCode::Version | RefusalCode::Malformed, .. }
            | Self::NoAgent { .. }
            | Self::Conversation(_)
            | Self::Frame(_) => 69,
        })
    }
}

/// Asks the agent, and waits for the answer.
pub(super) fn ask(runtime: &Path, request: &Request) -> Result<Reply, AskError> {
    let socket = runtime.join("admin.sock");
    let mut stream = UnixStream::connect(&socket).map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied => AskError::Forbidden { socket },
        _ => AskError::NoAgent { socket, source },
    })?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    let hello =
        Hello { version: VERSION, client: concat!("sentinel ", env!("CARGO_PKG_VERSION")).to_owned() };
    let mut frames = encode_frame(&Request::Hello(hello))?;
    frames.extend(encode_frame(request)?);
    stream.write_all(&frames)?;
    let (mut reader, mut buffer) = (FrameReader::new(), [0; 4096]);
    loop {
        match reader.next_message()? {
            Some(Reply::Refused(refused)) => {
                return Err(AskError::Refused { code: refused.code, message: refused.message });
            }
            Some(Reply::Welcome(_) | Reply::Notice(_) | Reply::Waits(_)) => continue,
            Some(answer) => return Ok(answer),
            None => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(count) => reader.push(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// An order: prints what the agent says of it.
pub(super) fn order(runtime: &Path, request: &Request) -> ExitCode {
    match ask(runtime, request) {
        Ok(Reply::Done(done)) => {
            let _closed = writeln!(io::stdout(), "{}", visible(&done.message));
            ExitCode::SUCCESS
        }
        Ok(_) => out_of_turn(),
        Err(error) => error.tell(),
    }
}

/// The agent answered something else than was asked.
pub(super) fn out_of_turn() -> ExitCode {
    let _closed =
        writeln!(io::stderr(), "sentinel: the agent answered something else; are both of one version?");
    ExitCode::from(69)
}
