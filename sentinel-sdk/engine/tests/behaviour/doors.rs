//! What is ordered outside: doors of scopes, and the baseline network.

use std::time::Duration;

use sentinel_engine::{Effect, Event, GrantSet, OnExhausted, Opening, ScopeId};
use sentinel_proto::Outcome;

use crate::world::{Rules, SCOPE, SESSION, World, seconds};

fn doors(open: u64, until: Duration) -> Effect {
    Effect::SetDoors { session: SESSION, scope: SCOPE, open: GrantSet(open), until, openings: Vec::new() }
}

fn shut() -> Effect {
    doors(0, Duration::ZERO)
}

fn baseline(open: bool) -> Effect {
    Effect::SetBaselineNetwork { session: SESSION, open }
}

/// `fetch` opens grant 1 for a minute, `build` grant 2 for an hour, `think` nothing.
fn rules() -> Rules {
    Rules::none().grant("fetch", 1).max_seconds("fetch", 60).grant("build", 2).max_seconds("build", 3600)
}

#[test]
fn an_action_opens_just_its_grant_until_it_ends() {
    let mut world = World::new(&rules());
    let action_id = world.begin("fetch", "0").unwrap();
    assert_eq!(world.ordered, [doors(0b010, world.now.elapsed + seconds(60))]);
    assert!(!world.state.in_flight(action_id).unwrap().grants.is_empty(), "so its end is acknowledged");
    world.end(action_id, Outcome::Success, None);
    assert_eq!(world.ordered, [shut()]);
}

#[test]
fn an_action_without_a_grant_orders_nothing() {
    let mut world = World::new(&rules());
    let action_id = world.begin("think", "0").unwrap();
    assert_eq!(world.ordered, []);
    assert!(world.state.in_flight(action_id).unwrap().grants.is_empty());
    world.end(action_id, Outcome::Success, None);
    assert_eq!(world.ordered, []);
}

#[test]
fn actions_of_one_scope_share_their_doors_until_the_last_of_them_ends() {
    let mut world = World::new(&rules());
    let (minute, hour) = (world.now.elapsed + seconds(60), world.now.elapsed + seconds(3600));
    let first = world.begin("fetch", "0").unwrap();
    let build = world.begin("build", "0").unwrap();
    assert_eq!(world.ordered, [doors(0b110, hour)]);
    let think = world.begin("think", "0").unwrap();
    let second = world.begin("fetch", "0").unwrap();
    world.end(first, Outcome::Error, None);
    assert_eq!(world.ordered, [doors(0b110, hour)], "the other fetch goes on");
    world.end(build, Outcome::Success, None);
    assert_eq!(world.ordered, [doors(0b010, minute)]);
    world.end(second, Outcome::Success, None);
    assert_eq!(world.ordered, [shut()], "an action without a grant keeps nothing open");
    world.end(think, Outcome::Success, None);
}

#[test]
fn scopes_do_not_share_doors() {
    let mut world = World::new(&rules());
    world.begin("fetch", "0").unwrap();
    let other = ScopeId(12);
    let action_id = world.begin_in(other, "build");
    let until = world.now.elapsed + seconds(3600);
    let open = GrantSet(0b100);
    let of_other = Effect::SetDoors { session: SESSION, scope: other, open, until, openings: Vec::new() };
    assert_eq!(world.ordered, [of_other]);
    assert_eq!(world.state.actions_of_scope(other).map(|(id, _)| id).collect::<Vec<_>>(), [action_id]);
}

#[test]
fn a_door_is_open_since_its_own_action_began() {
    let mut world = World::new(&rules());
    let opening = |open, since| Opening { grants: GrantSet(open), since };
    let started = world.now.elapsed;
    let first = world.begin("fetch", "0").unwrap();
    assert_eq!(world.openings, [opening(0b010, started)]);
    world.wait(seconds(7));
    world.begin("fetch", "0").unwrap();
    world.begin("build", "0").unwrap();
    let later = started + seconds(7);
    assert_eq!(world.openings, [opening(0b010, started), opening(0b010, later), opening(0b100, later)]);
    world.end(first, Outcome::Success, None);
    assert_eq!(world.openings, [opening(0b010, later), opening(0b100, later)]);
}

#[test]
fn whatever_ends_an_action_shuts_its_doors() {
    let mut opened = World::new(&rules());
    let action_id = opened.begin("fetch", "0").unwrap();
    opened.wait(seconds(60));
    let endings = [
        Event::Tick,
        Event::Abort { action_id, cause: String::new() },
        Event::Abandon { action_ids: vec![action_id] },
        Event::SessionEnd { session: SESSION, ending: sentinel_engine::SessionEnding::Exited },
        Event::AgentStarted { version: String::new(), tier: String::new(), adopted: Vec::new() },
        Event::AgentStopped,
    ];
    for event in endings {
        let mut world = opened.clone();
        world.step(event.clone());
        assert_eq!(world.ordered, [shut()], "{event:?}");
    }
}

#[test]
fn a_denied_action_opens_nothing() {
    let mut world = World::new(&rules().denied("fetch"));
    world.begin("fetch", "0").unwrap_err();
    assert_eq!(world.ordered, []);
}

#[test]
fn a_spent_budget_shuts_the_baseline_and_room_in_it_opens_it_again() {
    for rules in [Rules::none().session_budget("1"), Rules::none().run_budget("1")] {
        let mut world = World::new(&rules);
        assert_eq!(world.ordered, [baseline(true)]);
        let action_id = world.begin("act", "1").unwrap();
        assert_eq!(world.ordered, [baseline(false)], "what is reserved counts");
        world.end(action_id, Outcome::Success, Some("0.9"));
        assert_eq!(world.ordered, [baseline(true)]);
        let action_id = world.begin("act", "0.1").unwrap();
        assert_eq!(world.ordered, [baseline(false)]);
        world.abort(action_id);
        assert_eq!(world.ordered, [baseline(true)]);
    }
}

#[test]
fn a_budget_of_nothing_is_spent_from_the_beginning() {
    let world = World::new(&Rules::none().run_budget("0"));
    assert_eq!(world.ordered, [baseline(false)]);
    assert!(world.state.is_exhausted(SESSION, &world.policies[&SESSION], world.now));
}

#[test]
fn a_reset_opens_the_baseline_if_just_the_run_was_spent() {
    let mut world = World::new(&Rules::none().run_budget("1").session_budget("2"));
    world.call("act", "1").unwrap();
    assert_eq!(world.ordered, [baseline(false)]);
    world.step(Event::RunReset { session: SESSION });
    assert_eq!(world.ordered, [baseline(true)]);
    world.call("act", "1").unwrap();
    world.step(Event::RunReset { session: SESSION });
    assert_eq!(world.ordered, [baseline(false)], "now the session is spent too");
}

#[test]
fn an_action_in_flight_keeps_its_doors_when_the_budget_is_spent() {
    let mut world = World::new(&rules().session_budget("1"));
    world.begin("fetch", "0.5").unwrap();
    world.begin("think", "0.5").unwrap();
    assert_eq!(world.ordered, [baseline(false)]);
}

#[test]
fn the_baseline_is_shut_before_a_door_opens() {
    let mut world = World::new(&rules().session_budget("1"));
    world.begin("fetch", "1").unwrap();
    assert_eq!(world.ordered, [baseline(false), doors(0b010, world.now.elapsed + seconds(60))]);
}

#[test]
fn the_baseline_stays_open_where_the_policy_says_so_or_sets_no_budget() {
    let mut kept = Rules::none().session_budget("1");
    kept.0.on_exhausted = OnExhausted::Keep;
    for rules in [kept, Rules::none(), Rules::none().action_budget("act", "1")] {
        let mut world = World::new(&rules);
        assert_eq!(world.ordered, []);
        world.call("act", "1").unwrap();
        assert_eq!(world.ordered, []);
    }
}
