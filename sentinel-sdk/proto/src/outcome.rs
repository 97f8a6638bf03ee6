//! How an action stands or ended.

use serde::{Deserialize, Serialize};

/// The `outcome` of a ledger line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was let start; an ending line follows.
    Started,
    /// The body returned.
    Success,
    /// The body returned or raised an error.
    Error,
    /// The body panicked.
    Panicked,
    /// The body was dropped, cancelled or interrupted before it was done.
    Cancelled,
    /// It ran longer than its `max_seconds`.
    Expired,
    /// Its process died, or its connection broke, before it said how the action ended.
    Abandoned,
    /// The agent died meanwhile; charged in full.
    Interrupted,
    /// After [`Outcome::Interrupted`]: its application has said how it ended after all.
    Corrected,
    /// It was let start but its doors could not be opened; refunded, its body never ran.
    Aborted,
    /// Its recorded outcome was returned instead of running it.
    Replayed,
    /// It was not let start.
    Blocked,
    /// It broke a rule, and goes on: the policy isn't strict.
    Warned,
    /// A human is to say whether it may start.
    Pending,
    /// A human said that it may.
    Approved,
    /// A human said that it may not.
    Rejected,
    /// Not an action: something that the agent or the kernel recorded.
    Recorded,
}

impl Outcome {
    /// Whether a client may end its action with this.
    #[must_use]
    pub const fn is_reportable(self) -> bool {
        matches!(self, Self::Success | Self::Error | Self::Panicked | Self::Cancelled)
    }

    /// The word on the wire and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Success => "success",
            Self::Error => "error",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Abandoned => "abandoned",
            Self::Interrupted => "interrupted",
            Self::Corrected => "corrected",
            Self::Aborted => "aborted",
            Self::Replayed => "replayed",
            Self::Blocked => "blocked",
            Self::Warned => "warned",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Recorded => "recorded",
        }
    }
}
