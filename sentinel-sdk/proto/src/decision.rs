//! The answer to "may this action run?", and why not.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ActionName, Money};

/// The answer. Anything that keeps an answer from being reached is a `Deny`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It may run now, and its doors are open.
    Allow,
    /// A human has to say: wait for the approval, then ask again.
    Pending,
    /// It may not run.
    Deny,
}

/// Which budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// All that a session may spend.
    Session,
    /// All that one run of it may spend.
    Run,
    /// All that the sessions of one policy may spend in a day.
    Day,
    /// All that one action may spend, over all runs.
    Action,
}

impl fmt::Display for BudgetScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::Run => "run",
            Self::Day => "day",
            Self::Action => "action",
        })
    }
}

/// Why an action may not run: a closed list, so that a new reason has to be thought of everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The action stands in `denied_actions`.
    DeniedAction,
    /// `allowed_actions` is there and doesn't name the action.
    NotInAllowlist {
        /// What it names.
        allowed: Vec<ActionName>,
    },
    /// Too many of this action in its window.
    RateLimited {
        /// The most that may start in a window.
        max_count: u64,
        /// The window's length in seconds.
        window_seconds: u64,
        /// When to try again, in milliseconds from the decision; none where it will never be possible.
        retry_after_ms: Option<u64>,
    },
    /// A budget has no room for it.
    BudgetExceeded {
        /// Which.
        budget: BudgetScope,
        /// What would be spent, reservations included, were it let start.
        spent: Money,
        /// The most that may be.
        limit: Money,
    },
    /// It has started as often as the policy allows.
    CallLimit {
        /// The most starts.
        limit: u64,
    },
    /// As many are in flight as the policy allows.
    ConcurrencyLimit {
        /// The most in flight at once.
        limit: u64,
    },
    /// The policy allows it at other hours.
    OutsideHours {
        /// When it is allowed, as the policy says it.
        allowed: String,
    },
    /// A human said no.
    ApprovalRejected {
        /// What the human noted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// No human said yes in time.
    ApprovalExpired {
        /// How long was waited.
        timeout_seconds: u64,
    },
    /// It was no longer wanted, or the policy changed meanwhile.
    ApprovalCancelled {
        /// Why.
        cause: String,
    },
    /// It needs an approval that nobody may give.
    NoApprover,
    /// It needs an approval, and whoever asked can't wait for one.
    ApprovalNeeded,
    /// An operator has paused the session.
    Paused,
    /// More actions of one session are in flight, or more names were used, than the agent keeps count of.
    QuotaExceeded {
        /// What there is too much of.
        quota: String,
        /// The most there may be.
        limit: u64,
    },
    /// The session has ended.
    SessionEnded,
    /// The ledger can't be written, so nothing may start.
    LedgerUnavailable {
        /// What the system said.
        cause: String,
    },
    /// The action's doors could not be opened, so it was not let start.
    EnforcementFailed {
        /// What the system said.
        cause: String,
    },
    /// The agent can't be reached, or doesn't answer in time: said by the SDK, never by the agent.
    AgentUnavailable {
        /// What happened.
        cause: String,
    },
    /// The request is malformed: said by the agent or by the SDK itself.
    InvalidRequest {
        /// What is wrong with it.
        cause: String,
    },
}

impl Reason {
    /// The code of the reason, as in JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::DeniedAction => "DENIED_ACTION",
            Self::NotInAllowlist { .. } => "NOT_IN_ALLOWLIST",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::BudgetExceeded { .. } => "BUDGET_EXCEEDED",
            Self::CallLimit { .. } => "CALL_LIMIT",
            Self::ConcurrencyLimit { .. } => "CONCURRENCY_LIMIT",
            Self::OutsideHours { .. } => "OUTSIDE_HOURS",
            Self::ApprovalRejected { .. } => "APPROVAL_REJECTED",
            Self::ApprovalExpired { .. } => "APPROVAL_EXPIRED",
            Self::ApprovalCancelled { .. } => "APPROVAL_CANCELLED",
            Self::NoApprover => "NO_APPROVER",
            Self::ApprovalNeeded => "APPROVAL_NEEDED",
            Self::Paused => "PAUSED",
            Self::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
            Self::SessionEnded => "SESSION_ENDED",
            Self::LedgerUnavailable { .. } => "LEDGER_UNAVAILABLE",
            Self::EnforcementFailed { .. } => "ENFORCEMENT_FAILED",
            Self::AgentUnavailable { .. } => "AGENT_UNAVAILABLE",
            Self::InvalidRequest { .. } => "INVALID_REQUEST",
        }
    }

    /// What would be allowed instead, or what to do: one sentence for the person or the model that reads it.
    #[must_use]
    pub fn way_out(&self) -> String {
        match self {
            Self::DeniedAction => {
                "don't retry it; do the task another way, or report that policy forbids it".to_owned()
            }
            Self::NotInAllowlist { allowed } if allowed.is_empty() => {
                "no action is allowed by this policy".to_owned()
            }
            Self::NotInAllowlist { allowed } => {
                let names: Vec<String> = allowed.iter().take(20).map(|name| format!("`{name}`")).collect();
                let more = if allowed.len() > names.len() { ", …" } else { "" };
                format!("allowed are {}{more}", names.join(", "))
            }
            Self::RateLimited { retry_after_ms: Some(ms), .. } => {
                format!("try again in {} s", ms.div_ceil(1000))
            }
            Self::RateLimited { retry_after_ms: None, .. } => {
                "it is never allowed: its limit is 0".to_owned()
            }
            Self::BudgetExceeded { spent, limit, budget } => format!(
                "it would bring the {budget} to {spent} of {limit} dollars; use a cheaper action, or ask for a larger `budgets.{}`",
                match budget {
                    BudgetScope::Session => "session",
                    BudgetScope::Run => "run",
                    BudgetScope::Day => "day",
                    BudgetScope::Action => "actions",
                }
            ),
            Self::CallLimit { .. } => {
                "don't retry it; do the task another way, or ask for a larger `max_calls`".to_owned()
            }
            Self::ConcurrencyLimit { .. } => "wait until one of them has ended".to_owned(),
            Self::OutsideHours { allowed } => format!("try again at its hours: {allowed}"),
            Self::ApprovalRejected { .. } => "don't retry it; do the task another way".to_owned(),
            Self::ApprovalExpired { .. } => {
                "an operator approves with `sentinel approvals`; ask again when one is there".to_owned()
            }
            Self::ApprovalCancelled { .. } => "ask again if it is still wanted".to_owned(),
            Self::NoApprover => "the operator has to name somebody in `approvals.approvers`".to_owned(),
            Self::ApprovalNeeded => "ask in a way that waits for the approval".to_owned(),
            Self::Paused => "wait until an operator resumes it".to_owned(),
            Self::QuotaExceeded { quota, .. } if quota == "ledger bytes" => {
                "the session has had too much written about it; start a new one".to_owned()
            }
            Self::QuotaExceeded { limit, .. } => {
                format!("wait until some have ended; at most {limit} are kept")
            }
            Self::SessionEnded => "start a new session with `sentinel run`".to_owned(),
            Self::LedgerUnavailable { .. } => {
                "the operator has to mend what keeps the ledger from being written: room on its disk, its rights, or a file that was changed".to_owned()
            }
            Self::EnforcementFailed { .. } => "the operator finds the cause in the agent's log".to_owned(),
            Self::AgentUnavailable { .. } => {
                "start the program with `sentinel run`, and see `sentinel status`".to_owned()
            }
            Self::InvalidRequest { .. } => "correct the call".to_owned(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeniedAction => write!(f, "it stands in `denied_actions`"),
            Self::NotInAllowlist { .. } => write!(f, "`allowed_actions` doesn't name it"),
            Self::RateLimited { max_count, window_seconds, .. } => {
                write!(f, "rate limit reached: {max_count} in {window_seconds} s")
            }
            Self::BudgetExceeded { budget, spent, limit } => {
                write!(f, "{budget} budget exceeded: {spent} > {limit} USD")
            }
            Self::CallLimit { limit } => write!(f, "it has started {limit} times, and may not more often"),
            Self::ConcurrencyLimit { limit } => {
                write!(f, "{limit} are in flight, and may not be more at once")
            }
            Self::OutsideHours { .. } => write!(f, "it is not allowed at this hour"),
            Self::ApprovalRejected { note: Some(note) } => write!(f, "an operator rejected it: {note}"),
            Self::ApprovalRejected { note: None } => write!(f, "an operator rejected it"),
            Self::ApprovalExpired { timeout_seconds } => {
                write!(f, "nobody approved it within {timeout_seconds} s")
            }
            Self::ApprovalCancelled { cause } => write!(f, "its approval was cancelled: {cause}"),
            Self::NoApprover => write!(f, "it needs an approval that nobody may give"),
            Self::ApprovalNeeded => write!(f, "a human has to approve it first"),
            Self::Paused => write!(f, "an operator has paused its session"),
            Self::QuotaExceeded { quota, limit } => write!(f, "too many {quota}: at most {limit}"),
            Self::SessionEnded => write!(f, "its session has ended"),
            Self::LedgerUnavailable { cause } => write!(f, "the ledger can't be written: {cause}"),
            Self::EnforcementFailed { cause } => write!(f, "its doors could not be opened: {cause}"),
            Self::AgentUnavailable { cause } => write!(f, "the agent can't be reached: {cause}"),
            Self::InvalidRequest { cause } => write!(f, "the request is malformed: {cause}"),
        }
    }
}

/// The line of the policy that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulePlace {
    /// The rule's path in the policy, such as `budgets.session`.
    pub rule: String,
    /// Its line, from 1; 0 where the application itself made the rule.
    pub line: u32,
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, line } = self;
        match line {
            0 => write!(f, "`{rule}`, by the application itself"),
            _ => write!(f, "`{rule}`, line {line} of the policy"),
        }
    }
}

/// A refusal, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// By which line of the policy; none where no rule was the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RulePlace>,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if let Some(place) = &self.rule {
            write!(f, " ({place})")?;
        }
        write!(f, "; {}", self.reason.way_out())
    }
}
