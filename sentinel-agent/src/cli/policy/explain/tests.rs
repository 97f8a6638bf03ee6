//! What is said of actions under policies.

use clap::Parser;

use super::*;

const POLICY: &str = "budgets: {session: 5, actions: {buy: 2}}
denied_actions: [delete_database]
allowed_actions: [search_web, buy, deploy, night_work]
rate_limits: {search_web: {max_count: 10, window_seconds: 60}}
limits: {max_concurrent: 4}
approvals:
  tags: [production]
  risk_levels: [low, High]
  above_usd: 1.5
  approvers: ['user:alice', 'group:finance']
actions:
  search_web:
    cost_usd: 0.01
    max_seconds: 30
    grants: {network: ['192.0.2.10:443'], exec: [/usr/bin/make]}
  deploy: {tags: [production]}
  night_work:
    hours: {timezone: Europe/Berlin, allow: ['22:00-06:00']}
enforcement: {network: {allow: ['127.0.0.1:53/udp']}}
";

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    arguments: ExplainArguments,
}

fn said(policy: &str, arguments: &str) -> Said {
    let words = ["explain", "p.yaml"].into_iter().chain(arguments.split(' '));
    let Command { arguments } = Command::try_parse_from(words).unwrap();
    let noon = moment("2026-11-23T12:00:00Z").unwrap();
    let at = arguments.at.unwrap_or(noon);
    explained("p.yaml", policy.as_bytes(), &arguments, at)
}

/// What is said under this policy and with these arguments has all these parts.
fn check(policy: &str, arguments: &str, status: u8, parts: &[&str]) {
    let said = said(policy, arguments);
    assert_eq!((said.status, said.err.as_str()), (status, ""), "{}", said.out);
    for part in parts {
        assert!(said.out.contains(part), "{part}\nis not in\n{}", said.out);
    }
}

#[test]
fn an_action_that_may_start_is_told_its_terms() {
    let said = said(POLICY, "search_web --cost 0.02");
    let expected = "`search_web` in a fresh session at 2026-11-23T12:00:00Z: allowed

It is charged 0.02 dollars: what the application says, but 0.01 at least (line 12).
Its limits:
  line 1: the session spends at most 5 dollars
  line 4: it may start at most 10 times in 60 s
  line 5: actions together may have at most 4 in flight at once
  line 9: from 1.5 dollars on it needs an approval
While it runs, for 30 s at most, its processes may also:
  connect to 192.0.2.10:443/tcp
  execute /usr/bin/make
Open without any action:
  connect to 127.0.0.1:53/udp
";
    assert_eq!(said, Said { status: 0, out: expected.to_owned(), err: String::new() });
}

#[test]
fn a_denied_action_is_shown_the_line_that_denies_it() {
    check(
        POLICY,
        "delete_database",
        EXIT_DENIED,
        &[
            ": denied by `denied_actions` (line 2)\n",
            "denied: it stands in `denied_actions`\n  --> p.yaml:2:18\n",
            "   |                  ^^^^^^^^^^^^^^^ denied_actions\n",
        ],
    );
    check(
        POLICY,
        "send_mail",
        EXIT_DENIED,
        &[
            ": denied by `allowed_actions` (line 3)\n",
            "--> p.yaml:3:1\n",
            "   | ^^^^^^^^^^^^^^^ allowed_actions\n",
            "It opens nothing beyond what is open without any action.\n",
        ],
    );
    check(
        POLICY,
        "buy --cost 3",
        EXIT_DENIED,
        &[": denied by `budgets.actions.buy` (line 1)\n", "p.yaml:1:33\n", "^^^ budgets.actions.buy\n"],
    );
}

#[test]
fn hours_are_those_of_the_time_asked_for() {
    check(
        POLICY,
        "night_work",
        EXIT_DENIED,
        &[
            ": denied by `actions.night_work.hours` (line 18)\n",
            "p.yaml:18:5\n",
            "line 18: it may start: 22:00-06:00 (Europe/Berlin)\n",
        ],
    );
    check(POLICY, "night_work --at 2026-11-23T22:30:00+01:00", 0, &["at 2026-11-23T21:30:00Z: allowed\n"]);
}

#[test]
fn what_needs_an_approval_is_told_by_which_line_and_from_whom() {
    let from = "from the user `alice` or the group `finance`";
    check(
        POLICY,
        "buy --cost 1.5",
        EXIT_PENDING,
        &[
            &format!(": needs an approval by `approvals.above_usd` (line 9) {from}\n"),
            "approval: `approvals.above_usd` wants a human's word\n  --> p.yaml:9:3\n",
            &format!("= {from}, within 300 s; without it the action is denied\n"),
        ],
    );
    check(
        POLICY,
        "deploy",
        EXIT_PENDING,
        &["`approvals.tags` (line 7)", "p.yaml:7:10\n", "^^^^^^^^^^ approvals.tags\n"],
    );
    check(POLICY, "buy --tag x --tag production", EXIT_PENDING, &["p.yaml:7:10\n"]);
    check(
        POLICY,
        "buy --risk HIGH",
        EXIT_PENDING,
        &["(line 8)", "p.yaml:8:22\n", "^^^^ approvals.risk_levels\n"],
    );
    check(
        "approvals: {}",
        "a",
        EXIT_PENDING,
        &["by `approvals` (line 1) from whoever may operate the agent\n"],
    );
    check(
        "approvals: {approvers: []}",
        "a",
        EXIT_DENIED,
        &["denied by `approvals` (line 1)", "nobody may give"],
    );
}

#[test]
fn a_policy_that_only_warns_lets_start_and_shows_what_is_broken() {
    let policy = format!("{POLICY}strict_mode: false\n");
    check(
        &policy,
        "send_mail --cost 6",
        EXIT_PENDING,
        &[
            "(line 9)",
            "warned: `allowed_actions` doesn't name it\n",
            "warned: session budget exceeded: 6 > 5 USD\n  --> p.yaml:1:11\n",
        ],
    );
    check(&policy, "send_mail", 0, &[": allowed, and recorded as `warned`\n", "--> p.yaml:3:1\n"]);
    check(&policy, "delete_database", EXIT_DENIED, &[]);
}

#[test]
fn a_policy_without_rules_limits_nothing() {
    check(
        "enforcement: {mode: audit}",
        "a --cost 1",
        0,
        &[
            "It is charged 1 dollars: what the application says.\n",
            "Nothing limits how often, when or up to which sum.\n",
            "mode `audit` only records",
        ],
    );
}

#[test]
fn a_file_that_is_no_policy_is_told_as_check_does() {
    let said = said("budgets: {run: '1'}", "a");
    assert_eq!((said.status, said.out.as_str()), (EXIT_PROBLEMS, ""));
    assert!(said.err.contains("p.yaml:1:16"), "{}", said.err);
}

#[test]
fn a_time_without_its_distance_from_utc_is_refused() {
    for text in ["", "now", "12:00", "2026-11-23", "2026-11-23T09:00:00", "1969-12-31T00:00:00Z"] {
        assert!(moment(text).is_err(), "{text}");
    }
    assert_eq!(moment("2026-11-23T09:00:00+01:00"), moment("2026-11-23T08:00:00Z"));
}
