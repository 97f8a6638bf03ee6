//! `sentinel`: the operator's command line.

use std::process::ExitCode;

use clap::Parser as _;
use sentinel_agent::cli::CommandLine;

fn main() -> ExitCode {
    match CommandLine::try_parse() {
        Ok(command_line) => command_line.carry_out(),
        Err(error) => {
            // Help and version are no errors.
            let code = if error.use_stderr() { 64 } else { 0 };
            drop(error.print());
            ExitCode::from(code)
        }
    }
}
