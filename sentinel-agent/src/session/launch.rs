//! The start of a session's command: a process that waits, is enrolled, hardens itself and becomes the command.
//!
//! Invariant: the process executes nothing before it has been told to, and nothing at all if a step of the hardening
//! fails. It is forked while the launcher has a single thread, so ordinary code may run in it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread::JoinHandle;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, kill_process_group, pidfd_open, waitid,
};
use serde::{Deserialize, Serialize};

use super::child::{Report, become_command};
use super::hardening::{STEPS, Step};
use super::pump::{self, Pump};
use super::user::User;

/// The exit status of a launcher that failed where the command should have run.
pub const LAUNCH_FAILED: u8 = 125;
/// The exit status where the command's file can't be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The exit status where the command's file isn't there.
pub const NOT_FOUND: u8 = 127;

/// Why no command runs.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The system refused.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process that should have become the command says why it didn't.
    #[error("{step}: {cause}")]
    Refused {
        /// The step of the hardening, or `exec`.
        step: String,
        /// Why.
        cause: String,
        /// What the launcher exits with.
        exit_code: u8,
    },
    /// It died without a word.
    #[error("the process died while it prepared to become the command")]
    Died,
    /// A fork of several threads would leave locks held for ever.
    #[error("a command can be launched only while this process has a single thread")]
    Threads,
}

fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> LaunchError {
    move |source| LaunchError::System { what, source: source.into() }
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// The file, absolute.
    pub program: PathBuf,
    /// Its arguments, the name that it is called by first.
    pub arguments: Vec<OsString>,
    /// The folder that it runs in.
    pub working_folder: PathBuf,
}

/// What the waiting process must know that only the agent could say.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Whom to run as.
    pub user: User,
    /// The session's name.
    pub session: String,
    /// Where the agent listens for applications.
    pub agent_socket: Option<PathBuf>,
    /// The agent's own folders.
    pub mask: Vec<PathBuf>,
    /// Unix sockets that the policy opens.
    pub unix_allow: Vec<PathBuf>,
}

/// A process that waits to become the command. Dropped, it ends without having become anything.
#[derive(Debug)]
pub struct WaitingCommand {
    pid: Pid,
    pidfd: OwnedFd,
    order: File,
    reports: File,
    pumps: Vec<Pump>,
}

impl WaitingCommand {
    /// Forks the process, which waits for its [`Order`].
    ///
    /// # Errors
    /// This process has more than one thread, or the system refused.
    pub fn fork(command: &CommandLine) -> Result<Self, LaunchError> {
        Self::fork_with(command, STEPS)
    }

    /// As [`fork`](Self::fork), with other steps than all: for tests of what a single step holds.
    ///
    /// # Errors
    /// See [`fork`](Self::fork).
    pub fn fork_with(command: &CommandLine, steps: &[Step]) -> Result<Self, LaunchError> {
        let threads = std::fs::read_dir("/proc/self/task").map_err(system("count the threads"))?.count();
        if threads != 1 {
            return Err(LaunchError::Threads);
        }
        let (order_read, order_write) = pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"))?;
        let (reports_read, reports_write) = pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"))?;
        let (streams, pumps) = pump::replacements().map_err(system("replace a standard stream"))?;
        let launcher = getpid().as_raw_nonzero().get().cast_unsigned();
        // SAFETY: this process has a single thread, so no lock is held by one that the child lacks.
        let forked = unsafe { libc::fork() };
        match forked {
            -1 => Err(system("fork")(io::Error::last_os_error())),
            0 => {
                drop((order_write, reports_read, pumps));
                let failure =
                    become_command(command, steps, order_read.into(), reports_write, streams, launcher);
                std::process::exit(failure.into());
            }
            raw => {
                let pid = Pid::from_raw(raw).ok_or(LaunchError::Died)?;
                let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(system("hold the new process"))?;
                Ok(Self { pid, pidfd, order: order_write.into(), reports: reports_read.into(), pumps })
            }
        }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// A descriptor of the process.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets the process harden itself and become the command, and waits until it has.
    ///
    /// # Errors
    /// It didn't; it is gone.
    pub fn release(mut self, order: &Order) -> Result<RunningCommand, LaunchError> {
        let text = serde_json::to_vec(order).map_err(system("write the order"))?;
        self.order.write_all(&text).map_err(system("tell the new process"))?;
        drop(self.order);
        let mut command = RunningCommand {
            pid: self.pid,
            pidfd: self.pidfd,
            outputs: self.pumps.into_iter().filter_map(Pump::start).collect(),
            warnings: Vec::new(),
        };
        for line in BufReader::new(self.reports).lines() {
            let line = line.map_err(system("hear from the new process"))?;
            match serde_json::from_str(&line).map_err(system("understand the new process"))? {
                Report::Warning(text) => command.warnings.push(text),
                Report::Refused { step, cause, exit_code } => {
                    let _reaped = command.wait();
                    return Err(LaunchError::Refused { step, cause, exit_code });
                }
            }
        }
        Ok(command)
    }
}

/// The command, running.
#[derive(Debug)]
pub struct RunningCommand {
    pid: Pid,
    pidfd: OwnedFd,
    outputs: Vec<JoinHandle<()>>,
    warnings: Vec<String>,
}

impl RunningCommand {
    /// What is held less well than it could be on this host.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A descriptor that becomes readable when the command ends.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal to the command's process group, as a terminal would. Call it only before [`wait`](Self::wait).
    pub fn signal(&self, signal: Signal) {
        // A group of which all have ended needs no signal.
        let _gone = kill_process_group(self.pid, signal);
    }

    /// Whether the command has ended. It stays for [`wait`](Self::wait).
    ///
    /// # Errors
    /// The system lost it.
    pub fn has_ended(&self) -> Result<bool, LaunchError> {
        let only_look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let found = waitid(WaitId::PidFd(self.pidfd.as_fd()), only_look);
        found.map(|status| status.is_some()).map_err(system("look at the command"))
    }

    /// Waits for the command's end: its exit status, or 128 and the number of the signal that killed it.
    ///
    /// # Errors
    /// The system lost it.
    pub fn wait(&self) -> Result<u8, LaunchError> {
        loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(system("wait for the command")(errno)),
                Ok(None) => return Err(LaunchError::Died),
                Ok(Some(status)) => {
                    let code = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => code & 0xff,
                        (None, Some(signal)) => signal.saturating_add(128),
                        (None, None) => i32::from(LAUNCH_FAILED),
                    };
                    return Ok(u8::try_from(code).unwrap_or(LAUNCH_FAILED));
                }
            }
        }
    }

    /// The threads that carry the command's output, which end after its last byte.
    #[must_use]
    pub fn into_outputs(self) -> Vec<JoinHandle<()>> {
        self.outputs
    }
}
