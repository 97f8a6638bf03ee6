//! How often an action may start.

use std::time::Duration;

use sentinel_proto::{Outcome, Reason};

use crate::world::{Rules, World, check, seconds};

#[test]
fn as_many_start_as_the_window_has_room_for_and_more_when_it_has_slid_on() {
    check(
        &Rules::none().rate("act", 2, seconds(10)),
        "act 0    => allowed
         wait 4
         act 0    => allowed
         act 0    => RATE_LIMITED for 6000 ms by rate_limits.act
         other 0  => allowed
         wait 5.999
         act 0    => RATE_LIMITED for 1 ms by rate_limits.act
         wait 0.001
         act 0    => allowed
         act 0    => RATE_LIMITED for 4000 ms by rate_limits.act",
    );
}

#[test]
fn a_limit_of_nothing_refuses_always() {
    check(
        &Rules::none().rate("act", 0, seconds(1)),
        "act 0  => RATE_LIMITED for ever by rate_limits.act
         wait 100
         act 0  => RATE_LIMITED for ever by rate_limits.act",
    );
}

#[test]
fn whoever_waits_as_long_as_it_is_told_is_let_in() {
    let mut world = World::new(&Rules::none().rate("act", 1, Duration::from_nanos(1_500_001)));
    world.call("act", "0").unwrap();
    let Reason::RateLimited { retry_after_ms: Some(wait), .. } = world.call("act", "0").unwrap_err().reason
    else {
        panic!("another reason");
    };
    world.wait(Duration::from_millis(wait));
    assert!(world.call("act", "0").is_ok());
}

#[test]
fn a_refused_call_takes_no_slot_whatever_refused_it() {
    check(
        &Rules::none().rate("act", 2, seconds(10)).session_budget("1"),
        "act 1    => allowed
         act 0.1  => BUDGET_EXCEEDED 1.1 > 1 by budgets.session
         act 0.1  => BUDGET_EXCEEDED 1.1 > 1 by budgets.session
         act 0    => allowed
         act 0    => RATE_LIMITED for 10000 ms by rate_limits.act
         wait 10
         act 0    => allowed",
    );
}

#[test]
fn a_slot_is_taken_when_an_action_starts_and_kept_whatever_becomes_of_it() {
    for outcome in [Outcome::Success, Outcome::Error, Outcome::Panicked, Outcome::Cancelled] {
        let mut world = World::new(&Rules::none().rate("act", 1, seconds(10)));
        let action_id = world.begin("act", "0").unwrap();
        world.wait(seconds(9));
        world.end(action_id, outcome, None);
        assert!(world.begin("act", "0").is_err());
        world.wait(seconds(1));
        assert!(world.begin("act", "0").is_ok());
    }
}

#[test]
fn of_several_slots_the_aborted_actions_own_is_given_back() {
    let mut world = World::new(&Rules::none().rate("act", 2, seconds(10)));
    let first = world.begin("act", "0").unwrap();
    world.wait(seconds(8));
    world.call("act", "0").unwrap();
    world.abort(first);
    world.call("act", "0").unwrap();
    world.wait(seconds(3));
    assert!(world.call("act", "0").is_err(), "both slots that are left are three seconds old");
}

#[test]
fn a_reset_of_the_run_frees_no_slot() {
    check(
        &Rules::none().rate("act", 1, seconds(10)),
        "act 0  => allowed
         reset
         act 0  => RATE_LIMITED for 10000 ms by rate_limits.act",
    );
}

#[test]
fn a_clock_that_goes_backwards_frees_no_slot() {
    let mut world = World::new(&Rules::none().rate("act", 1, seconds(10)));
    world.call("act", "0").unwrap();
    let then = world.now;
    for back in [1, 10, 100, 1_000] {
        world.now.elapsed = then.elapsed.saturating_sub(seconds(back));
        assert!(world.call("act", "0").is_err(), "{back} s back");
    }
    world.now.elapsed = then.elapsed + seconds(10);
    assert!(world.call("act", "0").is_ok());
}

#[test]
fn a_jump_of_the_wall_clock_changes_nothing() {
    let mut world = World::new(&Rules::none().rate("act", 1, seconds(10)));
    world.call("act", "0").unwrap();
    world.now.wall_micros += 3_600_000_000;
    assert!(world.call("act", "0").is_err());
}
