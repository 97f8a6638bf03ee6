//! What to do about a refusal, in the seed's words, so that a model that reads it doesn't try the same again.

use serde::Serialize;

use crate::{ActionName, Reason};

/// What the seed calls a `remediation_payload`. Keys that it has for features which aren't ours are there and empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remediation {
    /// [`Reason::code`].
    pub reason_code: &'static str,
    /// Empty.
    pub missing_requirements: [String; 0],
    /// Empty.
    pub required_prior_actions: [String; 0],
    /// [`Reason::way_out`].
    pub retry_guidance: String,
    /// Actions that the policy allows, where it names them.
    pub safe_alternatives: Vec<ActionName>,
    /// Empty.
    pub stale_evidence: [String; 0],
    /// Empty.
    pub argument_violations: [String; 0],
    /// After so many whole seconds the same call may pass. Only a rate limit has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl Reason {
    /// What to do about it, with the seed's keys.
    #[must_use]
    pub fn remediation(&self) -> Remediation {
        let (safe_alternatives, retry_after_ms) = match self {
            Self::NotInAllowlist { allowed } => (allowed.clone(), None),
            Self::RateLimited { retry_after_ms, .. } => (Vec::new(), *retry_after_ms),
            _ => (Vec::new(), None),
        };
        Remediation {
            reason_code: self.code(),
            missing_requirements: [],
            required_prior_actions: [],
            retry_guidance: self.way_out(),
            safe_alternatives,
            stale_evidence: [],
            argument_violations: [],
            retry_after_seconds: retry_after_ms.map(|ms| ms.div_ceil(1_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_tells_when_to_come_back_and_an_allow_list_what_else_there_is() {
        let limited = Reason::RateLimited { max_count: 2, window_seconds: 60, retry_after_ms: Some(1_200) };
        assert_eq!(limited.remediation().retry_after_seconds, Some(2));
        let search = ActionName::new("search").unwrap();
        let unlisted = Reason::NotInAllowlist { allowed: vec![search.clone()] };
        assert_eq!(unlisted.remediation().safe_alternatives, [search]);
        assert_eq!(unlisted.remediation().retry_after_seconds, None);
    }
}
