//! The process between the launcher's fork and the command's exec.
//!
//! Invariant: it execs only after every step of the hardening, and says why on its pipe where it doesn't.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::environment;
use super::hardening::{Confinement, Step, harden};
use super::launch::{CommandLine, LAUNCH_FAILED, NOT_EXECUTABLE, NOT_FOUND, Order};

/// What the process says before it becomes the command; silence and the end of the pipe mean that it has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    Warning(String),
    Refused { step: String, cause: String, exit_code: u8 },
}

/// Never comes back from a success; else the exit status, with the reason reported.
pub(super) fn become_command(
    command: &CommandLine,
    steps: &[Step],
    mut order: File,
    reports: OwnedFd,
    streams: [Option<OwnedFd>; 3],
    launcher: u32,
) -> u8 {
    let mut text = Vec::new();
    let Some(order) =
        order.read_to_end(&mut text).ok().and_then(|_length| serde_json::from_slice::<Order>(&text).ok())
    else {
        // Nobody wants the command any more.
        return LAUNCH_FAILED;
    };
    let mut confinement = Confinement {
        user: order.user,
        root: geteuid().is_root(),
        launcher,
        streams,
        keep: reports,
        agent_socket: order.agent_socket,
        mask: order.mask,
        unix_allow: order.unix_allow,
        working_folder: command.working_folder.clone(),
        warnings: Vec::new(),
    };
    let hardened = harden(&mut confinement, steps);
    let mut reports = File::from(confinement.keep);
    if let Err((step, error)) = hardened {
        return refuse(&mut reports, step, error.to_string(), LAUNCH_FAILED);
    }
    for warning in confinement.warnings {
        if report(&mut reports, &Report::Warning(warning)).is_err() {
            return LAUNCH_FAILED;
        }
    }
    let mut arguments = command.arguments.iter();
    let error = Command::new(&command.program)
        .arg0(arguments.next().unwrap_or(&OsString::new()))
        .args(arguments)
        .env_clear()
        .envs(environment::for_command(std::env::vars_os(), &confinement.user, &order.session))
        .exec();
    let exit_code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    let cause = format!("cannot execute `{}`: {error}", command.program.display());
    refuse(&mut reports, "exec", cause, exit_code)
}

fn refuse(reports: &mut File, step: &str, cause: String, exit_code: u8) -> u8 {
    let refusal = Report::Refused { step: step.to_owned(), cause, exit_code };
    // Without a launcher to hear it there is nobody to tell.
    let _unheard = report(reports, &refusal);
    exit_code
}

fn report(reports: &mut File, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    reports.write_all(&line)
}
