//! What the outside world has to do for facts that were just applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sentinel_proto::SessionId;

use crate::{Effect, Fact, GrantSet, OnExhausted, Policy, ScopeId, State};

/// The orders that follow from these facts, once all of them are applied. The same order twice is harmless.
#[must_use]
pub fn effects(state: &State, policies: &BTreeMap<SessionId, Arc<Policy>>, facts: &[Fact]) -> Vec<Effect> {
    let mut scopes: BTreeSet<(SessionId, ScopeId)> = BTreeSet::new();
    let mut spenders: BTreeSet<SessionId> = BTreeSet::new();
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
            Fact::SessionStarted { session, .. } | Fact::RunReset { session, .. } => {
                spenders.insert(*session);
            }
            Fact::AgentStarted { .. }
            | Fact::AgentStopped
            | Fact::SessionEnded { .. }
            | Fact::ActionDenied { .. }
            | Fact::KernelDenied { .. }
            | Fact::RecordsDropped { .. } => {}
        }
    }
    // What closes comes before what opens: the baseline first, as a spent budget only ever closes it here.
    let baselines = spenders.into_iter().filter_map(|session| baseline(state, policies, session));
    baselines.chain(scopes.into_iter().map(|(session, scope)| doors(state, session, scope))).collect()
}

/// A session's baseline follows its budgets, where it has any and the policy lets it.
fn baseline(
    state: &State,
    policies: &BTreeMap<SessionId, Arc<Policy>>,
    session: SessionId,
) -> Option<Effect> {
    let policy = policies.get(&session).filter(|_| state.is_alive(session))?;
    let has_budget = policy.budgets.session.is_some() || policy.budgets.run.is_some();
    if !has_budget || policy.on_exhausted == OnExhausted::Keep {
        return None;
    }
    Some(Effect::SetBaselineNetwork { session, open: !state.is_exhausted(session, policy) })
}

/// A scope's doors are those of all its actions in flight, until the last of these expires.
fn doors(state: &State, session: SessionId, scope: ScopeId) -> Effect {
    let mut open = GrantSet::EMPTY;
    let mut until = Duration::ZERO;
    for (_, action) in state.actions_of_scope(scope).filter(|(_, action)| !action.grants.is_empty()) {
        open = open.union(action.grants);
        until = until.max(action.deadline);
    }
    Effect::SetDoors { session, scope, open, until }
}
