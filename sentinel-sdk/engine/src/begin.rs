//! Whether an action may start: deny list, allow list, quotas, rate, budgets, in this order.
//!
//! Invariant (check all, then charge all): nothing is reserved, and no rate slot is taken, unless every check passes.

use sentinel_proto::app::MAX_TAGS;
use sentinel_proto::{ActionName, BudgetScope, Denial, Money, Reason, RulePlace, Tag};

use crate::budget::Total;
use crate::rate::Starts;
use crate::state::Session;
use crate::{ActionRequest, ActionRule, Fact, GrantSet, Limit, Now, Policy, State};

/// Actions of one session in flight at once.
pub const MAX_IN_FLIGHT: u64 = 1024;
/// Distinct action names that a session may use.
pub const MAX_ACTION_NAMES: u64 = 10_000;

/// A denial names no more of the allowed actions than this: it goes over the wire and into the ledger each time.
const MOST_NAMES_TOLD: usize = 100;

/// The least that an action is charged.
pub(crate) fn floor(rule: Option<&ActionRule>) -> Money {
    rule.map_or(Money::ZERO, |rule| rule.cost_floor)
}

/// Lets an action start, or not. Without a policy or a living session it may not.
pub(crate) fn begin(policy: Option<&Policy>, state: &State, request: &ActionRequest, now: Now) -> Fact {
    let session = state.sessions.get(&request.session).filter(|session| session.alive);
    let rule = policy.and_then(|policy| policy.actions.get(&request.action));
    let cost = request.cost.max(floor(rule));
    let tags = all_tags(rule, &request.tags);
    let run = session.map_or(0, |session| session.run);
    let verdict = match (policy, session) {
        (Some(_), Some(_)) if state.in_flight(request.action_id).is_some() => {
            Err(invalid(format!("the action id {} is in use", request.action_id)))
        }
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

fn invalid(cause: String) -> Denial {
    Denial { reason: Reason::InvalidRequest { cause }, rule: None }
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
        return Err(invalid(format!("{} tags; at most {MAX_TAGS} are allowed", request.tags.len())));
    }
    if let Some(line) = policy.denied.get(action) {
        return Err(denied(Reason::DeniedAction, "denied_actions".to_owned(), *line));
    }
    if let Some(allowed) = policy.allowed.as_ref().filter(|allowed| !allowed.names.contains_key(action)) {
        let names = allowed.names.keys().take(MOST_NAMES_TOLD).cloned().collect();
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
    let never_started = Starts::default();
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
        return Err(invalid(format!("the session's total would exceed {} dollars", Money::MAX)));
    }
    Ok(())
}
