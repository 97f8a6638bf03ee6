//! `sentinel session reset`: gives a session its budgets back, through whoever decides in it.
//!
//! Invariant: it goes through the same authority as the programs that are governed, so each of them sees it at its next decision, and none is
//! stopped or counted otherwise for it.

use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sentinel_authority::{AppendError, LedgerError, Limits, SharedAuthority, SharedError};
use sentinel_engine::Event;
use sentinel_proto::admin::{OfSession, Request};
use sentinel_proto::{Money, SessionName};

use super::conversation::order;
use super::embedded;
use super::terminal::visible;
use crate::clock::{Clock as _, SystemClock};
use crate::driver::budgets_back;

/// `sentinel session …`.
#[derive(Debug, clap::Subcommand)]
pub enum SessionCommand {
    /// Gives a session its budgets back: for the session, the run and each action, counts and rates; not the day's
    ///
    /// With SESSION, one of a running agent. Without, one of programs that decide for themselves (AGENT_SENTINEL_MODE=embedded): of the
    /// ledger in their folder, whether any of them runs or not, and as whoever owns it.
    ///
    /// Exit status: 0 done; 66 no such ledger or session; 69 no agent; 77 not allowed; 1 it could not be written.
    #[command(max_term_width = 100)]
    Reset(ResetArguments),
}

/// Which session.
#[derive(Debug, clap::Args)]
pub struct ResetArguments {
    /// Of a running agent: its name or number, as `sentinel status` shows it. A name also when it is over
    #[arg(conflicts_with_all = ["home", "name"])]
    session: Option<String>,
    /// Where that agent has its sockets [default: /run/agent-sentinel]
    #[arg(long, value_name = "DIR", requires = "session")]
    runtime: Option<PathBuf>,
    /// Of programs that decide for themselves: the folder with their ledger [default: $AGENT_SENTINEL_HOME, else .agent-sentinel]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Their session [default: $AGENT_SENTINEL_SESSION, else default]
    #[arg(id = "name", long = "session", value_name = "NAME")]
    name: Option<String>,
}

/// Why an embedded session has not its budgets back.
#[derive(Debug, thiserror::Error)]
enum ResetError {
    #[error("`{0}` is no name of a session: {1}; take the one of AGENT_SENTINEL_SESSION")]
    NoName(String, sentinel_proto::NameError),
    #[error(
        "{0}; name the folder with --home, or a running agent's session: `sentinel session reset SESSION`"
    )]
    NoLedger(SharedError),
    #[error("`{}` can't be read: {source}; run this as its owner", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{}` belongs to uid {owner}, whose programs could not go on with what uid {own} writes; run this as its owner", path.display())]
    OfAnother { path: PathBuf, owner: u32, own: u32 },
    #[error("there is no session `{name}` in `{}`; {}", path.display(), known(.names))]
    NoSession { name: SessionName, path: PathBuf, names: Vec<SessionName> },
    #[error(transparent)]
    Shared(SharedError),
    #[error("it could not be written: {0}")]
    Unwritten(#[from] AppendError<LedgerError>),
}

impl ResetError {
    const fn exit_status(&self) -> u8 {
        match self {
            Self::NoName(..) => 64,
            Self::NoLedger(_) | Self::NoSession { .. } => 66,
            Self::Unreadable { .. } | Self::OfAnother { .. } => 77,
            Self::Shared(_) | Self::Unwritten(_) => 1,
        }
    }
}

fn known(names: &[SessionName]) -> String {
    if names.is_empty() {
        return "it has none".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("it has {}", names.join(", "))
}

/// Carries the command out.
#[must_use]
pub fn carry_out(command: &SessionCommand) -> ExitCode {
    let SessionCommand::Reset(arguments) = command;
    if let Some(session) = &arguments.session {
        let runtime = arguments.runtime.as_deref().unwrap_or_else(|| super::private_agent::RUNTIME.as_ref());
        let of = OfSession { request: 1, session: session.clone() };
        return order(runtime, &Request::ResetSession(of));
    }
    match reset_embedded(arguments) {
        Ok(done) => {
            let _closed = writeln!(io::stdout(), "{}", visible(&done));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _closed = writeln!(io::stderr(), "sentinel: {}", visible(&error.to_string()));
            ExitCode::from(error.exit_status())
        }
    }
}

fn reset_embedded(arguments: &ResetArguments) -> Result<String, ResetError> {
    let ledger = embedded::home(arguments.home.as_deref()).join("ledger.jsonl");
    let of_environment = || Some(embedded::own(embedded::SESSION)?.to_string_lossy().into_owned());
    let name = arguments.name.clone().or_else(of_environment);
    let name = name.unwrap_or_else(|| embedded::DEFAULT_SESSION.to_owned());
    let name = SessionName::new(name.as_str()).map_err(|error| ResetError::NoName(name, error))?;

    check_owner(&ledger)?;
    let now = SystemClock.now();
    let mut shared =
        SharedAuthority::visit(&ledger, Limits::default(), now).map_err(|error| match error {
            SharedError::Missing(_) => ResetError::NoLedger(error),
            error => ResetError::Shared(error),
        })?;
    let turn = shared.take_turn(now).map_err(ResetError::Shared)?;
    let Some(session) = turn.authority.state().session_named(&name) else {
        let names = turn.authority.state().names().map(|(_, name)| name.clone()).collect();
        return Err(ResetError::NoSession { name, path: ledger, names });
    };
    let total = |authority: &sentinel_authority::Authority<_>| {
        authority.state().totals(session).map_or(Money::ZERO, |totals| totals.session)
    };
    let spent = total(turn.authority);
    let operator = rustix::process::getuid().as_raw();
    turn.authority.step(Event::SessionReset { session, operator }, now)?;
    Ok(budgets_back(name.as_str(), spent, total(turn.authority)))
}

/// A file that somebody else makes in that folder, such as a new part, could not be written by those who share it.
fn check_owner(ledger: &Path) -> Result<(), ResetError> {
    let own = rustix::process::geteuid().as_raw();
    match std::fs::symlink_metadata(ledger) {
        Ok(metadata) if metadata.uid() != own => {
            Err(ResetError::OfAnother { path: ledger.to_owned(), owner: metadata.uid(), own })
        }
        // That there is none, the authority says.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ResetError::Unreadable { path: ledger.to_owned(), source }),
    }
}
