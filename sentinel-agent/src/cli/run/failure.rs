//! Why `sentinel run` runs nothing, or stops: each reason with its way out and its exit status.

use std::io::{self, Write as _};
use std::path::PathBuf;

use sentinel_proto::FrameError;
use sentinel_proto::app::{RefusalCode, Refused};

use super::advisory;
use super::notice::say;
use crate::cli::private_agent::PrivateAgentError;
use crate::session::launch::{LAUNCH_FAILED, LaunchError, NOT_EXECUTABLE, NOT_FOUND};
use crate::session::user::UserError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "this is inside the session `{0}` already, and a session can't start another; if it isn't, unset \
         AGENT_SENTINEL_SESSION"
    )]
    InsideSession(String),
    #[error(
        "only root can start an agent for a policy's file; use sudo, or name a policy of a running agent as a member of \
         the group `sentinel`, or add --advisory: the SDK then keeps to the policy by itself (embedded mode), and \
         nothing is enforced"
    )]
    PrivateNeedsRoot,
    #[error("the policy `{path}` can't be read: {source}; check the path and who may read it", path = path.display())]
    UnreadablePolicy { path: PathBuf, source: io::Error },
    /// All its problems, rendered.
    #[error("{0}")]
    InvalidPolicy(String),
    #[error("`{0}` is no policy's name; give a name of the agent's, or a file's path with a `/` in it")]
    PolicyName(String),
    #[error("{0}")]
    User(#[from] UserError),
    #[error("`{0}` isn't there; check the path, or PATH")]
    ProgramNotFound(String),
    #[error("`{0}` can't be executed: it is a folder, or nobody has the right")]
    ProgramNotExecutable(String),
    #[error("the working folder can't be known: {0}; start it in another")]
    WorkingFolder(#[source] io::Error),
    #[error(
        "AGENT_SENTINEL_HOME is `{home}`, but CMD's user could write `{folder}` and so change the ledger; unset it, \
         or name a folder of root's with --state",
        home = home.display(),
        folder = folder.display()
    )]
    WritableHome { home: PathBuf, folder: PathBuf },
    #[error("{0}")]
    PrivateAgent(#[from] PrivateAgentError),
    #[error(
        "no agent answers at `{socket}`: {source}; start sentinel-agent, for root and the group `sentinel`; or use sudo with \
         a policy's file (a path with a `/`), for an agent of its own; or --advisory with a policy's file: the SDK then \
         keeps to it by itself (embedded mode), and nothing is enforced",
        socket = socket.display()
    )]
    NoAgent { socket: PathBuf, source: io::Error },
    #[error(
        "you may not use the agent at `{socket}`; use sudo, or join the group `sentinel`, or use --advisory with a policy's \
         file: the SDK then keeps to it by itself (embedded mode), and nothing is enforced",
        socket = socket.display()
    )]
    Forbidden { socket: PathBuf },
    #[error("the agent can't be talked to: {0}")]
    Conversation(#[source] io::Error),
    #[error("the agent can't be understood: {0}; are both of one version?")]
    Frame(#[from] FrameError),
    #[error("the agent says something out of turn: {0}; are both of one version?")]
    OutOfTurn(String),
    #[error("the agent refuses: {}", .0.message)]
    Refused(Refused),
    #[error("this host enforces nothing (tier `{0}`), so CMD is not started")]
    NotEnforced(String),
    #[error("CMD is not started: {0}")]
    Launch(#[from] LaunchError),
    #[error("`{program}` can't be executed: {source}", program = program.display())]
    Exec { program: PathBuf, source: io::Error },
    #[error("CMD can't be watched: {0}; it is killed")]
    Watch(#[source] io::Error),
}

impl Failure {
    /// See `sentinel run --help`.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::User(_) | Self::PolicyName(_) | Self::WritableHome { .. } => 64,
            Self::UnreadablePolicy { .. } => 66,
            Self::InsideSession(_) | Self::Forbidden { .. } => 77,
            Self::Refused(refused) if refused.code == RefusalCode::Identity => 77,
            Self::InvalidPolicy(_) => 78,
            Self::PrivateAgent(error) => error.exit_code(),
            Self::PrivateNeedsRoot
            | Self::NoAgent { .. }
            | Self::Conversation(_)
            | Self::Frame(_)
            | Self::OutOfTurn(_)
            | Self::Refused(_)
            | Self::NotEnforced(_) => 69,
            Self::Launch(LaunchError::Refused { exit_code, .. }) => *exit_code,
            Self::Launch(_) | Self::Watch(_) | Self::WorkingFolder(_) => LAUNCH_FAILED,
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::ProgramNotExecutable(_) | Self::Exec { .. } => NOT_EXECUTABLE,
            Self::ProgramNotFound(_) => NOT_FOUND,
        }
    }

    /// Says it on standard error.
    pub(super) fn tell(&self) {
        match self {
            // Many lines, made for a terminal by the policy's own renderer.
            Self::InvalidPolicy(report) => {
                let _closed = io::stderr().write_all(report.as_bytes());
            }
            Self::Exec { .. } => advisory::say(&self.to_string()),
            _ => say(&self.to_string()),
        }
    }
}
