//! `sentinel pause`, `resume`, `kill`, `stop-all` and `reload`: a human's authority over what runs.

use std::process::ExitCode;

use sentinel_proto::admin::{OfSession, Request};
use sentinel_proto::app::Ask;

use super::conversation::{AgentArguments, order};

/// Which session.
#[derive(Debug, clap::Args)]
pub struct SessionArguments {
    /// Its name or number, as `sentinel status` shows it
    session: String,
    #[command(flatten)]
    agent: AgentArguments,
}

impl SessionArguments {
    fn order(&self, request: impl FnOnce(OfSession) -> Request) -> ExitCode {
        let of = OfSession { request: 1, session: self.session.clone() };
        order(&self.agent.runtime, &request(of))
    }
}

/// Freezes a session.
#[must_use]
pub fn pause(arguments: &SessionArguments) -> ExitCode {
    arguments.order(Request::Pause)
}

/// Lets it go on.
#[must_use]
pub fn resume(arguments: &SessionArguments) -> ExitCode {
    arguments.order(Request::Resume)
}

/// Kills it.
#[must_use]
pub fn kill(arguments: &SessionArguments) -> ExitCode {
    arguments.order(Request::Kill)
}

/// Kills all.
#[must_use]
pub fn stop_all(arguments: &AgentArguments) -> ExitCode {
    order(&arguments.runtime, &Request::StopAll(Ask { request: 1 }))
}

/// Reads the policies anew.
#[must_use]
pub fn reload(arguments: &AgentArguments) -> ExitCode {
    order(&arguments.runtime, &Request::Reload(Ask { request: 1 }))
}
