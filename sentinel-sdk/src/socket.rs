//! Where the agent is, and how long it may take.

use std::path::PathBuf;
use std::time::Duration;

use sentinel_proto::VERSION;
use sentinel_proto::app::{Hello, Refused, Reply, Request};

use crate::Error;

/// An answer that takes longer is none.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The socket that `sentinel run` names, else the host agent's.
pub(crate) fn path() -> PathBuf {
    std::env::var_os("AGENT_SENTINEL_SOCKET")
        .map_or_else(|| PathBuf::from("/run/agent-sentinel/agent.sock"), PathBuf::from)
}

pub(crate) fn cannot_connect(error: &std::io::Error) -> Error {
    Error::unavailable(format_args!("`{}`: {error}", path().display()))
}

/// The first message of a connection.
pub(crate) fn hello() -> Request {
    Request::Hello(Hello { version: VERSION, client: concat!("rust/", env!("CARGO_PKG_VERSION")).to_owned() })
}

/// Whether the answer to the first message lets the conversation begin.
pub(crate) fn check_welcome(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Welcome(welcome) if welcome.version == VERSION => Ok(()),
        Reply::Refused(refused) => Err(refusal(&refused)),
        other => Err(Error::unavailable(format_args!("it answered the first message with {other:?}"))),
    }
}

/// A message that the agent could not take.
pub(crate) fn refusal(refused: &Refused) -> Error {
    use sentinel_proto::app::RefusalCode;
    match refused.code {
        RefusalCode::Malformed => Error::invalid(&refused.message),
        RefusalCode::Version
        | RefusalCode::Identity
        | RefusalCode::Busy
        | RefusalCode::NotFound
        | RefusalCode::Failed => Error::unavailable(&refused.message),
    }
}

/// The number of the request that a reply answers; none for one that answers none.
pub(crate) fn request_of(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Welcome(_) => None,
        Reply::Decision(answer) => Some(answer.request),
        Reply::Ended(ended) => Some(ended.request),
        Reply::Denials(denials) => Some(denials.request),
        Reply::Totals(totals) => Some(totals.request),
        Reply::Refused(refused) => refused.request,
    }
}
