//! The decision: from policy, state, event and time to facts. Changes nothing.
//!
//! Invariant: what has ended or was never there is the subject of no fact, so an event that comes twice counts once.

use std::time::Duration;

use sentinel_proto::{ActionId, Money, Outcome, Payload, SessionId};

use crate::begin::{begin, floor};
use crate::state::InFlight;
use crate::{Event, Fact, Now, Policy, SessionEnding, State};

/// Of a longer command only the beginning is recorded.
const MOST_COMMAND_BYTES: usize = 8 * 1024;
const QUOTES_AND_COMMA: usize = 3;

impl Event {
    /// The session whose policy decides on this event; none where it concerns no session or many.
    #[must_use]
    pub fn session(&self, state: &State) -> Option<SessionId> {
        match self {
            Self::SessionStart { session, .. }
            | Self::SessionEnd { session, .. }
            | Self::RunReset { session }
            | Self::End { session, .. }
            | Self::KernelDenied { session, .. } => Some(*session),
            Self::Begin(request) => Some(request.session),
            Self::Abort { action_id, .. } => state.session_of(*action_id),
            Self::AgentStarted { .. }
            | Self::AgentStopped
            | Self::Abandon { .. }
            | Self::Tick
            | Self::RecordsDropped { .. } => None,
        }
    }
}

/// What happens because of an event. `policy` is that of the event's session; without one, nothing may start.
#[must_use]
pub fn decide(policy: Option<&Policy>, state: &State, event: &Event, now: Now) -> Vec<Fact> {
    match event {
        Event::AgentStarted { version, tier } => {
            let started = Fact::AgentStarted { version: version.clone(), tier: tier.clone() };
            let interrupted = end_all(state, now, Outcome::Interrupted, |_| true);
            let orphaned = end_sessions(state, &SessionEnding::FoundOrphaned);
            std::iter::once(started).chain(interrupted).chain(orphaned).collect()
        }
        Event::AgentStopped => end_all(state, now, Outcome::Abandoned, |_| true)
            .chain(end_sessions(state, &SessionEnding::AgentStopped))
            .chain([Fact::AgentStopped])
            .collect(),
        Event::SessionStart { session, name, policy, policy_sha256, command, uid, tier } => {
            let known = name.as_ref().and_then(|name| state.session_named(name));
            let session = known.unwrap_or(*session);
            // An id that stands for another name's totals is not given away.
            if state.is_alive(session) || (known.is_none() && state.run_of(session).is_some()) {
                return Vec::new();
            }
            vec![Fact::SessionStarted {
                session,
                name: name.clone(),
                policy: policy.clone(),
                policy_sha256: policy_sha256.clone(),
                command: bounded(command),
                uid: *uid,
                tier: tier.clone(),
            }]
        }
        Event::SessionEnd { session, ending } => {
            if !state.is_alive(*session) {
                return Vec::new();
            }
            let ended = Fact::SessionEnded { session: *session, ending: ending.clone() };
            end_all(state, now, Outcome::Abandoned, |action| action.session == *session)
                .chain([ended])
                .collect()
        }
        Event::RunReset { session } => match state.run_of(*session) {
            Some(run) if state.is_alive(*session) => {
                vec![Fact::RunReset { session: *session, run: run.saturating_add(1) }]
            }
            Some(_) | None => Vec::new(),
        },
        Event::Begin(request) => vec![begin(policy, state, request, now)],
        Event::End { action_id, session, outcome, cost, outputs } => match state.in_flight(*action_id) {
            Some(action) if action.session == *session && outcome.is_reportable() => {
                let charged = charge(policy, action, *outcome, *cost);
                vec![end(*action_id, action, *outcome, charged, outputs.clone(), now)]
            }
            Some(_) | None => Vec::new(),
        },
        Event::Abort { action_id, cause } => match state.in_flight(*action_id) {
            Some(action) => {
                let cause = Payload::of(cause).unwrap_or_default();
                vec![end(*action_id, action, Outcome::Aborted, Money::ZERO, cause, now)]
            }
            None => Vec::new(),
        },
        Event::Abandon { action_ids } => {
            let in_flight =
                action_ids.iter().filter_map(|id| state.in_flight(*id).map(|action| (id, action)));
            in_flight
                .map(|(id, action)| {
                    end(*id, action, Outcome::Abandoned, action.reserved, Payload::null(), now)
                })
                .collect()
        }
        Event::Tick => {
            end_all(state, now, Outcome::Expired, |action| action.deadline <= now.elapsed).collect()
        }
        Event::KernelDenied { session, attempt, count } => {
            vec![Fact::KernelDenied { session: *session, attempt: attempt.clone(), count: *count }]
        }
        Event::RecordsDropped { count } => vec![Fact::RecordsDropped { count: *count }],
    }
}

/// As much of a command as a ledger line has room for, whatever has to be escaped in it.
fn bounded(command: &[String]) -> Vec<String> {
    let mut left = MOST_COMMAND_BYTES;
    let mut words = Vec::new();
    for word in command {
        let end = word.floor_char_boundary(left);
        left = left.saturating_sub(end.saturating_add(QUOTES_AND_COMMA));
        match word.get(..end) {
            Some(whole) if whole == word => words.push(whole.to_owned()),
            Some(beginning) => words.push(format!("{beginning}…")),
            None => {}
        }
        if left == 0 {
            break;
        }
    }
    words
}

fn end_sessions(state: &State, ending: &SessionEnding) -> impl Iterator<Item = Fact> {
    state.living_sessions().map(|session| Fact::SessionEnded { session, ending: ending.clone() })
}

fn end_all(
    state: &State,
    now: Now,
    outcome: Outcome,
    which: impl Fn(&InFlight) -> bool,
) -> impl Iterator<Item = Fact> {
    state
        .actions
        .iter()
        .filter(move |(_, action)| which(action))
        .map(move |(id, action)| end(*id, action, outcome, action.reserved, Payload::null(), now))
}

fn end(
    action_id: ActionId,
    action: &InFlight,
    outcome: Outcome,
    charged: Money,
    outputs: Payload,
    now: Now,
) -> Fact {
    Fact::ActionEnded {
        action_id,
        session: action.session,
        run: action.run,
        scope: action.scope,
        grants: action.grants,
        action: action.action.clone(),
        tags: action.tags.clone(),
        outcome,
        charged,
        overrun: charged.saturating_sub(action.reserved),
        duration: whole_micros(now.elapsed.saturating_sub(action.started)),
        outputs,
    }
}

/// To the microsecond, as a ledger line tells it, so that the fact can be rebuilt from its line.
fn whole_micros(duration: Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// What an action costs that an application ends: what it says, but never less than the policy's floor. One that failed
/// half way has cost its reservation at least.
fn charge(policy: Option<&Policy>, action: &InFlight, outcome: Outcome, cost: Option<Money>) -> Money {
    let floor = policy.map_or(action.reserved, |policy| floor(policy.actions.get(&action.action)));
    let cost = cost.unwrap_or(action.reserved);
    if outcome == Outcome::Success { cost.max(floor) } else { cost.max(action.reserved).max(floor) }
}
