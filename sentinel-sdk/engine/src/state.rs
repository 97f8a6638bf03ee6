//! The state: the fold of facts, and what the shells ask of it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDate;
use sentinel_proto::{ActionId, ActionName, ApprovalId, Money, SessionId, SessionName, Tag};
use serde::{Deserialize, Serialize};

use crate::budget::Total;
use crate::rate::Starts;
use crate::{Approval, GrantSet, Now, Policy, ScopeId};

/// All that is known. Equal facts give equal states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) names: BTreeMap<SessionName, SessionId>,
    pub(crate) actions: BTreeMap<ActionId, InFlight>,
    /// Actions that were interrupted, and charged in full, while their session lives on: their application may still say how they ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) interrupted: BTreeMap<ActionId, InFlight>,
    pub(crate) approvals: BTreeMap<ApprovalId, Approval>,
    /// What the sessions of each policy have spent on the last two days on which they did.
    pub(crate) days: BTreeMap<String, BTreeMap<NaiveDate, Total>>,
    /// The highest session id ever given.
    pub(crate) last_session: u32,
}

/// One session. It stays after its end only if it has a name to go on under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) name: Option<SessionName>,
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    /// Its policy's name, the SHA-256 of its text, and how many versions of it the session has had.
    pub(crate) policy: String,
    pub(crate) policy_sha256: String,
    pub(crate) generation: u64,
    pub(crate) uid: u32,
    pub(crate) run: u64,
    pub(crate) session_total: Total,
    pub(crate) run_total: Total,
    pub(crate) actions: BTreeMap<ActionName, ActionTotal>,
    pub(crate) in_flight: u64,
    pub(crate) counters: Counters,
}

/// What one action has cost over all runs of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActionTotal {
    pub(crate) total: Total,
    pub(crate) count: u64,
    pub(crate) in_flight: u64,
    pub(crate) starts: Starts,
}

/// How often what was decided in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Actions that were let start.
    pub allowed: u64,
    /// Actions that were not.
    pub denied: u64,
    /// What the kernel refused.
    pub kernel_denials: u64,
}

/// An action that was let start and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// To which day's budget it counts.
    pub(crate) day: Option<NaiveDate>,
    /// The approval that it uses.
    pub(crate) approval: Option<ApprovalId>,
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

    /// How often each action of a session was started, and what it cost, reservations included.
    pub fn action_totals(&self, session: SessionId) -> impl Iterator<Item = (&ActionName, u64, Money)> {
        let actions = self.sessions.get(&session).map(|session| session.actions.iter());
        actions.into_iter().flatten().map(|(name, total)| (name, total.count, total.total.committed()))
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

    /// An action that was interrupted and whose end can still be told; none where it is unknown, too old or has been told.
    #[must_use]
    pub fn interrupted(&self, action_id: ActionId) -> Option<&InFlight> {
        self.interrupted.get(&action_id)
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

    /// All sessions that have a name.
    pub fn names(&self) -> impl Iterator<Item = (SessionId, &SessionName)> {
        self.sessions.iter().filter_map(|(id, session)| Some((*id, session.name.as_ref()?)))
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

    /// When the next action or approval expires, on the clock of [`Now::elapsed`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let actions = self.actions.values().map(|action| action.deadline).min();
        let approvals = self.approvals.values().filter(|approval| !self.is_in_use(approval));
        actions.into_iter().chain(approvals.map(|approval| approval.deadline).min()).min()
    }

    /// Whether an approval is used up by actions that are still in flight: then it ends with these.
    pub(crate) fn is_in_use(&self, approval: &Approval) -> bool {
        approval.permit.as_ref().is_some_and(|permit| permit.uses_left == 0)
    }

    /// Whether a session is paused.
    #[must_use]
    pub fn is_paused(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.paused)
    }

    /// The name of a session's policy and the SHA-256 of its text; none where there is no such session.
    #[must_use]
    pub fn policy_of(&self, session: SessionId) -> Option<(&str, &str)> {
        self.sessions.get(&session).map(|session| (session.policy.as_str(), session.policy_sha256.as_str()))
    }

    /// Living sessions that have the same policy as this one, by its name.
    pub(crate) fn sessions_under_policy_of(&self, session: SessionId) -> impl Iterator<Item = SessionId> {
        let policy = self.sessions.get(&session).map(|session| session.policy.as_str());
        self.sessions
            .iter()
            .filter(move |(_, other)| other.alive && Some(other.policy.as_str()) == policy)
            .map(|(id, _)| *id)
    }

    /// How many versions of its policy a session has had; 0 where there is no such session.
    #[must_use]
    pub fn generation_of(&self, session: SessionId) -> u64 {
        self.sessions.get(&session).map_or(0, |session| session.generation)
    }

    /// The uid that a session's command was started as.
    #[must_use]
    pub fn uid_of(&self, session: SessionId) -> Option<u32> {
        self.sessions.get(&session).map(|session| session.uid)
    }

    /// All actions in flight in a session.
    pub fn actions_of_session(&self, session: SessionId) -> impl Iterator<Item = (ActionId, &InFlight)> {
        self.actions
            .iter()
            .filter(move |(_, action)| action.session == session)
            .map(|(id, action)| (*id, action))
    }

    /// The latest day on which sessions of this session's policy spent, and how much they did.
    pub(crate) fn day_of(&self, session: SessionId) -> Option<(NaiveDate, Total)> {
        let (day, total) = self.days.get(&self.sessions.get(&session)?.policy)?.last_key_value()?;
        Some((*day, *total))
    }

    /// Whether a session, run or day budget of this session is spent. A session that isn't there is.
    #[must_use]
    pub fn is_exhausted(&self, id: SessionId, policy: &Policy, now: Now) -> bool {
        let Some(session) = self.sessions.get(&id) else { return true };
        let spent = |limit: Option<crate::Limit>, total: Total| {
            limit.is_some_and(|limit| total.committed() >= limit.amount)
        };
        let today = || {
            let limit = policy.budgets.day?;
            let (day, total) = self.day_of(id)?;
            // A day that can't be told never frees what was spent.
            let is_over = limit.timezone.day(now).is_some_and(|today| today > day);
            Some(!is_over && spent(Some(limit.limit), total))
        };
        let day_is_empty = policy.budgets.day.is_some_and(|day| day.limit.amount == Money::ZERO);
        spent(policy.budgets.session, session.session_total)
            || spent(policy.budgets.run, session.run_total)
            || today().unwrap_or(day_is_empty)
    }

    /// Moves all moments on the clock of [`Now::elapsed`] from when this state was written to now, of another boot perhaps: by as much wall time
    /// as has passed, but never backwards.
    pub fn rebase(&mut self, written: Now, now: Now) {
        let passed = Duration::from_micros(now.wall_micros.saturating_sub(written.wall_micros));
        // What was `written.elapsed` then is this now.
        let anchor = now.elapsed.saturating_sub(passed);
        let moved = |moment: Duration| {
            if moment >= written.elapsed {
                anchor.saturating_add(moment.saturating_sub(written.elapsed))
            } else {
                anchor.saturating_sub(written.elapsed.saturating_sub(moment))
            }
        };
        for session in self.sessions.values_mut() {
            for action in session.actions.values_mut() {
                action.starts.rebase(moved);
            }
        }
        for action in self.actions.values_mut().chain(self.interrupted.values_mut()) {
            for moment in [&mut action.started, &mut action.slot, &mut action.deadline] {
                *moment = moved(*moment);
            }
        }
        for approval in self.approvals.values_mut() {
            approval.deadline = moved(approval.deadline);
        }
    }
}
