//! What a policy's text comes to: defaults, lines, numbers of grants, absent against empty.

use std::time::Duration;

use sentinel_engine::{Approver, CountLimits, MAX_GRANTS, NamePattern, Now, Policy, TimeZone};
use sentinel_policy::{name_entry, parse};
use sentinel_proto::HostName;

fn policy(text: &str) -> Policy {
    parse(text).unwrap_or_else(|problems| panic!("{}", problems.render("test.yaml", text))).policy
}

#[test]
fn a_text_without_rules_is_the_empty_policy() {
    assert_eq!(policy("{}"), Policy::empty());
    assert_eq!(
        policy("budgets: {}\nenforcement: {}\nactions: {}\nrate_limits: {}\nstrict_mode: true"),
        Policy::empty()
    );
}

#[test]
fn an_absent_list_of_allowed_actions_allows_any_and_an_empty_one_none() {
    assert_eq!(policy("denied_actions: []").allowed, None);
    let allowed = policy("denied_actions: []\nallowed_actions: []").allowed.unwrap();
    assert!(allowed.names.is_empty());
    assert_eq!(allowed.line, 2);
}

#[test]
fn every_rule_remembers_its_line() {
    let policy = policy(
        "budgets:\n  session: 5\n  run:\n    1\n  actions:\n    a: 1\ndenied_actions:\n  - b\nallowed_actions:\n  - a\nrate_limits:\n  a:\n    max_count: 1\nactions:\n  a:\n    grants:\n      network:\n        - 192.0.2.1:443\n      exec:\n        - /bin/a\n        - path: /bin/b\n          writable: accept\nenforcement:\n  network:\n    allow: [192.0.2.2:443,\n      192.0.2.3:443]\n",
    );
    let name = |text: &str| sentinel_proto::ActionName::new(text).unwrap();
    assert_eq!(policy.budgets.session.unwrap().line, 2);
    assert_eq!(policy.budgets.run.unwrap().line, 3);
    assert_eq!(policy.budgets.actions.get(&name("a")).unwrap().line, 6);
    assert_eq!(policy.denied.get(&name("b")), Some(&8));
    let allowed = policy.allowed.unwrap();
    assert_eq!((allowed.line, allowed.names.get(&name("a"))), (9, Some(&10)));
    assert_eq!(policy.rates.get(&name("a")).unwrap().line, 12);
    assert_eq!(policy.actions.get(&name("a")).unwrap().line, 15);
    let [baseline, grant] = policy.grants.as_slice() else { panic!("{:?}", policy.grants) };
    assert_eq!(grant.network.iter().map(|rule| rule.line).collect::<Vec<_>>(), [18]);
    assert_eq!(grant.exec.iter().map(|rule| rule.line).collect::<Vec<_>>(), [20, 21]);
    assert_eq!(baseline.network.iter().map(|rule| rule.line).collect::<Vec<_>>(), [25, 26]);
}

#[test]
fn a_rate_limit_with_half_its_keys_gets_the_other_half_by_default() {
    let policy = policy(
        "rate_limits: {a: {max_count: 5}, b: {window_seconds: 1}, c: {max_count: 0, window_seconds: 2678400}}",
    );
    let rate = |name: &str| {
        let rate = policy.rates.get(name).unwrap();
        (rate.max_count, rate.window)
    };
    assert_eq!(rate("a"), (5, Duration::from_secs(60)));
    assert_eq!(rate("b"), (999_999, Duration::from_secs(1)));
    assert_eq!(rate("c"), (0, Duration::from_secs(31 * 24 * 60 * 60)));
}

#[test]
fn equal_grants_share_a_number_whatever_their_order_and_different_ones_dont() {
    let policy = policy(
        "actions:\n  one: {grants: {network: ['192.0.2.1:443', '192.0.2.2:443/tcp'], exec: [/bin/a]}}\n  two: {grants: {exec: [/bin/a], network: ['192.0.2.2:443', '192.0.2.1/32:443']}}\n  three: {grants: {network: ['192.0.2.1:443']}}\n  four: {grants: {exec: [{path: /bin/a, writable: accept}]}}\n  five: {grants: {exec: [/bin/a]}}\n",
    );
    let grant = |name: &str| policy.actions.get(name).unwrap().grant;
    assert_eq!(grant("one"), Some(1));
    assert_eq!(grant("two"), Some(1));
    assert_eq!(grant("three"), Some(2));
    assert_eq!(grant("four"), Some(3));
    assert_eq!(grant("five"), Some(4));
    assert_eq!(policy.grants.len(), 5);
}

#[test]
fn names_stand_beside_addresses_each_with_its_line() {
    let policy = policy(
        "enforcement:\n  network:\n    allow:\n      - api.example.org:443\n      - 192.0.2.1:443\n      - '*.internal.example:53/udp'\n      - host: db.internal.example:5432\n        allow_private: true\n      - {host: 'api.example.org:*', allow_private: false}\n",
    );
    assert!(policy.has_names());
    let [baseline] = policy.grants.as_slice() else { panic!("{:?}", policy.grants) };
    assert_eq!(baseline.network.iter().map(|rule| rule.line).collect::<Vec<_>>(), [5]);
    let names = baseline.names.iter().map(|rule| (name_entry(rule), rule.allow_private, rule.line));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            ("api.example.org:443/tcp".to_owned(), false, 4),
            ("*.internal.example:53/udp".to_owned(), false, 6),
            ("db.internal.example:5432/tcp".to_owned(), true, 7),
            ("api.example.org:*/tcp".to_owned(), false, 9),
        ]
    );
    let host = |text: &str| HostName::parse(text).unwrap();
    let Some(wildcard) = baseline.names.get(1) else { panic!("{:?}", baseline.names) };
    assert_eq!(wildcard.name, NamePattern::OneBelow(host("internal.example")));
    assert!(wildcard.name.matches(&host("dns.internal.example")));
    assert!(!wildcard.name.matches(&host("internal.example")));
}

#[test]
fn a_policy_without_names_has_none() {
    assert!(!policy("enforcement: {network: {allow: ['192.0.2.1:443']}}").has_names());
    assert!(policy("actions: {a: {grants: {network: ['api.example.org:443']}}}").has_names());
}

#[test]
fn an_address_that_answers_dns_is_a_doubt_only_where_a_host_is_named() {
    let doubts = |of_action: &str| {
        let text = format!(
            "enforcement: {{network: {{allow: ['127.0.0.53:53/udp', '192.0.2.1:853', '192.0.2.2:*']}}}}\nactions: {{a: {{grants: {{network: ['{of_action}']}}}}}}"
        );
        parse(&text).unwrap().warnings.as_slice().len()
    };
    assert_eq!(doubts("192.0.2.3:443"), 0);
    assert_eq!(doubts("api.example.org:443"), 3);
}

#[test]
fn grants_of_names_share_a_number_only_where_they_open_the_same() {
    let policy = policy(
        "actions:\n  one: {grants: {network: ['a.example.org:443', 'b.example.org:443/tcp']}}\n  two: {grants: {network: ['b.example.org:443', {host: 'a.example.org:443', allow_private: false}]}}\n  three: {grants: {network: ['a.example.org:443']}}\n  four: {grants: {network: [{host: 'a.example.org:443', allow_private: true}]}}\n  five: {grants: {network: ['*.example.org:443']}}\n  six: {grants: {network: ['a.example.org:443/udp']}}\n  seven: {grants: {network: ['a.example.org:443'], keep_alive: true}}\n",
    );
    let grant = |name: &str| policy.actions.get(name).unwrap().grant;
    assert_eq!((grant("one"), grant("two")), (Some(1), Some(1)));
    let others: Vec<_> = ["three", "five", "four", "six", "seven"].map(|name| grant(name).unwrap()).into();
    assert_eq!(others.iter().collect::<std::collections::BTreeSet<_>>().len(), 5, "{others:?}");
    let kept = policy.grants.get(grant("seven").unwrap()).unwrap();
    assert!(kept.keep_alive, "a name is an endpoint");
}

#[test]
fn a_grant_of_nothing_is_no_grant() {
    let policy = policy("actions: {a: {grants: {}}, b: {grants: {network: [], exec: []}}, c: {}}");
    assert!(policy.actions.values().all(|rule| rule.grant.is_none()));
    assert_eq!(policy.grants.len(), 1);
}

#[test]
fn the_baseline_is_grant_0_also_where_actions_stand_first() {
    let policy = policy(
        "actions: {a: {grants: {network: ['192.0.2.1:443']}}}\nenforcement: {network: {allow: ['127.0.0.1:80']}}",
    );
    let ports: Vec<_> =
        policy.grants.iter().map(|grant| grant.network.first().unwrap().port.unwrap()).collect();
    assert_eq!(ports, [80, 443]);
    assert_eq!(policy.actions.get("a").unwrap().grant, Some(1));
}

#[test]
fn as_many_different_grants_as_there_are_bits_are_taken_and_not_one_more() {
    let with = |count: usize| {
        let lines = (0..count).map(|n| format!("  a{n}: {{grants: {{network: ['192.0.2.1:{}']}}}}\n", n + 1));
        format!("actions:\n{}", lines.collect::<String>())
    };
    assert_eq!(policy(&with(MAX_GRANTS)).grants.len(), MAX_GRANTS + 1);
    assert_eq!(parse(&with(MAX_GRANTS + 1)).unwrap_err().as_slice().len(), 1);
}

#[test]
fn an_action_of_which_little_is_said_has_the_engines_defaults() {
    let policy = policy("actions: {a: {cost_usd: 0.25}}");
    let rule = policy.actions.get("a").unwrap();
    assert_eq!(rule.cost_floor.to_string(), "0.25");
    assert_eq!((rule.tags.len(), rule.grant, rule.max_seconds), (0, None, 600));
}

#[test]
fn a_plain_amount_for_a_day_counts_in_utc_and_a_mapping_where_it_says() {
    let day = |text: &str| policy(text).budgets.day.unwrap();
    let plain = day("budgets:\n  day: 20.0\n");
    assert_eq!((plain.limit.amount.to_string().as_str(), plain.limit.line), ("20", 2));
    assert_eq!(plain.timezone, TimeZone::UTC);
    let in_berlin = day("budgets:\n  day:\n    timezone: Europe/Berlin\n    limit: 0.5\n");
    assert_eq!((in_berlin.limit.amount.to_string().as_str(), in_berlin.limit.line), ("0.5", 4));
    assert_eq!(in_berlin.timezone.to_string(), "Europe/Berlin");
    assert_eq!(day("budgets: {day: {limit: 1}}").timezone, TimeZone::UTC);
}

#[test]
fn counts_are_limited_for_all_actions_and_for_one() {
    let policy = policy(
        "limits:\n  max_calls: 100\nactions:\n  a:\n    max_calls: 5\n    max_concurrent:\n      1\n  b: {}\n",
    );
    let shown = |limits: CountLimits| {
        (
            limits.calls.map(|limit| (limit.most, limit.line)),
            limits.concurrent.map(|limit| (limit.most, limit.line)),
        )
    };
    assert_eq!(shown(policy.limits), (Some((100, 2)), None));
    assert_eq!(shown(policy.actions.get("a").unwrap().limits), (Some((5, 5)), Some((1, 6))));
    assert_eq!(policy.actions.get("b").unwrap().limits, CountLimits::default());
}

#[test]
fn hours_are_those_of_the_place_and_never_where_the_list_is_empty() {
    let policy = policy(
        "hours:\n  timezone: Europe/Berlin\n  allow: [mon-fri 09:00-17:00, sat 22:00-06:00]\nactions:\n  a:\n    hours: {timezone: UTC, allow: []}\n",
    );
    let hours = policy.hours.unwrap();
    assert_eq!(hours.line, 1);
    assert_eq!(hours.to_string(), "mon-fri 09:00-17:00, sat 22:00-06:00 (Europe/Berlin)");
    // 2026-11-23, a Monday, at midnight UTC.
    let monday = 1_795_392_000_u64;
    let at = |hour: u64| Now { wall_micros: (monday + hour * 3600) * 1_000_000, elapsed: Duration::ZERO };
    assert!(!hours.contain(at(7)) && hours.contain(at(8)) && hours.contain(at(15)) && !hours.contain(at(16)));
    let saturday = 5 * 24;
    assert!(hours.contain(at(saturday + 21)) && hours.contain(at(saturday + 28)));
    assert!(!hours.contain(at(saturday + 29)));
    let never = policy.actions.get("a").unwrap().hours.clone().unwrap();
    assert_eq!((never.to_string().as_str(), never.line), ("never", 6));
    assert!((0..7 * 24).all(|hour| !never.contain(at(hour))));
}

#[test]
fn approvals_remember_the_line_of_each_criterion() {
    let approvals = policy(
        "approvals:\n  actions:\n    - send_money\n  tags: [production,\n    secret]\n  risk_levels: [High]\n  above_usd:\n    1.00\n  approvers: ['user:alice', 'group:finance']\n  timeout_seconds: 60\n",
    )
    .approvals
    .unwrap();
    assert_eq!(approvals.line, 1);
    assert_eq!(approvals.actions.get("send_money"), Some(&3));
    assert_eq!((approvals.tags.get("production"), approvals.tags.get("secret")), (Some(&4), Some(&5)));
    let [(level, line)] = approvals.risk_levels.as_slice() else { panic!("{:?}", approvals.risk_levels) };
    assert_eq!((level.as_str(), *line), ("high", 6));
    let cost = approvals.from_cost.unwrap();
    assert_eq!((cost.amount.to_string().as_str(), cost.line), ("1", 7));
    let approvers = [Approver::User("alice".to_owned()), Approver::Group("finance".to_owned())];
    assert_eq!(approvals.approvers.as_deref(), Some(&approvers[..]));
    assert_eq!(approvals.timeout, Duration::from_secs(60));
}

#[test]
fn approvals_that_say_nothing_concern_every_action_and_whoever_operates_the_agent() {
    let approvals = policy("approvals: {}").approvals.unwrap();
    assert!(approvals.actions.is_empty() && approvals.tags.is_empty() && approvals.risk_levels.is_empty());
    assert_eq!((approvals.from_cost, approvals.approvers), (None, None));
    assert_eq!(approvals.timeout, Duration::from_secs(300));
    assert_eq!(policy("approvals: {approvers: []}").approvals.unwrap().approvers, Some(Vec::new()));
    assert_eq!(policy("{}").approvals, None);
}

#[test]
fn strict_mode_and_risk_levels_are_as_the_policy_says() {
    let policy = policy("strict_mode: false\nactions: {a: {risk_level: High}, b: {}}");
    assert!(!policy.strict);
    let risk = |name: &str| policy.actions.get(name).unwrap().risk.as_ref().map(|risk| risk.as_str());
    assert_eq!((risk("a"), risk("b")), (Some("High"), None));
}
