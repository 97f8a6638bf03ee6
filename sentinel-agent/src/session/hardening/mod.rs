//! What a process gives up before it becomes a session's command.
//!
//! An ordered list of [`STEPS`], each for one thing. Invariant: after the first step that fails none of the rest runs,
//! and the command doesn't either. A step never undoes another's work; a test can leave any one out and see what only
//! that one holds.

mod domain;
mod folders;
mod mounts;
mod privileges;
mod seccomp;
mod streams;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::user::User;

/// The socket for applications, where a session sees it.
pub const SOCKET_IN_SESSION: &str = "/run/agent-sentinel/agent.sock";

/// Why a process can't be held as it must be.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// This host can't do it.
    #[error("{0}")]
    Unsupported(String),
}

/// A step's error, from what the system said.
fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> HardeningError {
    let what = what.into();
    move |source| HardeningError::System { what, source: source.into() }
}

/// What the steps need to know, and what they found.
#[derive(Debug)]
pub struct Confinement {
    /// Whom the command runs as.
    pub user: User,
    /// Whether this process is root, and so needs no user namespace for its mounts.
    pub root: bool,
    /// The process that waits for the command, and takes it with it when it dies.
    pub launcher: u32,
    /// What replaces standard input, output and error; none: it stays.
    pub streams: [Option<OwnedFd>; 3],
    /// The descriptor that stays open until the exec.
    pub keep: OwnedFd,
    /// Where the agent listens for applications; none only in tests.
    pub agent_socket: Option<PathBuf>,
    /// The agent's own folders.
    pub mask: Vec<PathBuf>,
    /// Unix sockets that the policy opens.
    pub unix_allow: Vec<PathBuf>,
    /// The command's working folder.
    pub working_folder: PathBuf,
    /// What is weaker than it could be, in sentences for the operator.
    pub warnings: Vec<String>,
}

/// One thing that a process gives up.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What it is called in messages and tests.
    pub name: &'static str,
    /// Does it.
    pub run: fn(&mut Confinement) -> Result<(), HardeningError>,
}

/// All steps, in the order that they need: first what takes root's rights, then those rights, then system calls.
pub const STEPS: &[Step] = &[
    Step { name: "own-session", run: privileges::lead_own_session },
    Step { name: "standard-streams", run: streams::replace_streams },
    Step { name: "descriptors", run: streams::close_descriptors },
    Step { name: "mount-namespace", run: mounts::enter_own_namespace },
    Step { name: "cgroup-folders", run: folders::make_cgroups_read_only },
    Step { name: "kernel-folders", run: folders::cover_kernel_folders },
    Step { name: "kernel-settings", run: folders::make_kernel_settings_read_only },
    Step { name: "run-folder", run: folders::replace_run_folder },
    Step { name: "agent-folders", run: folders::cover_agent_folders },
    Step { name: "unix-sockets", run: folders::cover_unix_sockets },
    Step { name: "working-folder", run: folders::enter_working_folder },
    Step { name: "no-new-privileges", run: privileges::renounce_new_privileges },
    Step { name: "capability-bounds", run: privileges::bound_capabilities },
    Step { name: "user", run: privileges::become_user },
    Step { name: "capabilities", run: privileges::drop_capabilities },
    Step { name: "dies-with-launcher", run: privileges::die_with_launcher },
    Step { name: "landlock", run: domain::enter_domain },
    Step { name: "seccomp-abi", run: seccomp::refuse_foreign_calls },
    Step { name: "seccomp-calls", run: seccomp::refuse_calls },
    Step { name: "seccomp-clone3", run: seccomp::refuse_clone3 },
    Step { name: "seccomp-sockets", run: seccomp::refuse_socket_families },
    Step { name: VERIFICATION, run: privileges::verify },
];

/// The last step: the kernel's own word that the ones on privileges took hold.
pub const VERIFICATION: &str = "verification";

/// Runs `steps` in order.
///
/// # Errors
/// The name of the first that failed, and why. The process must not become the command.
pub fn harden(confinement: &mut Confinement, steps: &[Step]) -> Result<(), (&'static str, HardeningError)> {
    for step in steps {
        (step.run)(confinement).map_err(|error| (step.name, error))?;
    }
    Ok(())
}
