//! On which terms an action runs: what it costs, what limits it, and what it opens.

use sentinel_engine::{CountLimit, CountLimits, Hours, Limit, Mode, Policy};
use sentinel_proto::{ActionName, Money};

use super::super::words::{baseline, doors, times, tls};

/// The terms of one action, each with its line.
pub(super) fn terms(policy: &Policy, action: &ActionName, charged: Money) -> String {
    let mut lines = vec![cost(policy, action, charged)];
    let limits = limits(policy, action);
    if limits.is_empty() {
        lines.push("Nothing limits how often, when or up to which sum.".to_owned());
    } else {
        lines.push("Its limits:".to_owned());
        lines.extend(limits.into_iter().map(|(line, limit)| format!("  line {line}: {limit}")));
    }
    push_doors(policy, action, &mut lines);
    lines.push(String::new());
    lines.join("\n")
}

fn cost(policy: &Policy, action: &ActionName, charged: Money) -> String {
    match policy.actions.get(action).filter(|rule| rule.cost_floor > Money::ZERO) {
        Some(rule) => format!(
            "It is charged {charged} dollars: what the application says, but {} at least (line {}).",
            rule.cost_floor, rule.line
        ),
        None => format!("It is charged {charged} dollars: what the application says."),
    }
}

/// What limits the action, by line.
fn limits(policy: &Policy, action: &ActionName) -> Vec<(u32, String)> {
    let rule = policy.actions.get(action);
    let mut limits = Vec::new();
    push_hours("actions", policy.hours.as_ref(), &mut limits);
    push_hours("it", rule.and_then(|rule| rule.hours.as_ref()), &mut limits);
    push_counts("actions together", &policy.limits, &mut limits);
    push_counts("it", &rule.map(|rule| rule.limits).unwrap_or_default(), &mut limits);
    if let Some(rate) = policy.rates.get(action) {
        let limit = format!("it may start at most {} in {} s", times(rate.max_count), rate.window.as_secs());
        limits.push((rate.line, limit));
    }
    let budgets = &policy.budgets;
    let mut spends = |who: &str, limit: Option<Limit>, when: &str| {
        limits.extend(
            limit.map(|limit| (limit.line, format!("{who} spends at most {} dollars{when}", limit.amount))),
        );
    };
    spends("the session", budgets.session, "");
    spends("a run", budgets.run, "");
    spends("it", budgets.actions.get(action).copied(), " over all runs");
    if let Some(day) = budgets.day {
        let when = format!(" a day ({}), with all others under this policy", day.timezone);
        spends("the session", Some(day.limit), &when);
    }
    if let Some(limit) = policy.approvals.as_ref().and_then(|approvals| approvals.from_cost) {
        limits.push((limit.line, format!("from {} dollars on it needs an approval", limit.amount)));
    }
    limits.sort();
    limits
}

fn push_hours(who: &str, hours: Option<&Hours>, limits: &mut Vec<(u32, String)>) {
    if let Some(hours) = hours {
        limits.push((hours.line, format!("{who} may start: {hours}")));
    }
}

fn push_counts(who: &str, counts: &CountLimits, limits: &mut Vec<(u32, String)>) {
    let mut push = |limit: Option<CountLimit>, what: &dyn Fn(u64) -> String| {
        limits.extend(limit.map(|limit| (limit.line, what(limit.most))));
    };
    push(counts.calls, &|most| format!("{who} may start at most {} in all", times(most)));
    push(counts.concurrent, &|most| format!("{who} may have at most {most} in flight at once"));
}

fn push_doors(policy: &Policy, action: &ActionName, lines: &mut Vec<String>) {
    let rule = policy.actions.get(action);
    let grant = rule.and_then(|rule| rule.grant).and_then(|index| policy.grants.get(index));
    match (rule, grant) {
        (Some(rule), Some(grant)) => {
            lines.push(format!("While it runs, for {} s at most, its processes may also:", rule.max_seconds));
            lines.extend(doors(grant));
        }
        (Some(_), None) | (None, _) => {
            lines.push("It opens nothing beyond what is open without any action.".to_owned());
        }
    }
    let open: Vec<String> = baseline(policy).collect();
    if !open.is_empty() {
        lines.push("Open without any action:".to_owned());
        lines.extend(open);
    }
    lines.extend(tls(policy));
    if policy.mode == Mode::Audit {
        lines.push("The kernel refuses NOTHING beyond that: mode `audit` only records.".to_owned());
    }
}
