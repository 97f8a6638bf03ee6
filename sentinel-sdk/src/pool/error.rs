//! Why a request has no answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sentinel_proto::app::{RefusalCode, Refused};
use sentinel_proto::{FrameError, Reason, VERSION};

use super::waiting::Deadline;

/// Why a request has no answer. All but the caller's own mistakes mean that the agent can't be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Nobody listens there.
    #[error("`{}`: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent doesn't take the request, or nothing from this process.
    #[error("{}", .0.message)]
    Refused(Refused),
    /// The agent speaks another version of the protocol.
    #[error(
        "it speaks version {0} of the protocol, and this SDK {VERSION}; install the same release of both"
    )]
    Version(u32),
    /// The connection is over.
    #[error("the connection was lost: {0}")]
    Lost(#[source] io::Error),
    /// What came is no message.
    #[error("its answer makes no sense: {0}")]
    Garbage(#[from] FrameError),
    /// What came is no answer to what was asked.
    #[error("its answer is not to what was asked")]
    Unexpected,
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The request can't be written.
    #[error("{0}")]
    Unwritable(#[source] FrameError),
}

impl LinkError {
    pub(crate) fn of_waiting(error: io::Error, deadline: Deadline) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            Self::TimedOut(deadline.patience)
        } else {
            Self::Lost(error)
        }
    }

    /// The same as a reason for not letting an action run.
    pub(crate) fn reason(&self) -> Reason {
        let cause = self.to_string();
        match self {
            Self::Unwritable(_) | Self::Refused(Refused { code: RefusalCode::Malformed, .. }) => {
                Reason::InvalidRequest { cause }
            }
            _ => Reason::AgentUnavailable { cause },
        }
    }
}
