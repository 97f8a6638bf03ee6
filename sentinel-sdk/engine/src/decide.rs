//! The decision: from policy, state, event and time to facts. Changes nothing.
//!
//! Invariant: what has ended or was never there is the subject of no fact, so an event that comes twice counts once.

use std::time::Duration;

use sentinel_proto::{ActionId, Annotations, ApprovalId, Money, Outcome, Payload, SessionId};

use crate::begin::{begin, floor, grants, refuse};
use crate::state::InFlight;
use crate::{Approval, Closing, Event, Fact, GrantSet, Now, Policy, Recorded, SessionEnding, State};

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
            | Self::SessionReset { session, .. }
            | Self::End { session, .. }
            | Self::CancelApproval { session, .. }
            | Self::Pause { session, .. }
            | Self::Resume { session, .. }
            | Self::PolicyChange { session, .. }
            | Self::KernelDenied { session, .. } => Some(*session),
            Self::Begin(request) | Self::Refuse { request, .. } => Some(request.session),
            Self::Record(recorded) => Some(recorded.session),
            Self::Abort { action_id, .. } => state.session_of(*action_id),
            Self::Approve { approval_id, .. } | Self::Reject { approval_id, .. } => {
                state.approval(*approval_id).map(|approval| approval.wish.session)
            }
            Self::AgentStarted { .. }
            | Self::Gap { .. }
            | Self::AgentStopped
            | Self::Kill { .. }
            | Self::PoliciesReloaded { .. }
            | Self::Abandon { .. }
            | Self::Tick
            | Self::Examined { .. }
            | Self::RecordsDropped { .. } => None,
        }
    }
}

/// What happens because of an event. `policy` is that of the event's session; without one, nothing may start.
#[must_use]
pub fn decide(policy: Option<&Policy>, state: &State, event: &Event, now: Now) -> Vec<Fact> {
    match event {
        Event::AgentStarted { version, tier, adopted } => {
            let started = Fact::AgentStarted { version: version.clone(), tier: tier.clone() };
            let interrupted = end_all(state, now, Outcome::Interrupted, |_| true);
            let is_over = |session| !adopted.contains(&session);
            let orphaned = end_sessions(state, &SessionEnding::FoundOrphaned, is_over);
            std::iter::once(started).chain(interrupted).chain(orphaned).collect()
        }
        Event::Gap { after } => vec![Fact::Gap { after: *after }],
        Event::AgentStopped => end_all(state, now, Outcome::Abandoned, |_| true)
            .chain(end_sessions(state, &SessionEnding::AgentStopped, |_| true))
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
            end_all(state, now, Outcome::Abandoned, |action| action.session == *session)
                .chain(end_sessions(state, ending, |living| living == *session))
                .collect()
        }
        Event::RunReset { session } => match state.run_of(*session) {
            Some(run) if state.is_alive(*session) => {
                vec![Fact::RunReset { session: *session, run: run.saturating_add(1) }]
            }
            Some(_) | None => Vec::new(),
        },
        Event::SessionReset { session, operator } => {
            let is_there = state.run_of(*session).is_some();
            is_there
                .then_some(Fact::SessionReset { session: *session, operator: *operator })
                .into_iter()
                .collect()
        }
        Event::Record(recorded) => {
            let may = recorded.outcome.is_reportable() || recorded.outcome == Outcome::Replayed;
            let told = Recorded { duration: whole_micros(recorded.duration), ..(**recorded).clone() };
            (may && state.is_alive(recorded.session))
                .then(|| Fact::ActionRecorded(Box::new(told)))
                .into_iter()
                .collect()
        }
        Event::Begin(request) => begin(policy, state, request, now),
        Event::Refuse { request, denial } => vec![refuse(state, request, denial)],
        Event::End { action_id, session, outcome, cost, outputs, annotations } => {
            match state.in_flight(*action_id) {
                Some(action) if action.session == *session && outcome.is_reportable() => {
                    let charged = charge(policy, action, *outcome, *cost);
                    let told = Told { outputs: outputs.clone(), annotations: annotations.clone() };
                    vec![end(*action_id, action, *outcome, charged, told, now)]
                }
                Some(_) => Vec::new(),
                None => state
                    .interrupted(*action_id)
                    .filter(|action| action.session == *session && outcome.is_reportable())
                    .filter(|action| now.elapsed < action.deadline)
                    .map(|action| {
                        let charged = charge(policy, action, *outcome, *cost);
                        let told = Told { outputs: outputs.clone(), annotations: annotations.clone() };
                        correct(*action_id, action, *outcome, charged, told, now)
                    })
                    .into_iter()
                    .collect(),
            }
        }
        Event::Abort { action_id, cause } => match state.in_flight(*action_id) {
            Some(action) => {
                let cause = Told { outputs: Payload::of(cause).unwrap_or_default(), annotations: None };
                vec![end(*action_id, action, Outcome::Aborted, Money::ZERO, cause, now)]
            }
            None => Vec::new(),
        },
        Event::Abandon { action_ids } => {
            let in_flight =
                action_ids.iter().filter_map(|id| state.in_flight(*id).map(|action| (id, action)));
            in_flight
                .map(|(id, action)| {
                    end(*id, action, Outcome::Abandoned, action.reserved, Told::default(), now)
                })
                .collect()
        }
        Event::Tick => end_all(state, now, Outcome::Expired, |action| action.deadline <= now.elapsed)
            .chain(expired_approvals(state, now))
            .collect(),
        Event::Approve { approval_id, operator, note, uses, seconds, up_to } => {
            // Without `approvals` only the application itself can have asked for one: any operator may give it.
            let may = policy.is_some_and(|policy| {
                policy.approvals.as_ref().is_none_or(|approvals| approvals.may_be_given_by(operator))
            });
            waiting(state, *approval_id, now)
                .filter(|_| may)
                .map(|Approval { wish, .. }| Fact::ApprovalGiven {
                    approval_id: *approval_id,
                    session: wish.session,
                    action: wish.action.clone(),
                    operator: operator.uid,
                    note: note.clone(),
                    uses: uses.unwrap_or(1).max(1),
                    seconds: seconds.unwrap_or(wish.timeout_seconds),
                    up_to: *up_to,
                })
                .into_iter()
                .collect()
        }
        Event::Reject { approval_id, operator, note } => {
            // Also one that was given already, as long as it is not used up.
            let closing = Closing::Rejected { operator: operator.uid, note: note.clone() };
            state.approval(*approval_id).map(|approval| close(approval, closing)).into_iter().collect()
        }
        Event::CancelApproval { approval_id, session } => {
            let own = state.approval(*approval_id).filter(|approval| approval.wish.session == *session);
            let closing = Closing::Cancelled { message: "the application no longer wants it".to_owned() };
            own.map(|approval| close(approval, closing)).into_iter().collect()
        }
        Event::Pause { session, operator } => {
            let is_running = state.is_alive(*session) && !state.is_paused(*session);
            is_running
                .then_some(Fact::SessionPaused { session: *session, operator: *operator })
                .into_iter()
                .collect()
        }
        Event::Resume { session, operator } => state
            .is_paused(*session)
            .then_some(Fact::SessionResumed { session: *session, operator: *operator })
            .into_iter()
            .collect(),
        Event::Kill { session, operator } => {
            let is_there = session.is_none_or(|session| state.is_alive(session));
            is_there
                .then_some(Fact::KillOrdered { session: *session, operator: *operator })
                .into_iter()
                .collect()
        }
        Event::PoliciesReloaded { operator, changed } => {
            vec![Fact::PoliciesReloaded { operator: *operator, changed: changed.clone() }]
        }
        Event::PolicyChange { session, policy: name, policy_sha256 } => match policy {
            Some(policy) if state.is_alive(*session) => {
                change_policy(policy, state, *session, name, policy_sha256)
            }
            Some(_) | None => Vec::new(),
        },
        Event::KernelDenied { session, attempt, count } => {
            vec![Fact::KernelDenied { session: *session, attempt: attempt.clone(), count: *count }]
        }
        Event::Examined { failure } => vec![Fact::Examined { failure: failure.clone() }],
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

/// The ends of living sessions. What a human was asked for one without a name goes with it; one with a name may come back to it.
fn end_sessions(
    state: &State,
    ending: &SessionEnding,
    which: impl Fn(SessionId) -> bool,
) -> impl Iterator<Item = Fact> {
    state.living_sessions().filter(move |session| which(*session)).flat_map(|session| {
        let is_gone = state.name_of(session).is_none();
        let closing = Closing::Cancelled { message: "its session has ended".to_owned() };
        let approvals =
            close_all(state, closing, move |approval| is_gone && approval.wish.session == session);
        approvals.chain([Fact::SessionEnded { session, ending: ending.clone() }])
    })
}

fn close(approval: &Approval, closing: Closing) -> Fact {
    let wish = &approval.wish;
    Fact::ApprovalClosed {
        approval_id: wish.approval_id,
        session: wish.session,
        action: wish.action.clone(),
        closing,
    }
}

fn close_all(
    state: &State,
    closing: Closing,
    which: impl Fn(&Approval) -> bool,
) -> impl Iterator<Item = Fact> {
    state
        .approvals
        .values()
        .filter(move |approval| which(approval))
        .map(move |approval| close(approval, closing.clone()))
}

/// An approval that a human can still give.
fn waiting(state: &State, id: ApprovalId, now: Now) -> Option<&Approval> {
    state.approval(id).filter(|approval| approval.permit.is_none() && now.elapsed < approval.deadline)
}

fn expired_approvals(state: &State, now: Now) -> impl Iterator<Item = Fact> {
    let is_over = move |approval: &&Approval| approval.deadline <= now.elapsed && !state.is_in_use(approval);
    state
        .approvals
        .values()
        .filter(is_over)
        .map(|approval| close(approval, Closing::Expired { timeout_seconds: approval.wish.timeout_seconds }))
}

/// A session goes on under this policy: what is in flight opens what the new one lets it, and what a human said of the old one is void.
fn change_policy(
    policy: &Policy,
    state: &State,
    session: SessionId,
    name: &str,
    policy_sha256: &str,
) -> Vec<Fact> {
    let changed = Fact::PolicyChanged {
        session,
        policy: name.to_owned(),
        policy_sha256: policy_sha256.to_owned(),
        generation: state.generation_of(session).saturating_add(1),
    };
    let regranted = state.actions_of_session(session).map(|(action_id, action)| {
        let is_listed =
            policy.allowed.as_ref().is_none_or(|allowed| allowed.names.contains_key(&action.action));
        let may_run = !policy.denied.contains_key(&action.action) && (is_listed || !policy.strict);
        let grants = if may_run { grants(policy.actions.get(&action.action)) } else { GrantSet::EMPTY };
        Fact::ActionRegranted {
            action_id,
            session,
            scope: action.scope,
            action: action.action.clone(),
            grants,
        }
    });
    let closing = Closing::Cancelled { message: "the policy has changed".to_owned() };
    let void = close_all(state, closing, |approval| approval.wish.session == session);
    std::iter::once(changed).chain(regranted).chain(void).collect()
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
        .map(move |(id, action)| end(*id, action, outcome, action.reserved, Told::default(), now))
}

/// What is said of an action at its end; nothing where nobody says anything.
#[derive(Default)]
struct Told {
    outputs: Payload,
    annotations: Option<Box<Annotations>>,
}

fn end(
    action_id: ActionId,
    action: &InFlight,
    outcome: Outcome,
    charged: Money,
    told: Told,
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
        outputs: told.outputs,
        annotations: told.annotations,
    }
}

fn correct(
    action_id: ActionId,
    action: &InFlight,
    outcome: Outcome,
    charged: Money,
    told: Told,
    now: Now,
) -> Fact {
    Fact::ActionCorrected {
        action_id,
        session: action.session,
        run: action.run,
        action: action.action.clone(),
        tags: action.tags.clone(),
        outcome,
        before: action.reserved,
        charged,
        overrun: charged.saturating_sub(action.reserved),
        duration: whole_micros(now.elapsed.saturating_sub(action.started)),
        outputs: told.outputs,
        annotations: told.annotations,
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
