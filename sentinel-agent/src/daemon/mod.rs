//! The daemon: from options to a running driver, and back to a host on which nothing is left.
//!
//! Invariant: the sockets are there only while enforcement is proven and the ledger is open.

mod policies;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

pub use policies::{LoadedPolicy, PoliciesError, load_folder, read_bounded};

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policies by name; at least one.
    pub policies: BTreeMap<String, LoadedPolicy>,
    /// The folder of the ledger; made, 0700, if it isn't there.
    pub state: PathBuf,
    /// The folder of the sockets and the lock; made, 0755, if it isn't there.
    pub runtime: PathBuf,
    /// The name of this agent among the host's: `host`, or `private-<pid>`.
    pub instance: String,
    /// Whether the end of standard input stops it.
    pub until_stdin_closes: bool,
}

/// Why the agent doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// This host can't enforce: exit status 69.
    #[error("{0}")]
    CannotEnforce(#[from] crate::enforcer::EnforcerError),
}

impl DaemonError {
    /// The exit status that tells it: 69 where the host can't enforce, else 71.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::CannotEnforce(_) => ExitCode::from(69),
        }
    }
}

/// Runs an agent until it is told to stop. `ready` is called once, when both sockets answer.
///
/// # Errors
/// It could not start, or could not go on; its sessions are killed, and nothing reopens.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let _ = (options, ready);
    Err(DaemonError::CannotEnforce(crate::enforcer::EnforcerError::Missing("not yet".to_owned())))
}
