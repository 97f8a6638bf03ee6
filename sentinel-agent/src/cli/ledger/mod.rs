//! `sentinel ledger`: reads a ledger, whole or in part. Changes nothing.

mod csv;
mod export;
mod filter;
mod parts;
mod pretty;
mod query;
mod show;
mod tail;
mod times;
mod verify;
mod words;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::terminal::visible;
use super::why::ledger_path;

/// `sentinel ledger …`.
#[derive(Debug, clap::Subcommand)]
pub enum LedgerCommand {
    /// Says whether the chain is whole: no line changed, removed or put in. Exit status 1: it is not
    Verify {
        /// The ledger; without it the shared agent's, else the private one that was written last
        file: Option<PathBuf>,
        /// A head file with the line that is known to have been written; without it `ledger.head` beside the ledger, if it is there
        #[arg(long, value_name = "FILE")]
        expect_head: Option<PathBuf>,
    },
    /// Shows the last lines in words
    Tail {
        /// The ledger; without it the shared agent's, else the private one that was written last
        file: Option<PathBuf>,
        /// How many
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: usize,
        /// Goes on as lines come
        #[arg(short, long)]
        follow: bool,
    },
    /// Shows all lines of an action, or one line, whole. Exit status 1: there is none, or a line is damaged
    Show(show::ShowArguments),
    /// Shows the lines that match, oldest first. Exit status 1: a line is damaged
    Query(query::QueryArguments),
    /// Writes the lines that match for other programs, oldest first. Exit status 1: a line is damaged
    Export(export::ExportArguments),
}

/// Carries the command out. Exit status 66: the ledger can't be read; 73: the output can't be made; 74: it can't be written.
#[must_use]
pub fn carry_out(command: &LedgerCommand) -> ExitCode {
    let file = match command {
        LedgerCommand::Verify { file, .. } | LedgerCommand::Tail { file, .. } => file,
        LedgerCommand::Show(arguments) => &arguments.file,
        LedgerCommand::Query(arguments) => &arguments.file,
        LedgerCommand::Export(arguments) => &arguments.file,
    };
    let Some(path) = ledger_path(file.as_deref()) else {
        return failed(66, "there is no ledger yet; name the file");
    };
    let done = match command {
        LedgerCommand::Verify { expect_head, .. } => return verify::check(&path, expect_head.as_deref()),
        LedgerCommand::Tail { lines, follow, .. } => tail::tail(&path, *lines, *follow),
        LedgerCommand::Show(arguments) => show::show(&path, arguments),
        LedgerCommand::Query(arguments) => query::query(&path, arguments),
        LedgerCommand::Export(arguments) => export::export(&path, arguments),
    };
    match done {
        Ok(code) => code,
        // Whoever reads has seen enough.
        Err(LedgerCommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.exit_status(), &error.to_string()),
    }
}

/// Why a ledger can't be shown.
#[derive(Debug, thiserror::Error)]
enum LedgerCommandError {
    #[error("cannot read `{}`: {source}; use sudo, or name another", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{}` is there already; name another, or remove it", .0.display())]
    Exists(PathBuf),
    #[error("cannot make `{}`: {source}; name another with --output", path.display())]
    Unmakable { path: PathBuf, source: io::Error },
    #[error("cannot write what was asked for, so it is not whole: {0}; look for room, and ask again")]
    Output(#[from] io::Error),
}

impl LedgerCommandError {
    const fn exit_status(&self) -> u8 {
        match self {
            Self::Unreadable { .. } => 66,
            Self::Exists(_) | Self::Unmakable { .. } => 73,
            Self::Output(_) => 74,
        }
    }
}

fn failed(exit_status: u8, message: &str) -> ExitCode {
    tell(message);
    ExitCode::from(exit_status)
}

/// A message to the operator, beside what is shown.
fn tell(message: &str) {
    let _closed = writeln!(io::stderr(), "sentinel: {}", visible(message));
}
