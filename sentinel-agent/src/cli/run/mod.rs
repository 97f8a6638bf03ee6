//! `sentinel run`: a command in a session, its terminal, working folder and exit status its own.
//!
//! Invariant: the command's process is forked while this one has a single thread, and executes nothing before the agent
//! has enrolled it. Whatever fails on the way, no command runs.

mod advisory;
mod failure;
mod notice;
mod operator;
mod policy;
mod program;
mod watch;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::geteuid;
use sentinel_proto::{SessionName, admin};

use super::private_agent::{PrivateAgent, StateFolder};
use crate::session::launch::{CommandLine, Order, WaitingCommand};
use crate::session::user::{self, User};
use failure::Failure;
use notice::say;
use operator::Operator;
use policy::PolicyArgument;
use watch::{Ownership, Watch};

/// What `sentinel run` is called with.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: CMD's own, or 128 and the number of the signal that killed it. Else
  64   the command line is wrong
  66   the policy's file can't be read
  69   there is no agent, or this host can't enforce
  77   not allowed, as from inside a session
  78   the policy is invalid
  125  CMD could not be held as it must be, or its own agent died
  126  CMD can't be executed
  127  CMD isn't there
With --advisory CMD takes this command's place: signals reach it, and it ends as it ends.")]
pub struct RunArguments {
    /// A policy's file (a path with a `/`, or ending in .yaml or .yml), for an agent of its own, as root; or the name
    /// of a policy that a running agent has. With --advisory a file, or none: all is let start, and recorded.
    #[arg(long, value_name = "FILE|NAME", required_unless_present = "advisory")]
    pub policy: Option<OsString>,
    /// Enforces NOTHING: for a machine without root or an agent. CMD runs as you, and its SDK keeps to the policy by itself
    /// (embedded mode); whatever doesn't ask the SDK can do all that you can.
    #[arg(long, conflicts_with_all = ["user", "runtime"])]
    pub advisory: bool,
    /// A name under which budgets and totals outlive the command.
    #[arg(long, value_name = "NAME", value_parser = session_name)]
    pub session: Option<SessionName>,
    /// Whom CMD runs as: never root. Without it, the user who called sudo, else one that the agent gives.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Where an agent of its own keeps its ledger; with --advisory, the SDK [default: $AGENT_SENTINEL_HOME, else .agent-sentinel].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where a running agent has its sockets.
    #[arg(long, value_name = "DIR", default_value = crate::cli::private_agent::RUNTIME)]
    pub runtime: PathBuf,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// A session's name, fit for a folder's too: `.` and `..` are none.
fn session_name(text: &str) -> Result<SessionName, String> {
    if text.starts_with('.') {
        return Err("a session's name can't begin with a dot".to_owned());
    }
    SessionName::new(text).map_err(|error| error.to_string())
}

/// Runs the command to its end.
#[must_use]
pub fn run(arguments: &RunArguments) -> ExitCode {
    match try_run(arguments) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.exit_code())
        }
    }
}

fn try_run(arguments: &RunArguments) -> Result<u8, Failure> {
    if let Some(session) = env::var_os("AGENT_SENTINEL_SESSION") {
        return Err(Failure::InsideSession(session.to_string_lossy().into_owned()));
    }
    if arguments.advisory {
        return Err(advisory::become_command(arguments));
    }
    // Clap asks for it.
    let policy = PolicyArgument::read(arguments.policy.as_deref().unwrap_or_default())?;
    let root = geteuid().is_root();
    if policy.text().is_some() && !root {
        return Err(Failure::PrivateNeedsRoot);
    }
    let user = user::resolve(arguments.user.as_deref(), |name| env::var(name).ok())?;
    let program = program::find(&arguments.command)?;
    let command = CommandLine {
        program,
        arguments: arguments.command.clone(),
        working_folder: env::current_dir().map_err(Failure::WorkingFolder)?,
    };
    let state = policy.text().map(|_| state_folder(arguments, user.as_ref())).transpose()?;

    // From here on other processes and descriptors come in, which the command's must not have: it is forked first.
    let waiting = WaitingCommand::fork(&command)?;
    let private = match (policy.text(), &state) {
        (Some(text), Some(state)) => {
            Some(PrivateAgent::start(policy.name(), text, state, &arguments.runtime)?)
        }
        _ => None,
    };
    let runtime = private.as_ref().map_or(arguments.runtime.as_path(), PrivateAgent::runtime);
    let mut operator = Operator::connect(runtime)?;
    let started = operator.start_session(waiting.pidfd(), |request| admin::StartSession {
        request,
        policy: policy.name().to_owned(),
        name: arguments.session.clone(),
        command: command.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        program: command.program.clone(),
        uid: user.as_ref().map(|user| user.uid),
    })?;
    if !matches!(started.tier.as_str(), "kill" | "lsm") {
        return Err(Failure::NotEnforced(started.tier.clone()));
    }
    if started.audit {
        say("the policy's mode is `audit`: what it would refuse is recorded and let pass");
    }
    let watch = Watch::new()?;
    let running = waiting.release(&Order {
        user: user.unwrap_or_else(|| User::nameless(started.uid, started.uid)),
        session: started.name.clone(),
        agent_socket: Some(started.agent_socket.clone()),
        mask: started.mask.clone(),
        unix_allow: started.unix_allow.clone(),
    })?;
    for warning in running.warnings() {
        say(&format!("warning: {warning}"));
    }
    let ownership = if private.is_some() { Ownership::Private } else { Ownership::Shared };
    let status = watch.until_end(running, operator, &started, ownership)?;
    if let Some(private) = private {
        private.stop();
    }
    Ok(status)
}

/// Where a private agent keeps its ledger: never where the command's user could change it.
fn state_folder(arguments: &RunArguments, user: Option<&User>) -> Result<StateFolder, Failure> {
    if let Some(folder) = &arguments.state {
        return Ok(StateFolder::Given(folder.clone()));
    }
    if let Some(home) = env::var_os("AGENT_SENTINEL_HOME").filter(|home| !home.is_empty()) {
        let home = PathBuf::from(home);
        let existing = home.ancestors().find_map(|folder| folder.canonicalize().ok());
        // A user of the agent's own has no folders and no groups: only what is open to all counts.
        let stranger = User::nameless(u32::MAX - 1, u32::MAX - 1);
        let user = user.unwrap_or(&stranger);
        let writable = existing.as_deref().and_then(|folder| user.writable_on_path(folder));
        return match writable {
            Some(folder) => Err(Failure::WritableHome { home: home.clone(), folder: folder.to_owned() }),
            None => Ok(StateFolder::Given(home)),
        };
    }
    Ok(arguments.session.clone().map_or(StateFolder::AnyFree, StateFolder::Named))
}
