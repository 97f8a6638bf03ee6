//! `sentinel doctor`: what this host enforces, row by row, tried out now.
//!
//! Invariant: a row that was not tried says so, and one that failed is never lost among the others.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use sentinel_proto::admin::{Reply, Request};
use sentinel_proto::app::Ask;
use sentinel_proto::examination::{Examination, Proof, Row};

use super::conversation::{AgentArguments, AskError, ask, out_of_turn};
use super::terminal::visible;
use crate::daemon;

/// What `sentinel doctor` is called with.
#[derive(Debug, clap::Args)]
pub struct DoctorArguments {
    /// As JSON, whole
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArguments,
}

/// Has the running agent try out what this host enforces, or tries it itself where none runs. Exit status: 0 if all holds, 1 if something
/// doesn't, 69 if the host enforces nothing or could not be tried, 77 without the right to ask.
#[must_use]
pub fn doctor(arguments: &DoctorArguments) -> ExitCode {
    let runtime = &arguments.agent.runtime;
    let examination = match ask(runtime, &Request::Examine(Ask { request: 1 })) {
        Ok(Reply::Examination(examined)) => examined.examination,
        Ok(_) => return out_of_turn(),
        Err(AskError::NoAgent { .. }) => match daemon::examine(runtime) {
            Ok(examination) => examination,
            Err(error) => {
                let text = format!("sentinel: no agent runs at `{}`, and {error}", runtime.display());
                let _closed = writeln!(io::stderr(), "{}", visible(&text));
                return ExitCode::from(69);
            }
        },
        Err(error) => return error.tell(),
    };
    let text = if arguments.json {
        match serde_json::to_string_pretty(&examination) {
            Ok(json) => format!("{json}\n"),
            Err(_unwritable) => return out_of_turn(),
        }
    } else {
        rendered(&examination)
    };
    let _closed = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(examination.failure().is_some()))
}

fn rendered(examination: &Examination) -> String {
    let mut text =
        format!("tier `{}` on Linux {}\n\n", visible(&examination.tier), visible(&examination.kernel));
    let width = examination.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    for row in &examination.rows {
        let (mark, told) = told(row);
        let _infallible = writeln!(text, "{mark} {:width$}  {told}", visible(&row.what));
    }
    text.push('\n');
    if examination.programs.iter().any(|program| program.runs > 0) {
        for program in examination.programs.iter().filter(|program| program.runs > 0) {
            let mean = program.nanoseconds.checked_div(program.runs).unwrap_or(0);
            let name = visible(&program.name);
            let _infallible = writeln!(text, "{name}: {} runs, {mean} ns each", program.runs);
        }
    }
    let missed: u64 = examination.programs.iter().map(|program| program.missed).sum();
    let _infallible = writeln!(
        text,
        "{} programs, left out by the kernel {missed} times; {} reports of refusals lost",
        examination.programs.len(),
        examination.lost_reports
    );
    match examination.failure() {
        Some(cause) => {
            let _infallible =
                writeln!(text, "this host does NOT enforce what it is told: {}", visible(&cause));
        }
        None => text.push_str("every row that can be tried was tried just now, and holds\n"),
    }
    text
}

fn told(row: &Row) -> (char, String) {
    let hold = row.hold.as_str();
    match &row.proof {
        Proof::Tried => ('+', hold.to_owned()),
        Proof::Failed(cause) => ('!', format!("FAILED: {} ({hold} was to be)", visible(cause))),
        Proof::Stated(why) => ('-', format!("{hold}: {}", visible(why))),
    }
}

#[cfg(test)]
mod tests {
    use sentinel_proto::examination::{Hold, Program};

    use super::*;

    fn examination(proof: Proof, missed: u64) -> Examination {
        Examination {
            tier: "kill".to_owned(),
            kernel: "6.12.0".to_owned(),
            rows: vec![Row { what: "a connect".to_owned(), hold: Hold::DeniedBeforeExecution, proof }],
            programs: vec![Program { name: "connect4".to_owned(), missed, runs: 0, nanoseconds: 0 }],
            lost_reports: 0,
        }
    }

    #[test]
    fn what_was_tried_and_holds_is_told_so() {
        let text = rendered(&examination(Proof::Tried, 0));
        assert!(text.contains("+ a connect  denied before execution\n"), "{text}");
        assert!(text.contains("was tried just now, and holds"), "{text}");
    }

    #[test]
    fn a_row_that_failed_and_a_program_that_was_left_out_are_told_at_the_end_too() {
        let text = rendered(&examination(Proof::Failed("error 0".to_owned()), 0));
        assert!(text.contains("! a connect  FAILED: error 0") && text.contains("NOT enforce"), "{text}");
        let text = rendered(&examination(Proof::Tried, 3));
        assert!(text.contains("the kernel left `connect4` out 3 times"), "{text}");
    }
}
