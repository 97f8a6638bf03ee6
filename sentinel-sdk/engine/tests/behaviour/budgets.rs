//! What is reserved, charged, given back, and refused.

use sentinel_engine::{ActionRequest, Event, Fact};
use sentinel_proto::{Money, Outcome};

use crate::world::{Rules, SESSION, World, check, seconds, usd};

fn charged(facts: &[Fact]) -> (Money, Money) {
    let [Fact::ActionEnded { charged, overrun, .. }] = facts else { panic!("not one end but {facts:?}") };
    (*charged, *overrun)
}

#[test]
fn a_call_that_would_exceed_the_budget_is_refused() {
    check(
        &Rules::none().run_budget("1"),
        "act 0.9  => allowed
         act 0.3  => BUDGET_EXCEEDED 1.2 > 1 by budgets.run
         act 0.1  => allowed",
    );
}

#[test]
fn a_call_that_just_fills_the_budget_fits() {
    check(
        &Rules::none().session_budget("1"),
        "act 0.5          => allowed
         act 0.5          => allowed
         act 0            => allowed
         act 0.000000001  => BUDGET_EXCEEDED 1.000000001 > 1 by budgets.session",
    );
    check(&Rules::none().session_budget("0"), "act 0  => allowed");
}

#[test]
fn three_dimes_fit_thirty_cents() {
    check(
        &Rules::none().session_budget("0.3"),
        "act 0.1  => allowed
         act 0.1  => allowed
         act 0.1  => allowed
         act 0.1  => BUDGET_EXCEEDED 0.4 > 0.3 by budgets.session",
    );
}

#[test]
fn the_session_is_named_before_the_run_and_the_run_before_the_action() {
    let action = Rules::none().action_budget("act", "0.1");
    check(
        &action,
        "act 1    => BUDGET_EXCEEDED 1 > 0.1 by budgets.actions.act
         other 1  => allowed",
    );
    let run = action.run_budget("0.2");
    check(&run, "act 1  => BUDGET_EXCEEDED 1 > 0.2 by budgets.run");
    let session = run.session_budget("0.3");
    check(&session, "act 1  => BUDGET_EXCEEDED 1 > 0.3 by budgets.session");
}

#[test]
fn a_reset_gives_the_run_a_fresh_budget_and_nothing_else() {
    check(
        &Rules::none().session_budget("2").run_budget("1").action_budget("dear", "0.5"),
        "dear 0.5   => allowed
         dear 0.1   => BUDGET_EXCEEDED 0.6 > 0.5 by budgets.actions.dear
         cheap 0.5  => allowed
         cheap 0.1  => BUDGET_EXCEEDED 1.1 > 1 by budgets.run
         reset
         dear 0.1   => BUDGET_EXCEEDED 0.6 > 0.5 by budgets.actions.dear
         cheap 1    => allowed
         reset
         cheap 0.1  => BUDGET_EXCEEDED 2.1 > 2 by budgets.session",
    );
}

#[test]
fn what_an_earlier_run_began_is_not_charged_to_the_next() {
    let mut world = World::new(&Rules::none());
    let before = world.begin("act", "0.5").unwrap();
    world.step(Event::RunReset { session: SESSION });
    assert_eq!(world.spent(), ("0.5".to_owned(), "0".to_owned()));
    world.end(before, Outcome::Success, Some("0.7"));
    assert_eq!(world.spent(), ("0.7".to_owned(), "0".to_owned()));
    assert_eq!(world.totals().run_number, 2);
}

#[test]
fn the_policy_sets_the_least_cost_at_begin_and_at_end() {
    let mut world = World::new(&Rules::none().floor("search", "0.01"));
    let action_id = world.begin("search", "0").unwrap();
    assert_eq!(world.state.in_flight(action_id).unwrap().reserved, usd("0.01"));
    let facts = world.end(action_id, Outcome::Success, Some("0.001"));
    assert_eq!(charged(&facts), (usd("0.01"), Money::ZERO));
}

#[test]
fn what_the_application_declares_can_be_more_than_the_policys_least() {
    let mut world = World::new(&Rules::none().floor("search", "0.01"));
    let action_id = world.begin("search", "0.05").unwrap();
    assert_eq!(world.state.in_flight(action_id).unwrap().reserved, usd("0.05"));
}

#[test]
fn without_an_actual_cost_the_reservation_is_charged() {
    let mut world = World::new(&Rules::none());
    let action_id = world.begin("act", "0.5").unwrap();
    let facts = world.end(action_id, Outcome::Success, None);
    assert_eq!(charged(&facts), (usd("0.5"), Money::ZERO));
}

#[test]
fn what_a_success_cost_less_is_given_back() {
    let mut world = World::new(&Rules::none().session_budget("0.5"));
    let action_id = world.begin("act", "0.5").unwrap();
    let facts = world.end(action_id, Outcome::Success, Some("0.2"));
    assert_eq!(charged(&facts), (usd("0.2"), Money::ZERO));
    assert!(world.call("act", "0.3").is_ok());
    assert!(world.call("act", "0.1").is_err());
}

#[test]
fn what_it_cost_more_is_charged_in_full_and_closes_the_budget() {
    let mut world = World::new(&Rules::none().session_budget("1"));
    let action_id = world.begin("act", "0.5").unwrap();
    let facts = world.end(action_id, Outcome::Success, Some("1.5"));
    assert_eq!(charged(&facts), (usd("1.5"), usd("1")));
    assert_eq!(world.spent().0, "1.5");
    assert!(world.call("act", "0").is_err(), "even what costs nothing doesn't fit any more");
}

#[test]
fn an_action_that_failed_half_way_is_charged_its_reservation_in_full() {
    for outcome in [Outcome::Error, Outcome::Panicked, Outcome::Cancelled] {
        let mut world = World::new(&Rules::none());
        let ids = [(); 3].map(|()| world.begin("act", "0.5").unwrap());
        assert_eq!(charged(&world.end(ids[0], outcome, None)), (usd("0.5"), Money::ZERO));
        assert_eq!(charged(&world.end(ids[1], outcome, Some("0.1"))), (usd("0.5"), Money::ZERO));
        assert_eq!(charged(&world.end(ids[2], outcome, Some("0.6"))), (usd("0.6"), usd("0.1")));
    }
}

#[test]
fn what_is_in_flight_counts_before_it_ends() {
    let mut world = World::new(&Rules::none().session_budget("1"));
    let started: Vec<_> = (0..50).filter_map(|_| world.begin("act", "0.1").ok()).collect();
    assert_eq!(started.len(), 10);
    assert_eq!(world.spent().0, "1");
    for action_id in started {
        world.end(action_id, Outcome::Success, None);
    }
    assert_eq!(world.spent().0, "1");
    assert!(world.begin("act", "0.1").is_err());
}

#[test]
fn an_aborted_action_leaves_no_trace_in_totals_counts_and_rates() {
    let rules = Rules::none().session_budget("0.5").rate("act", 1, seconds(60));
    let mut world = World::new(&rules);
    let before = world.state.clone();
    let action_id = world.begin("act", "0.5").unwrap();
    let facts = world.abort(action_id);
    assert_eq!(charged(&facts), (Money::ZERO, Money::ZERO));
    assert_eq!(world.state, before);
    assert!(world.call("act", "0.5").is_ok());
}

#[test]
fn a_refused_call_changes_nothing_but_its_counter() {
    let rules = Rules::none().session_budget("0.5").rate("act", 1, seconds(60));
    let mut world = World::new(&rules);
    let before = world.totals();
    assert!(world.begin("act", "0.6").is_err());
    assert_eq!(world.totals().counters.denied, 1);
    assert_eq!((world.totals().session, world.totals().in_flight), (before.session, before.in_flight));
    assert!(world.begin("act", "0.5").is_ok(), "it took no rate slot either");
}

#[test]
fn a_total_beyond_the_largest_amount_is_refused_even_without_a_budget() {
    let mut world = World::new(&Rules::none());
    let largest = Money::MAX.to_string();
    assert!(world.call("act", &largest).is_ok());
    assert!(world.call("act", "0").is_ok());
    let denial = world.begin("act", "0.000000001").unwrap_err();
    assert_eq!(denial.reason.code(), "INVALID_REQUEST");

    let limited = Rules::none().session_budget(&largest).action_budget("act", &largest);
    let mut world = World::new(&limited);
    assert!(world.call("act", &largest).is_ok());
    assert_eq!(world.begin("act", "0.000000001").unwrap_err().reason.code(), "BUDGET_EXCEEDED");
}

#[test]
fn an_action_id_that_is_in_use_starts_nothing() {
    let mut world = World::new(&Rules::none());
    let request = world.request("act", "0.5");
    let again = ActionRequest { action: crate::world::name("other"), ..request.clone() };
    world.ask(request).unwrap();
    assert_eq!(world.ask(again).unwrap_err().reason.code(), "INVALID_REQUEST");
    assert_eq!(world.totals().in_flight, 1);
}
