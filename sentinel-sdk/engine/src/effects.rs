//! What the outside world has to do for facts that were just applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sentinel_proto::SessionId;

use crate::{Effect, Fact, GrantSet, Now, OnExhausted, Opening, Policy, ScopeId, State};

/// The orders that follow from these facts, once all of them are applied. The same order twice is harmless.
#[must_use]
pub fn effects(
    state: &State,
    policies: &BTreeMap<SessionId, Arc<Policy>>,
    facts: &[Fact],
    now: Now,
) -> Vec<Effect> {
    let mut scopes: BTreeSet<(SessionId, ScopeId)> = BTreeSet::new();
    let mut spenders: BTreeSet<SessionId> = BTreeSet::new();
    let (mut frozen, mut thawed) = (Vec::new(), Vec::new());
    let mut changed: BTreeSet<SessionId> = BTreeSet::new();
    for fact in facts {
        match fact {
            Fact::ActionStarted { session, scope, grants, .. } => {
                spenders.insert(*session);
                if !grants.is_empty() {
                    scopes.insert((*session, *scope));
                }
            }
            Fact::ActionEnded { session, scope, grants, .. } => {
                spenders.insert(*session);
                if !grants.is_empty() {
                    scopes.insert((*session, *scope));
                }
            }
            Fact::ActionRegranted { session, scope, .. } => {
                scopes.insert((*session, *scope));
            }
            Fact::SessionStarted { session, .. }
            | Fact::RunReset { session, .. }
            | Fact::SessionReset { session, .. }
            | Fact::ActionCorrected { session, .. } => {
                spenders.insert(*session);
            }
            Fact::PolicyChanged { session, .. } => {
                changed.insert(*session);
                scopes.extend(doors_of(state, *session));
            }
            Fact::SessionPaused { session, .. } => {
                changed.insert(*session);
                scopes.extend(doors_of(state, *session));
                frozen.push(Effect::SetFrozen { session: *session, frozen: true });
            }
            Fact::SessionResumed { session, .. } => {
                changed.insert(*session);
                scopes.extend(doors_of(state, *session));
                thawed.push(Effect::SetFrozen { session: *session, frozen: false });
            }
            Fact::AgentStarted { .. }
            | Fact::AgentStopped
            | Fact::SessionEnded { .. }
            | Fact::ActionDenied { .. }
            | Fact::ActionWarned { .. }
            | Fact::ActionRecorded(_)
            | Fact::ApprovalRequested { .. }
            | Fact::ApprovalGiven { .. }
            | Fact::ApprovalClosed { .. }
            | Fact::KillOrdered { .. }
            | Fact::PoliciesReloaded { .. }
            | Fact::Gap { .. }
            | Fact::KernelDenied { .. }
            | Fact::Examined { .. }
            | Fact::RecordsDropped { .. } => {}
        }
    }
    // What closes comes before what opens: the baseline first, as a spent budget only ever closes it here. Who is paused is frozen before the
    // doors shut, and goes on only when all is as it has to be.
    // A day's budget is that of all sessions under its policy.
    let sharers: Vec<SessionId> = spenders
        .iter()
        .filter(|session| policies.get(session).is_some_and(|policy| policy.budgets.day.is_some()))
        .flat_map(|session| state.sessions_under_policy_of(*session))
        .collect();
    spenders.extend(sharers);
    let may_be_spent = |session: &SessionId| policies.get(session).is_some_and(|policy| can_be_spent(policy));
    changed.extend(spenders.into_iter().filter(may_be_spent));
    let baselines = changed.into_iter().filter_map(|session| {
        let policy = policies.get(&session)?;
        baseline(state, policy, session, now)
    });
    let doors = scopes.into_iter().map(|(session, scope)| doors(state, session, scope));
    frozen.into_iter().chain(baselines).chain(doors).chain(thawed).collect()
}

/// The scopes of a session that have doors of their own.
fn doors_of(state: &State, session: SessionId) -> impl Iterator<Item = (SessionId, ScopeId)> {
    let with_doors = state.actions_of_session(session).filter(|(_, action)| !action.grants.is_empty());
    with_doors.map(move |(_, action)| (session, action.scope))
}

/// Whether what a session spends can ever shut its baseline network.
fn can_be_spent(policy: &Policy) -> bool {
    let budgets = &policy.budgets;
    let has_budget = budgets.session.is_some() || budgets.run.is_some() || budgets.day.is_some();
    has_budget && policy.on_exhausted == OnExhausted::Close
}

/// Whether a session's baseline network is open: it follows its budgets, where the policy lets it, and is shut while an operator pauses it.
#[must_use]
pub fn baseline(state: &State, policy: &Policy, session: SessionId, now: Now) -> Option<Effect> {
    if !state.is_alive(session) {
        return None;
    }
    let is_spent = can_be_spent(policy) && state.is_exhausted(session, policy, now);
    Some(Effect::SetBaselineNetwork { session, open: !is_spent && !state.is_paused(session) })
}

/// A scope's doors are those of all its actions in flight, until the last of these expires. A paused session has none.
fn doors(state: &State, session: SessionId, scope: ScopeId) -> Effect {
    let mut open = GrantSet::EMPTY;
    let mut until = Duration::ZERO;
    let mut openings = Vec::new();
    let is_paused = state.is_paused(session);
    let in_flight = state.actions_of_scope(scope).filter(|(_, action)| !action.grants.is_empty());
    for (_, action) in in_flight.filter(|_| !is_paused) {
        open = open.union(action.grants);
        until = until.max(action.deadline);
        openings.push(Opening { grants: action.grants, since: action.started });
    }
    Effect::SetDoors { session, scope, open, until, openings }
}
