//! The state: the fold of facts, and what the shells ask of it.

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel_proto::{ActionId, ActionName, Money, SessionId, SessionName, Tag};

use crate::budget::Total;
use crate::rate::Starts;
use crate::{GrantSet, Policy, ScopeId};

/// All that is known. Equal facts give equal states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) names: BTreeMap<SessionName, SessionId>,
    pub(crate) actions: BTreeMap<ActionId, InFlight>,
    /// The highest session id ever given.
    pub(crate) last_session: u32,
}

/// One session. It stays after its end only if it has a name to go on under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) name: Option<SessionName>,
    pub(crate) alive: bool,
    pub(crate) run: u64,
    pub(crate) session_total: Total,
    pub(crate) run_total: Total,
    pub(crate) actions: BTreeMap<ActionName, ActionTotal>,
    pub(crate) in_flight: u64,
    pub(crate) counters: Counters,
}

/// What one action has cost over all runs of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ActionTotal {
    pub(crate) total: Total,
    pub(crate) count: u64,
    pub(crate) starts: Starts,
}

/// How often what was decided in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Actions that were let start.
    pub allowed: u64,
    /// Actions that were not.
    pub denied: u64,
    /// What the kernel refused.
    pub kernel_denials: u64,
}

/// An action that was let start and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// In which session.
    pub session: SessionId,
    /// In which run it started.
    pub run: u64,
    /// For which scope.
    pub scope: ScopeId,
    /// Its name.
    pub action: ActionName,
    /// What is reserved for it.
    pub reserved: Money,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// What it opens.
    pub grants: GrantSet,
    /// When it started, on the clock of [`crate::Now::elapsed`].
    pub started: Duration,
    /// As which moment its start counts for rate limits.
    pub(crate) slot: Duration,
    /// When it expires, on the same clock.
    pub deadline: Duration,
}

/// What a session has spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTotals {
    /// By the session, reservations included.
    pub session: Money,
    /// By the current run, reservations included.
    pub run: Money,
    /// The current run's number, from 1.
    pub run_number: u64,
    /// Actions in flight.
    pub in_flight: u64,
    /// How often what was decided.
    pub counters: Counters,
}

impl State {
    /// The state before any fact.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a session has spent; none where there is no such session.
    #[must_use]
    pub fn totals(&self, session: SessionId) -> Option<SessionTotals> {
        let session = self.sessions.get(&session)?;
        Some(SessionTotals {
            session: session.session_total.committed(),
            run: session.run_total.committed(),
            run_number: session.run,
            in_flight: session.in_flight,
            counters: session.counters,
        })
    }

    /// An action in flight; none where it is unknown or has ended.
    #[must_use]
    pub fn in_flight(&self, action_id: ActionId) -> Option<&InFlight> {
        self.actions.get(&action_id)
    }

    /// The session of an action in flight.
    #[must_use]
    pub fn session_of(&self, action_id: ActionId) -> Option<SessionId> {
        self.actions.get(&action_id).map(|action| action.session)
    }

    /// All actions in flight in a scope.
    pub fn actions_of_scope(&self, scope: ScopeId) -> impl Iterator<Item = (ActionId, &InFlight)> {
        self.actions.iter().filter(move |(_, action)| action.scope == scope).map(|(id, action)| (*id, action))
    }

    /// Whether a session has begun and not ended.
    #[must_use]
    pub fn is_alive(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.alive)
    }

    /// The session that bears this name, alive or not.
    #[must_use]
    pub fn session_named(&self, name: &SessionName) -> Option<SessionId> {
        self.names.get(name).copied()
    }

    /// A session's name; none where it has none.
    #[must_use]
    pub fn name_of(&self, session: SessionId) -> Option<&SessionName> {
        self.sessions.get(&session)?.name.as_ref()
    }

    /// A session's current run, from 1; none where there is no such session.
    #[must_use]
    pub fn run_of(&self, session: SessionId) -> Option<u64> {
        self.sessions.get(&session).map(|session| session.run)
    }

    /// An id that no session ever had.
    #[must_use]
    pub fn next_session(&self) -> SessionId {
        SessionId(self.last_session.saturating_add(1))
    }

    /// Sessions that have begun and not ended.
    pub fn living_sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().filter(|(_, session)| session.alive).map(|(id, _)| *id)
    }

    /// When the next action expires, on the clock of [`crate::Now::elapsed`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.actions.values().map(|action| action.deadline).min()
    }

    /// Whether a session or run budget of this session is spent. A session that isn't there is.
    #[must_use]
    pub fn is_exhausted(&self, session: SessionId, policy: &Policy) -> bool {
        let Some(session) = self.sessions.get(&session) else { return true };
        let spent = |limit: Option<crate::Limit>, total: Total| {
            limit.is_some_and(|limit| total.committed() >= limit.amount)
        };
        spent(policy.budgets.session, session.session_total) || spent(policy.budgets.run, session.run_total)
    }
}
