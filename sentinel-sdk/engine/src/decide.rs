//! The decision: from policy, state, event and time to facts. Changes nothing.
//!
//! Invariant (check all, then charge all): nothing is reserved, and no rate slot is taken, unless every check passes.

use std::time::Duration;

use sentinel_proto::app::MAX_TAGS;
use sentinel_proto::{
    ActionId, ActionName, BudgetScope, Denial, Money, Outcome, Payload, Reason, RulePlace, SessionId, Tag,
};

use crate::budget::Total;
use crate::state::{InFlight, Session};
use crate::{ActionRequest, ActionRule, Event, Fact, GrantSet, Limit, Now, Policy, SessionEnding, State};

/// Actions of one session in flight at once.
pub const MAX_IN_FLIGHT: u64 = 1024;
/// Distinct action names that a session may use.
pub const MAX_ACTION_NAMES: u64 = 10_000;

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
            if state.is_alive(session) {
                return Vec::new();
            }
            vec![Fact::SessionStarted {
                session,
                name: name.clone(),
                policy: policy.clone(),
                policy_sha256: policy_sha256.clone(),
                command: command.clone(),
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
                let floor = policy.map_or(action.reserved, |policy| floor(policy, &action.action));
                let charged = cost.unwrap_or(action.reserved).max(floor);
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

fn floor(policy: &Policy, action: &ActionName) -> Money {
    policy.actions.get(action).map_or(Money::ZERO, |rule| rule.cost_floor)
}

fn begin(policy: Option<&Policy>, state: &State, request: &ActionRequest, now: Now) -> Fact {
    let session = state.sessions.get(&request.session).filter(|session| session.alive);
    let rule = policy.and_then(|policy| policy.actions.get(&request.action));
    let cost = request.cost.max(rule.map_or(Money::ZERO, |rule| rule.cost_floor));
    let tags = all_tags(rule, &request.tags);
    let run = session.map_or(0, |session| session.run);
    let verdict = match (policy, session) {
        (Some(policy), Some(session)) => check(policy, session, request, cost, now),
        (None, _) | (_, None) => Err(Denial { reason: Reason::SessionEnded, rule: None }),
    };
    let ActionRequest { action_id, session, scope, action, inputs, pid, .. } = request.clone();
    match verdict {
        Ok(()) => Fact::ActionStarted {
            action_id,
            session,
            run,
            scope,
            action,
            reserved: cost,
            tags,
            grants: rule.and_then(|rule| rule.grant).map_or(GrantSet::EMPTY, GrantSet::of),
            max_seconds: rule.map_or_else(|| ActionRule::default().max_seconds, |rule| rule.max_seconds),
            inputs,
            pid,
        },
        Err(denial) => {
            Fact::ActionDenied { action_id, session, run, action, cost, tags, denial, inputs, pid }
        }
    }
}

/// The policy's tags first, then the application's own.
fn all_tags(rule: Option<&ActionRule>, declared: &[Tag]) -> Vec<Tag> {
    let mut tags = rule.map(|rule| rule.tags.clone()).unwrap_or_default();
    for tag in declared {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    tags
}

fn denied(reason: Reason, rule: String, line: u32) -> Denial {
    Denial { reason, rule: Some(RulePlace { rule, line }) }
}

fn check(
    policy: &Policy,
    session: &Session,
    request: &ActionRequest,
    cost: Money,
    now: Now,
) -> Result<(), Denial> {
    let action = &request.action;
    if request.tags.len() > MAX_TAGS {
        let cause = format!("{} tags; at most {MAX_TAGS} are allowed", request.tags.len());
        return Err(Denial { reason: Reason::InvalidRequest { cause }, rule: None });
    }
    if let Some(line) = policy.denied.get(action) {
        return Err(denied(Reason::DeniedAction, "denied_actions".to_owned(), *line));
    }
    if let Some(allowed) = policy.allowed.as_ref().filter(|allowed| !allowed.names.contains_key(action)) {
        let names = allowed.names.keys().cloned().collect();
        return Err(denied(
            Reason::NotInAllowlist { allowed: names },
            "allowed_actions".to_owned(),
            allowed.line,
        ));
    }
    check_quotas(session, action)?;
    check_rate(policy, session, action, now)?;
    check_budgets(policy, session, action, cost)
}

fn check_quotas(session: &Session, action: &ActionName) -> Result<(), Denial> {
    let exceeded = |quota: &str, limit| {
        Err(Denial { reason: Reason::QuotaExceeded { quota: quota.to_owned(), limit }, rule: None })
    };
    if session.in_flight >= MAX_IN_FLIGHT {
        return exceeded("actions in flight", MAX_IN_FLIGHT);
    }
    let names = u64::try_from(session.actions.len()).unwrap_or(u64::MAX);
    if names >= MAX_ACTION_NAMES && !session.actions.contains_key(action) {
        return exceeded("distinct action names", MAX_ACTION_NAMES);
    }
    Ok(())
}

fn check_rate(policy: &Policy, session: &Session, action: &ActionName, now: Now) -> Result<(), Denial> {
    let Some(limit) = policy.rates.get(action) else { return Ok(()) };
    let never_started = crate::rate::Starts::default();
    let starts = session.actions.get(action).map_or(&never_started, |of_action| &of_action.starts);
    if starts.within(limit.window, now.elapsed) < limit.max_count {
        return Ok(());
    }
    let wait = starts.wait(limit.max_count, limit.window, now.elapsed);
    let reason = Reason::RateLimited {
        max_count: limit.max_count,
        window_seconds: limit.window.as_secs(),
        // Rounded up, so that whoever waits so long is not refused again.
        retry_after_ms: wait
            .map(|wait| u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)),
    };
    Err(denied(reason, format!("rate_limits.{action}"), limit.line))
}

fn check_budgets(policy: &Policy, session: &Session, action: &ActionName, cost: Money) -> Result<(), Denial> {
    let of_action = session.actions.get(action).map(|of_action| of_action.total).unwrap_or_default();
    let budgets = &policy.budgets;
    let scopes: [(BudgetScope, Option<Limit>, Total, String); 3] = [
        (BudgetScope::Session, budgets.session, session.session_total, "budgets.session".to_owned()),
        (BudgetScope::Run, budgets.run, session.run_total, "budgets.run".to_owned()),
        (
            BudgetScope::Action,
            budgets.actions.get(action).copied(),
            of_action,
            format!("budgets.actions.{action}"),
        ),
    ];
    for (budget, limit, total, rule) in scopes {
        let Some(limit) = limit else { continue };
        let would_be = total.with(cost);
        if would_be.is_none_or(|sum| sum > limit.amount) {
            let spent = would_be.unwrap_or(Money::MAX);
            return Err(denied(
                Reason::BudgetExceeded { budget, spent, limit: limit.amount },
                rule,
                limit.line,
            ));
        }
    }
    // Without a limit there still is a largest sum: an overflow is too much.
    if session.session_total.with(cost).is_none() || session.run_total.with(cost).is_none() {
        let cause = format!("the session's total would exceed {} dollars", Money::MAX);
        return Err(Denial { reason: Reason::InvalidRequest { cause }, rule: None });
    }
    Ok(())
}
