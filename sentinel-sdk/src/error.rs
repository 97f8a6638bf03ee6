//! Why a body did not run.

use std::fmt;

use sentinel_proto::app::KernelDenial;
use sentinel_proto::{Denial, Reason};

/// A refusal: the guarded body did not run.
#[derive(Clone, Debug)]
pub struct Error {
    action: Option<String>,
    denial: Box<Denial>,
}

impl Error {
    pub(crate) fn denied(action: &str, denial: Denial) -> Self {
        Self { action: Some(action.to_owned()), denial: Box::new(denial) }
    }

    /// No answer, and so no.
    pub(crate) fn unavailable(cause: impl fmt::Display) -> Self {
        let reason = Reason::AgentUnavailable { cause: cause.to_string() };
        Self { action: None, denial: Box::new(Denial { reason, rule: None }) }
    }

    pub(crate) fn invalid(cause: impl fmt::Display) -> Self {
        let reason = Reason::InvalidRequest { cause: cause.to_string() };
        Self { action: None, denial: Box::new(Denial { reason, rule: None }) }
    }

    pub(crate) fn of_action(mut self, action: &str) -> Self {
        self.action = Some(action.to_owned());
        self
    }

    /// Whether the agent decided so: by the policy, or because it could not enforce or record. False where there was no answer.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        !self.is_unavailable()
    }

    /// Whether the agent could not be reached, or did not answer in time.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.denial.reason, Reason::AgentUnavailable { .. })
    }

    /// The action's name, where it is about one.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    /// The refusal, whole: reason, and the policy's rule and line.
    #[must_use]
    pub fn denial(&self) -> &Denial {
        &self.denial
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.denial.reason
    }

    /// The reason's code, such as `BUDGET_EXCEEDED`.
    #[must_use]
    pub fn reason_code(&self) -> Option<&'static str> {
        Some(self.denial.reason.code())
    }

    /// What would be allowed instead, or what to do.
    #[must_use]
    pub fn way_out(&self) -> String {
        self.denial.reason.way_out()
    }

    /// What the kernel refused to this process in the last minute, newest last. Asks the agent, and blocks for that; empty where it
    /// doesn't answer.
    #[must_use]
    pub fn kernel_denials(&self) -> Vec<KernelDenial> {
        crate::kernel_denials_blocking(std::time::Duration::from_secs(60)).unwrap_or_default()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Some(action) => write!(f, "action `{action}` was denied: {}", self.denial),
            None => self.denial.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
