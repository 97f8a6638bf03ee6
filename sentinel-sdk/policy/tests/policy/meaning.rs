//! What a policy's text comes to: defaults, lines, numbers of grants, absent against empty.

use std::time::Duration;

use sentinel_engine::{MAX_GRANTS, Policy};
use sentinel_policy::parse;

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
