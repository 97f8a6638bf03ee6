//! The policy of a process that decides for itself.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sentinel_engine::Policy;
use sha2::{Digest as _, Sha256};

/// What decides in a process.
#[derive(Clone, Debug, Default)]
pub enum EmbeddedPolicy {
    /// Nobody has said anything: whatever is asked for may start, and is recorded.
    #[default]
    Unconfigured,
    /// A policy.
    Configured {
        /// It.
        policy: Arc<Policy>,
        /// What the ledger calls it.
        name: String,
        /// The SHA-256 of its text, in hex.
        sha256: String,
    },
    /// There is one, but it can't be read, and this is why: nothing may start.
    Failed(String),
}

/// Why a text is no policy: every problem of it, each at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(String);

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PolicyError {}

impl EmbeddedPolicy {
    /// Reads a policy; `name` is what the ledger and the problems call it, such as the name of its file.
    ///
    /// # Errors
    /// All its problems. A process that can't do without goes on with [`EmbeddedPolicy::Failed`].
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        let parsed =
            sentinel_policy::parse(text).map_err(|problems| PolicyError(problems.render(name, text)))?;
        let sha256 = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self::Configured { policy: Arc::new(parsed.policy), name: name.to_owned(), sha256 })
    }

    /// Reads a policy's file.
    ///
    /// # Errors
    /// It can't be read, or is none: all its problems.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path)
            .map_err(|error| PolicyError(format!("the policy `{shown}` can't be read: {error}")))?;
        let text = String::from_utf8(bytes)
            .map_err(|error| PolicyError(format!("the policy `{shown}` is no UTF-8: {error}")))?;
        let name = path.file_stem().map_or_else(|| shown.clone(), |stem| stem.to_string_lossy().into_owned());
        match Self::parse(&shown, &text)? {
            Self::Configured { policy, sha256, .. } => Ok(Self::Configured { policy, name, sha256 }),
            other => Ok(other),
        }
    }

    /// What lets nothing start, and says why.
    #[must_use]
    pub fn failed(error: PolicyError) -> Self {
        Self::Failed(error.0)
    }

    /// Whether there is a policy, whatever its state.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        !matches!(self, Self::Unconfigured)
    }
}
