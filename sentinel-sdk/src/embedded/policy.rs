//! The policy of a process that decides for itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sentinel_engine::{Approvals, Budgets, Policy};
use sentinel_proto::Money;
use serde_json::json;
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

    /// Budgets, lists, rates, strictness and approvals, with the keys of AgentSentinel's configuration; `is_whole` tells whether that is all that the
    /// policy says. Null where there is no policy.
    #[must_use]
    pub fn summary(&self) -> serde_json::Value {
        let Self::Configured { policy, .. } = self else { return serde_json::Value::Null };
        let (budgets, approvals) = (&policy.budgets, policy.approvals.as_ref());
        let actions: BTreeMap<&str, Money> =
            budgets.actions.iter().map(|(name, limit)| (name.as_str(), limit.amount)).collect();
        let rates: BTreeMap<&str, serde_json::Value> = policy
            .rates
            .iter()
            .map(|(name, rate)| {
                let told = json!({"max_count": rate.max_count, "window_seconds": rate.window.as_secs()});
                (name.as_str(), told)
            })
            .collect();
        json!({
            "session_budget": budgets.session.map(|limit| limit.amount),
            "run_budget": budgets.run.map(|limit| limit.amount),
            "action_budgets": actions,
            "denied_actions": policy.denied.keys().collect::<Vec<_>>(),
            "allowed_actions": policy.allowed.as_ref().map(|list| list.names.keys().collect::<Vec<_>>()),
            "rate_limits": rates,
            "strict_mode": policy.strict,
            "require_approval": policy.approvals.is_some(),
            "approval_actions": approvals.map(|rules| rules.actions.keys().collect::<Vec<_>>()).unwrap_or_default(),
            "approval_tags": approvals.map(|rules| rules.tags.keys().collect::<Vec<_>>()).unwrap_or_default(),
            "approval_risk_levels": approvals
                .map(|rules| rules.risk_levels.iter().map(|(level, _)| level).collect::<Vec<_>>())
                .unwrap_or_default(),
            "approval_threshold_usd": approvals.and_then(|rules| rules.from_cost).map(|limit| limit.amount),
            "approval_timeout_seconds": approvals.map_or(Approvals::DEFAULT_TIMEOUT, |rules| rules.timeout).as_secs(),
            "is_whole": is_whole(policy),
        })
    }

    /// Whether there is a policy, whatever its state.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        !matches!(self, Self::Unconfigured)
    }
}

/// Whether a policy says nothing but what its summary tells.
fn is_whole(policy: &Policy) -> bool {
    let rest = Policy {
        budgets: Budgets { session: None, run: None, actions: BTreeMap::new(), ..policy.budgets.clone() },
        denied: BTreeMap::new(),
        allowed: None,
        rates: BTreeMap::new(),
        strict: true,
        approvals: policy.approvals.clone().filter(|approvals| approvals.approvers.is_some()),
        ..policy.clone()
    };
    rest == Policy::empty()
}
