//! What tells programs to decide for themselves, in their environment: the same names and defaults as the SDK's embedded mode.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// `embedded`, where they decide for themselves.
pub(super) const MODE: &str = "AGENT_SENTINEL_MODE";
/// The policy's file.
pub(super) const POLICY: &str = "AGENT_SENTINEL_POLICY";
/// The session's name.
pub(super) const SESSION: &str = "AGENT_SENTINEL_SESSION";
/// The folder with their ledger.
pub(super) const HOME: &str = "AGENT_SENTINEL_HOME";
/// An agent's socket. Where it is set, that decides.
pub(super) const SOCKET: &str = "AGENT_SENTINEL_SOCKET";

/// The session of all that don't name one.
pub(super) const DEFAULT_SESSION: &str = "default";
/// Where the ledger is when nothing says otherwise: below the folder that they run in.
const DEFAULT_HOME: &str = ".agent-sentinel";

/// A variable of this process's own environment; an empty one says nothing.
pub(super) fn own(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// The folder with the ledger: as given, else as the environment says.
pub(super) fn home(given: Option<&Path>) -> PathBuf {
    let named = given.map(Path::to_owned).or_else(|| own(HOME).map(PathBuf::from));
    named.unwrap_or_else(|| DEFAULT_HOME.into())
}
