//! Grants as bits, and the scopes that hold them.

use serde::{Deserialize, Serialize};

/// A set of grants: one bit for each grant of the policy. Bit 0 is the baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GrantSet(pub u64);

impl GrantSet {
    /// No door at all.
    pub const EMPTY: Self = Self(0);
    /// What is open without any action.
    pub const BASELINE: Self = Self(1);

    /// The set of the grant with this index in the policy; empty for an index that no bit stands for.
    #[must_use]
    pub fn of(index: usize) -> Self {
        u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).map_or(Self::EMPTY, Self)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it opens nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The processes that share doors: one that began an action, and those that it forked since its first `begin`.
/// Numbered by the agent, never used again; 0 is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeId(pub u64);
