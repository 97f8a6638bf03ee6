//! `sentinel policy check FILE`: what a policy lets through in plain words, or everything that is wrong with it.

use std::path::Path;
use std::process::ExitCode;

use sentinel_engine::{Approvals, CountLimits, Mode, OnExhausted, Policy};
use sentinel_policy::parse_bytes;

use super::words::{approvers, baseline, doors, times, tls};
use super::{EXIT_PROBLEMS, Said, of_file};

/// Checks the policy in a file: 0 and a summary on standard output, 1 and all problems on standard error, or 66.
#[must_use]
pub fn check(file: &Path) -> ExitCode {
    of_file(file, checked).tell()
}

fn checked(name: &str, bytes: &[u8]) -> Said {
    let text = String::from_utf8_lossy(bytes);
    match parse_bytes(bytes) {
        Ok(parsed) => Said {
            status: 0,
            out: format!("{}: a valid policy\n\n{}", name.escape_debug(), summary(&parsed.policy)),
            err: parsed.warnings.render(name, &text),
        },
        Err(problems) => {
            Said { status: EXIT_PROBLEMS, out: String::new(), err: problems.render(name, &text) }
        }
    }
}

/// What the policy lets through.
fn summary(policy: &Policy) -> String {
    let mut lines = Vec::new();
    if !policy.strict {
        lines.push(
            "NOTHING but `denied_actions`, approvals and the agent's own quotas stops an action: with `strict_mode: false` a broken rule is only recorded as `warned`.".to_owned(),
        );
    }
    actions(policy, &mut lines);
    starts(policy, &mut lines);
    if let Some(rules) = &policy.approvals {
        lines.push(approvals(rules));
    }
    spending(policy, &mut lines);
    lines.push("Without any action, the session may:".to_owned());
    push_or_nothing(baseline(policy), &mut lines);
    for (name, rule) in &policy.actions {
        if let Some(grant) = rule.grant.and_then(|index| policy.grants.get(index)) {
            lines.push(format!(
                "While `{name}` runs, for {} s at most, its processes may also:",
                rule.max_seconds
            ));
            push_or_nothing(doors(grant), &mut lines);
        }
    }
    lines.extend(tls(policy));
    lines.push(match policy.mode {
        Mode::Enforce => "Any other address or executable is refused by the kernel.".to_owned(),
        Mode::Audit => "NOTHING is refused by the kernel: mode `audit` only records.".to_owned(),
    });
    let has_network =
        policy.grants.first().is_some_and(|grant| !(grant.network.is_empty() && grant.names.is_empty()));
    if has_network && has_budget(policy) {
        lines.push(match policy.on_exhausted {
            OnExhausted::Close => {
                "Once the session's, run's or day's budget is spent, the addresses open without any action close too."
                    .to_owned()
            }
            OnExhausted::Keep => {
                "Once a budget is spent, the addresses open without any action stay open.".to_owned()
            }
        });
    }
    if policy.grants.iter().any(|grant| !grant.exec.is_empty()) {
        lines.push(
            "An allowed interpreter runs any script that it is given. At tier `kill` a script that is executed is judged by its interpreter \
             alone; at tier `lsm` both must be allowed."
                .to_owned(),
        );
    }
    lines.push(String::new());
    lines.join("\n")
}

fn actions(policy: &Policy, lines: &mut Vec<String>) {
    let names = |names: Vec<&str>| names.join(", ");
    let denied = names(policy.denied.keys().map(|name| name.as_str()).collect());
    match &policy.allowed {
        None if denied.is_empty() => lines.push("Any action may start.".to_owned()),
        None => lines.push(format!("Any action may start but: {denied}.")),
        Some(allowed) => {
            let starting = allowed.names.keys().filter(|name| !policy.denied.contains_key(*name));
            let starting = names(starting.map(|name| name.as_str()).collect());
            lines.push(if starting.is_empty() {
                "No action may start.".to_owned()
            } else {
                format!("Only these actions may start: {starting}.")
            });
        }
    }
}

/// How often and when.
fn starts(policy: &Policy, lines: &mut Vec<String>) {
    for (name, rate) in &policy.rates {
        lines.push(format!("`{name}` may start {} times in {} s.", rate.max_count, rate.window.as_secs()));
    }
    push_counts("All actions together", &policy.limits, lines);
    for (name, rule) in &policy.actions {
        push_counts(&format!("`{name}`"), &rule.limits, lines);
    }
    // An empty list of hours tells itself as "never".
    lines.extend(policy.hours.as_ref().map(|hours| format!("When actions may start: {hours}.")));
    for (name, rule) in &policy.actions {
        lines.extend(rule.hours.as_ref().map(|hours| format!("When `{name}` may start: {hours}.")));
    }
    for (name, rule) in &policy.actions {
        lines.extend(rule.risk.as_ref().map(|risk| format!("The risk level of `{name}` is {risk}.")));
    }
}

fn push_counts(who: &str, limits: &CountLimits, lines: &mut Vec<String>) {
    lines.extend(limits.calls.map(|limit| format!("{who} may start {} in all.", times(limit.most))));
    lines.extend(limits.concurrent.map(|limit| format!("{who} may have {} in flight at once.", limit.most)));
}

fn approvals(rules: &Approvals) -> String {
    let listed = |what: &str, names: Vec<&str>| {
        if names.is_empty() { None } else { Some(format!("{what} {}", names.join(", "))) }
    };
    let criteria: Vec<String> = [
        listed("the actions", rules.actions.keys().map(|name| name.as_str()).collect()),
        listed("those with the tag", rules.tags.keys().map(|tag| tag.as_str()).collect()),
        listed(
            "those of the risk level",
            rules.risk_levels.iter().map(|(level, _)| level.as_str()).collect(),
        ),
        rules.from_cost.map(|limit| format!("those of {} dollars or more", limit.amount)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let which = if criteria.is_empty() { "every action".to_owned() } else { criteria.join("; ") };
    let (who, seconds) = (approvers(rules), rules.timeout.as_secs());
    format!("What needs an approval by {who} within {seconds} s: {which}.")
}

fn spending(policy: &Policy, lines: &mut Vec<String>) {
    let budgets = &policy.budgets;
    let whole = [("the session", budgets.session), ("each run", budgets.run)];
    let mut limits: Vec<String> = whole
        .iter()
        .filter_map(|(who, limit)| limit.map(|limit| format!("{who} {}", limit.amount)))
        .collect();
    limits.extend(budgets.day.map(|day| {
        format!("all sessions under this policy together {} a day ({})", day.limit.amount, day.timezone)
    }));
    limits.extend(budgets.actions.iter().map(|(name, limit)| format!("`{name}` {}", limit.amount)));
    lines.push(if limits.is_empty() {
        "Spending is not limited.".to_owned()
    } else {
        format!("Dollars that may be spent: {}.", limits.join(", "))
    });
}

fn has_budget(policy: &Policy) -> bool {
    let budgets = &policy.budgets;
    budgets.session.is_some() || budgets.run.is_some() || budgets.day.is_some()
}

fn push_or_nothing(doors: impl Iterator<Item = String>, lines: &mut Vec<String>) {
    let before = lines.len();
    lines.extend(doors);
    if lines.len() == before {
        lines.push("  connect to nothing and execute nothing but its own first image".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit code, standard output, standard error.
    fn report(content: &[u8]) -> (u8, String, String) {
        let Said { status, out, err } = checked("p.yaml", content);
        (status, out, err)
    }

    #[test]
    fn a_valid_policy_is_told_in_plain_words() {
        let (code, out, err) = report(include_bytes!("../../../dist/policies/web-agent.yaml"));
        assert_eq!((code, err.as_str()), (0, ""));
        for line in [
            "Only these actions may start: ask_model, render_report, save_note, search_web.\n",
            "`search_web` may start 10 times in 60 s.\n",
            "Dollars that may be spent: the session 5, each run 1, `ask_model` 0.8.\n",
            "Without any action, the session may:\n  connect to 127.0.0.1:8125/udp\n  execute /usr/bin/python3.11\n",
            "While `search_web` runs, for 30 s at most, its processes may also:\n  connect to 192.0.2.10:443/tcp\n  connect to [2001:db8::10]:443/tcp\n",
            "While `ask_model` runs, for 120 s at most, its processes may also:\n  connect to llm.example.com:443/tcp\n",
            "Any other address or executable is refused by the kernel.\n",
        ] {
            assert!(out.contains(line), "{line}\nis not in\n{out}");
        }
    }

    #[test]
    fn names_are_told_with_what_they_may_stand_for() {
        let (code, out, err) = report(
            b"budgets: {run: 1}
enforcement: {network: {allow: ['*.example.com:443', {host: 'db.internal.example:5432', allow_private: true}]}}
",
        );
        assert_eq!((code, err.as_str()), (0, ""));
        for line in [
            "  connect to *.example.com:443/tcp\n",
            "  connect to db.internal.example:5432/tcp, also where that is a private address\n",
            "the addresses open without any action close too.\n",
        ] {
            assert!(out.contains(line), "{line}\nis not in\n{out}");
        }
    }

    #[test]
    fn a_policy_that_lets_nothing_through_says_so() {
        let (code, out, _) = report(b"allowed_actions: []\n");
        assert_eq!(code, 0);
        assert!(out.contains("No action may start.\n"), "{out}");
        assert!(out.contains("connect to nothing and execute nothing"), "{out}");
    }

    #[test]
    fn a_doubtful_policy_is_valid_and_warned_of() {
        let (code, out, err) = report(b"enforcement: {mode: audit}\n");
        assert_eq!(code, 0);
        assert!(out.contains("NOTHING is refused"), "{out}");
        assert!(err.contains("warning: ") && err.contains(":1:21"), "{err}");
    }

    #[test]
    fn every_problem_is_told_with_its_place_and_nothing_is_summarised() {
        let (code, out, err) = report(b"budgets: {run: '1'}\ndenied_action: [\xff]\n");
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(":2:17"), "{err}");
        let (code, out, err) = report(b"budgets: {run: '1'}\ndenied_action: []\n");
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(":1:16") && err.contains(":2:1") && err.contains("2 problems"), "{err}");
    }

    #[test]
    fn hours_counts_days_and_approvals_are_told_in_plain_words() {
        let (code, out, err) = report(
            b"budgets: {day: {limit: 20, timezone: Europe/Berlin}}
limits: {max_calls: 1000, max_concurrent: 10}
hours: {timezone: Europe/Berlin, allow: [mon-fri 09:00-17:00]}
approvals: {actions: [send_money], risk_levels: [high], above_usd: 1, approvers: ['user:alice', 'group:finance']}
actions:
  send_money: {max_calls: 1, risk_level: high, hours: {timezone: UTC, allow: [daily 08:00-10:00]}}
",
        );
        assert_eq!((code, err.as_str()), (0, ""));
        for line in [
            "Any action may start.\nAll actions together may start 1000 times in all.\nAll actions together may have 10 in flight at once.\n",
            "`send_money` may start once in all.\n",
            "When actions may start: mon-fri 09:00-17:00 (Europe/Berlin).\n",
            "When `send_money` may start: daily 08:00-10:00 (UTC).\n",
            "The risk level of `send_money` is high.\n",
            "What needs an approval by the user `alice` or the group `finance` within 300 s: the actions send_money; those of the risk level high; those of 1 dollars or more.\n",
            "Dollars that may be spent: all sessions under this policy together 20 a day (Europe/Berlin).\n",
        ] {
            assert!(out.contains(line), "{line}\nis not in\n{out}");
        }
    }

    #[test]
    fn a_policy_that_only_warns_and_asks_for_everything_says_so() {
        let (code, out, err) = report(b"strict_mode: false\napprovals: {approvers: []}\n");
        assert_eq!(code, 0);
        assert!(out.contains("NOTHING but `denied_actions`"), "{out}");
        assert!(out.contains("an approval by nobody within 300 s: every action.\n"), "{out}");
        assert!(err.contains(":1:14") && err.contains("3 warnings"), "{err}");
    }
}
