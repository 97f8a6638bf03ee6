//! The operator's commands: one file each.

pub mod approvals;
mod conversation;
pub mod doctor;
mod embedded;
pub mod ledger;
pub mod operate;
pub mod policy;
pub mod private_agent;
pub mod run;
pub mod session;
pub mod status;
pub mod terminal;
pub mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs autonomous agents under a policy that the kernel holds them to.
#[derive(Debug, Parser)]
#[command(name = "sentinel", version, max_term_width = 100)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a command in a session: its network and its programs are what the policy allows
    Run(run::RunArguments),
    /// Tells why something was refused
    Why(why::WhyArguments),
    /// Shows what a running agent does and holds
    Status(status::StatusArguments),
    /// Tries out what this host enforces
    Doctor(doctor::DoctorArguments),
    /// Says what waits for a human's word, and takes it
    Approvals(approvals::ApprovalsArguments),
    /// Freezes a session's processes and shuts its doors
    Pause(operate::SessionArguments),
    /// Lets a paused session go on
    Resume(operate::SessionArguments),
    /// Kills a session
    Kill(operate::SessionArguments),
    /// Kills all sessions of a running agent
    StopAll(conversation::AgentArguments),
    /// Gives a session its budgets back
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Has a running agent read its policies anew: all of them hold afterwards, or nothing changes
    Reload(conversation::AgentArguments),
    /// Works on policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Reads a ledger
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Is the agent of one `sentinel run`
    #[command(hide = true)]
    PrivateAgent(private_agent::PrivateAgentArguments),
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Says everything that is wrong with a policy, or in plain words what it lets through
    Check {
        /// The policy.
        file: PathBuf,
    },
    /// Says what would happen to an action, and by which line
    Explain(policy::ExplainArguments),
}

impl CommandLine {
    /// Carries the command out.
    #[must_use]
    pub fn carry_out(&self) -> ExitCode {
        match &self.command {
            Command::Run(arguments) => run::run(arguments),
            Command::Why(arguments) => why::why(arguments),
            Command::Status(arguments) => status::status(arguments),
            Command::Doctor(arguments) => doctor::doctor(arguments),
            Command::Approvals(arguments) => approvals::approvals(arguments),
            Command::Pause(arguments) => operate::pause(arguments),
            Command::Resume(arguments) => operate::resume(arguments),
            Command::Kill(arguments) => operate::kill(arguments),
            Command::StopAll(arguments) => operate::stop_all(arguments),
            Command::Session(command) => session::carry_out(command),
            Command::Reload(arguments) => operate::reload(arguments),
            Command::Policy(PolicyCommand::Check { file }) => policy::check(file),
            Command::Policy(PolicyCommand::Explain(arguments)) => policy::explain(arguments),
            Command::Ledger(command) => ledger::carry_out(command),
            Command::PrivateAgent(arguments) => private_agent::serve(arguments),
        }
    }
}
