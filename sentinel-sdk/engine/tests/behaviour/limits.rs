//! Counts, hours, days, pauses, and policies that aren't strict.

use sentinel_engine::{Event, Fact, SessionEnding};
use sentinel_proto::{ActionId, Outcome, Reason, SessionId};

use crate::world::{Rules, SESSION, World, check, seconds, usd};

const HOUR: u64 = 3_600;

#[test]
fn an_action_starts_no_more_often_than_its_limit_in_all_runs_of_the_session() {
    check(
        &Rules::none().max_calls("search", 2),
        "search 0 => allowed
         reset
         search 0 => allowed
         search 0 => CALL_LIMIT 2 by actions.search.max_calls
         other 0 => allowed",
    );
}

#[test]
fn a_session_starts_no_more_actions_than_its_limit() {
    check(
        &Rules::none().max_calls_in_all(2),
        "search 0 => allowed
         other 0 => allowed
         third 0 => CALL_LIMIT 2 by limits.max_calls",
    );
}

#[test]
fn no_more_are_in_flight_than_the_limit_and_one_that_ends_makes_room() {
    for rules in [Rules::none().max_concurrent("search", 2), Rules::none().max_concurrent_in_all(2)] {
        let mut world = World::new(&rules);
        let first = world.begin("search", "0").unwrap();
        world.begin("search", "0").unwrap();
        let denial = world.begin("search", "0").unwrap_err();
        assert_eq!(denial.reason, Reason::ConcurrencyLimit { limit: 2 });
        world.end(first, Outcome::Success, None);
        world.begin("search", "0").unwrap();
    }
}

#[test]
fn an_action_outside_its_hours_is_denied_and_told_when_it_may() {
    // The world begins at 22:13 UTC.
    let mut world = World::new(&Rules::none().hours(9 * 60, 17 * 60));
    let denial = world.begin("search", "0").unwrap_err();
    assert_eq!(denial.reason, Reason::OutsideHours { allowed: "540-1020 (UTC)".to_owned() });
    world.wait(seconds(12 * HOUR));
    world.begin("search", "0").unwrap();
}

#[test]
fn a_days_budget_is_that_of_all_sessions_under_the_policy_and_renewed_by_the_next_day() {
    let rules = Rules::none().day_budget("1", "UTC");
    let mut world = World::new(&rules);
    let second = SessionId(2);
    world.start_session(second, None, &rules);
    world.call("search", "0.6").unwrap();
    let in_second = |world: &mut World| {
        let request = sentinel_engine::ActionRequest { session: second, ..world.request("search", "0.6") };
        world.ask(request)
    };
    let denial = in_second(&mut world).unwrap_err();
    assert!(matches!(denial.reason, Reason::BudgetExceeded { budget: sentinel_proto::BudgetScope::Day, .. }));
    assert_eq!(denial.rule.unwrap().rule, "budgets.day");
    // 22:13 and two hours.
    world.wait(seconds(2 * HOUR));
    in_second(&mut world).unwrap();
}

#[test]
fn a_session_that_ends_leaves_its_days_spending_behind() {
    let rules = Rules::none().day_budget("1", "UTC");
    let mut world = World::new(&rules);
    world.call("search", "0.6").unwrap();
    world.end_session(SESSION);
    world.start_session(SESSION, None, &rules);
    assert!(world.begin("search", "0.6").is_err());
    assert_eq!(world.spent().0, "0", "the session is another");
}

#[test]
fn a_clock_that_goes_back_to_yesterday_frees_nothing_of_today() {
    let mut world = World::new(&Rules::none().day_budget("1", "UTC"));
    world.call("search", "0.4").unwrap();
    world.wait(seconds(2 * HOUR));
    world.call("search", "1").unwrap();
    world.now.wall_micros -= 2 * HOUR * 1_000_000;
    assert!(world.begin("search", "0.1").is_err());
}

#[test]
fn a_spent_day_shuts_the_baseline_of_all_its_sessions_until_the_next() {
    let rules = Rules::none().day_budget("1", "UTC");
    let mut world = World::new(&rules);
    let second = SessionId(2);
    world.start_session(second, None, &rules);
    world.begin("search", "1").unwrap();
    let shut = |session| sentinel_engine::Effect::SetBaselineNetwork { session, open: false };
    assert_eq!(world.ordered, [shut(SESSION), shut(second)]);
    assert!(world.state.is_exhausted(second, &rules.0, world.now));
    world.wait(seconds(2 * HOUR));
    assert!(!world.state.is_exhausted(second, &rules.0, world.now));
}

#[test]
fn a_policy_that_is_not_strict_warns_of_each_broken_rule_and_lets_the_action_go_on() {
    let rules = Rules::none().allowed(&["other"]).session_budget("0.1").max_calls("search", 0).lax();
    let mut world = World::new(&rules);
    let request = world.request("search", "0.2");
    let facts = world.step(Event::Begin(Box::new(request)));
    let codes: Vec<&str> = facts
        .iter()
        .map(|fact| match fact {
            Fact::ActionWarned { denial, .. } => denial.reason.code(),
            Fact::ActionStarted { reserved, .. } => {
                assert_eq!(*reserved, usd("0.2"), "and is charged");
                "started"
            }
            fact => panic!("{fact:?}"),
        })
        .collect();
    assert_eq!(codes, ["NOT_IN_ALLOWLIST", "CALL_LIMIT", "BUDGET_EXCEEDED", "started"]);
}

#[test]
fn a_policy_that_is_not_strict_still_lets_no_denied_action_run() {
    let mut world = World::new(&Rules::none().denied("delete").lax());
    assert_eq!(world.begin("delete", "0").unwrap_err().reason, Reason::DeniedAction);
}

#[test]
fn a_policy_that_is_not_strict_still_asks_a_human() {
    let mut world = World::new(&Rules::none().approvals().lax());
    let request = world.request("send_money", "0");
    world.wish(&request);
}

#[test]
fn a_paused_session_starts_nothing_and_goes_on_when_it_is_resumed() {
    let mut world = World::new(&Rules::none());
    assert!(matches!(
        world.step(Event::Pause { session: SESSION, operator: 7 })[..],
        [Fact::SessionPaused { operator: 7, .. }]
    ));
    assert!(world.step(Event::Pause { session: SESSION, operator: 7 }).is_empty(), "once is enough");
    assert_eq!(world.begin("search", "0").unwrap_err().reason, Reason::Paused);
    world.step(Event::Resume { session: SESSION, operator: 7 });
    world.begin("search", "0").unwrap();
    assert!(world.step(Event::Resume { session: SESSION, operator: 7 }).is_empty());
}

#[test]
fn a_pause_shuts_all_doors_and_the_resume_opens_those_that_are_still_in_time() {
    use sentinel_engine::{Effect, GrantSet};
    let mut world = World::new(&Rules::none().grant("fetch", 1).max_seconds("fetch", 60));
    world.begin("fetch", "0").unwrap();
    let until = world.state.next_deadline().unwrap();
    world.step(Event::Pause { session: SESSION, operator: 0 });
    let doors = |open, until| Effect::SetDoors {
        session: SESSION,
        scope: crate::world::SCOPE,
        open,
        until,
        openings: Vec::new(),
    };
    assert_eq!(
        world.ordered,
        [
            Effect::SetFrozen { session: SESSION, frozen: true },
            Effect::SetBaselineNetwork { session: SESSION, open: false },
            doors(GrantSet::EMPTY, seconds(0)),
        ]
    );
    world.step(Event::Resume { session: SESSION, operator: 0 });
    assert_eq!(
        world.ordered,
        [
            Effect::SetBaselineNetwork { session: SESSION, open: true },
            doors(GrantSet::of(1), until),
            Effect::SetFrozen { session: SESSION, frozen: false },
        ]
    );
}

#[test]
fn a_new_policy_takes_doors_away_from_what_is_in_flight_and_never_gives_another_rules_bit() {
    use sentinel_engine::GrantSet;
    let mut world = World::new(&Rules::none().grant("fetch", 1).grant("other", 2));
    let fetch = world.begin("fetch", "0").unwrap();
    let other = world.begin("other", "0").unwrap();
    let change = |world: &mut World, rules: &Rules| {
        world.policies.insert(SESSION, std::sync::Arc::new(rules.0.clone()));
        let policy_sha256 = format!("{:?}", world.now);
        world.step(Event::PolicyChange { session: SESSION, policy: "test".to_owned(), policy_sha256 });
    };
    let grants = |world: &World, id: ActionId| world.state.in_flight(id).unwrap().grants;
    // The bits stand for other doors now: each action gets those of its own rule.
    change(&mut world, &Rules::none().grant("other", 1).grant("fetch", 2));
    assert_eq!((grants(&world, fetch), grants(&world, other)), (GrantSet::of(2), GrantSet::of(1)));
    change(&mut world, &Rules::none().grant("other", 1).grant("fetch", 2).denied("fetch"));
    assert_eq!((grants(&world, fetch), grants(&world, other)), (GrantSet::EMPTY, GrantSet::of(1)));
    change(&mut world, &Rules::none().grant("other", 1).grant("fetch", 2).allowed(&["fetch"]));
    assert_eq!((grants(&world, fetch), grants(&world, other)), (GrantSet::of(2), GrantSet::EMPTY));
}

#[test]
fn an_agent_that_comes_back_interrupts_actions_and_keeps_the_sessions_that_it_found() {
    let mut world = World::new(&Rules::none().session_budget("1"));
    let lost = SessionId(2);
    world.start_session(lost, None, &Rules::none());
    let action = world.begin("search", "0.4").unwrap();
    let facts = world.step(Event::AgentStarted {
        version: "2".to_owned(),
        tier: "kill".to_owned(),
        adopted: vec![SESSION],
    });
    assert!(matches!(&facts[..], [
        Fact::AgentStarted { .. },
        Fact::ActionEnded { action_id, outcome: Outcome::Interrupted, .. },
        Fact::SessionEnded { session, ending: SessionEnding::FoundOrphaned },
    ] if *action_id == action && *session == lost));
    assert_eq!(world.spent().0, "0.4", "charged in full");
    world.begin("search", "0.6").unwrap();
}
