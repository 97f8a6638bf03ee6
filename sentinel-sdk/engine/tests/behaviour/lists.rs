//! Deny list and allow list, and the order of all checks.

use sentinel_proto::app::MAX_TAGS;
use sentinel_proto::{Reason, RulePlace, Tag};

use crate::world::{Rules, World, check, seconds};

#[test]
fn an_action_on_the_deny_list_never_starts_and_any_other_does() {
    let rules = Rules::none().denied("delete_database");
    check(
        &rules,
        "delete_database 0  => DENIED_ACTION by denied_actions
         search_web 0       => allowed",
    );
}

#[test]
fn with_an_allow_list_nothing_else_starts() {
    let rules = Rules::none().allowed(&["search_web"]);
    check(
        &rules,
        "search_web 0  => allowed
         send_money 0  => NOT_IN_ALLOWLIST by allowed_actions",
    );
}

#[test]
fn an_empty_allow_list_permits_nothing_and_an_absent_one_everything() {
    check(&Rules::none().allowed(&[]), "search_web 0  => NOT_IN_ALLOWLIST by allowed_actions");
    check(&Rules::none(), "search_web 0  => allowed");
}

#[test]
fn names_are_compared_exactly() {
    check(
        &Rules::none().denied("database"),
        "Database 0         => allowed
         delete_database 0  => allowed
         database 0         => DENIED_ACTION by denied_actions",
    );
    check(&Rules::none().allowed(&["search"]), "Search 0  => NOT_IN_ALLOWLIST by allowed_actions");
}

#[test]
fn the_deny_list_comes_first_then_the_allow_list_then_the_rate_then_the_budgets() {
    let budget = Rules::none().session_budget("0.1");
    check(&budget, "act 1  => BUDGET_EXCEEDED 1 > 0.1 by budgets.session");
    let rate = budget.rate("act", 0, seconds(1));
    check(&rate, "act 1  => RATE_LIMITED for ever by rate_limits.act");
    let allow = rate.allowed(&["other"]);
    check(&allow, "act 1  => NOT_IN_ALLOWLIST by allowed_actions");
    let deny = allow.denied("act");
    check(&deny, "act 1  => DENIED_ACTION by denied_actions");
}

#[test]
fn a_denial_names_the_line_of_the_policy_and_what_would_be_allowed() {
    let mut world = World::new(&Rules::none().allowed(&["think", "search"]));
    let denial = world.begin("act", "0").unwrap_err();
    assert_eq!(denial.rule, Some(RulePlace { rule: "allowed_actions".to_owned(), line: 5 }));
    assert!(denial.to_string().ends_with("allowed are `search`, `think`"), "{denial}");
}

#[test]
fn of_a_very_long_allow_list_a_denial_tells_only_a_part() {
    let names: Vec<String> = (0..20_000).map(|number| format!("{number:0>128}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&Rules::none().allowed(&names));
    let Reason::NotInAllowlist { allowed } = world.begin("act", "0").unwrap_err().reason else {
        panic!("another reason");
    };
    assert_eq!(allowed.len(), 100);
    assert!(world.begin(names[19_999], "0").is_ok(), "and all of it counts");
}

#[test]
fn more_tags_than_allowed_are_refused_and_the_policys_own_stand_first() {
    let mut rules = Rules::none().floor("act", "0");
    let tag = |text: &str| Tag::new(text).unwrap();
    let Some(rule) = rules.0.actions.values_mut().next() else { panic!("no rule") };
    rule.tags = vec![tag("from-policy"), tag("both")];
    let mut world = World::new(&rules);

    let mut request = world.request("act", "0");
    request.tags = vec![tag("both"), tag("own")];
    let action_id = world.ask(request).unwrap();
    let tags = world.state.in_flight(action_id).unwrap().tags.clone();
    assert_eq!(tags, [tag("from-policy"), tag("both"), tag("own")]);

    let mut request = world.request("act", "0");
    request.tags = (0..=MAX_TAGS).map(|number| tag(&number.to_string())).collect();
    assert_eq!(world.ask(request).unwrap_err().reason.code(), "INVALID_REQUEST");
}
