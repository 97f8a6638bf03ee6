//! Actions that end without a word.

use std::os::fd::AsFd as _;
use std::time::Duration;

use sentinel_engine::GrantSet;
use sentinel_proto::Outcome;
use sentinel_proto::app::Reply;

use super::{FETCHES, outcomes, run};
use crate::clock::since_boot;
use crate::connection::{Arrival, Door};
use crate::enforcer::Mark;
use crate::peer::Sender;

#[test]
fn an_action_is_abandoned_with_the_connection_that_began_it() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        world.begin(&mut application, "fetch");
        let other = world.connect(Door::Application);
        world.driver.handle(Arrival::Closed(other.ours));
        assert_eq!(world.enforcer.doors(world.scope()).0, FETCHES, "another connection's end is none of it");
        world.driver.handle(Arrival::Closed(application.ours));
        assert_eq!(world.enforcer.doors(world.scope()).0, GrantSet::EMPTY);
        assert_eq!(outcomes(&world.facts()), [Outcome::Started, Outcome::Abandoned]);
    });
}

#[test]
fn an_action_that_is_abandoned_while_the_ledger_fails_has_its_door_shut_too() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        world.begin(&mut application, "fetch");
        world.ledger.fail_after(0);
        world.driver.handle(Arrival::Closed(application.ours));
        assert_eq!(world.enforcer.doors(world.scope()).0, GrantSet::EMPTY);
    });
}

#[test]
fn an_action_is_abandoned_with_the_process_that_began_it_even_over_anothers_connection() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let child = world.child();
        world.enforcer.set_mark(child, Mark { session, scopes: [None; 4], marked_at: since_boot() });
        application.sender = Sender { pid: child, ..application.sender };
        world.begin(&mut application, "fetch");
        let scope = world.driver.processes[&child].scope;
        assert_eq!(world.enforcer.doors(scope).0, FETCHES);
        assert!(world.driver.intake.pop().is_none(), "it lives");

        world.children.pop().unwrap().kill().unwrap();
        world.intake.filled().await;
        while let Some(arrival) = world.intake.pop() {
            world.driver.handle(arrival);
        }
        assert_eq!(world.enforcer.doors(scope).0, GrantSet::EMPTY);
        assert_eq!(outcomes(&world.facts()), [Outcome::Started, Outcome::Abandoned]);
        assert!(world.driver.processes.is_empty());
    });
}

#[test]
fn the_last_word_of_a_process_that_is_gone_counts() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let answer = world.begin(&mut application, "think");
        // As if the opener had ended: its mark went with it.
        world.enforcer.forget_mark(std::process::id());
        let ended = world.end(&mut application, answer.action_id.unwrap(), Some(1));
        assert!(matches!(ended, Some(Reply::Ended(ended)) if ended.settled));
        assert!(application.ours.opener.pidfd.as_fd().try_clone_to_owned().is_ok());
        let _ = session;
    });
}

#[test]
fn an_action_expires_at_its_time_and_a_later_end_settles_nothing() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        let answer = world.begin(&mut application, "fetch");
        world.clock.advance(Duration::from_secs(59));
        world.driver.tick();
        assert_eq!(world.enforcer.doors(world.scope()).0, FETCHES, "not yet");
        world.clock.advance(Duration::from_secs(1));
        world.driver.tick();
        assert_eq!(world.enforcer.doors(world.scope()).0, GrantSet::EMPTY);
        assert_eq!(outcomes(&world.facts()), [Outcome::Started, Outcome::Expired]);
        let ended = world.end(&mut application, answer.action_id.unwrap(), Some(1));
        assert!(matches!(ended, Some(Reply::Ended(ended)) if !ended.settled));
    });
}

#[test]
fn two_actions_of_one_process_share_a_scope_and_the_door_stays_for_the_one_that_goes_on() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        let first = world.begin(&mut application, "fetch");
        let second = world.begin(&mut application, "fetch");
        world.end(&mut application, first.action_id.unwrap(), Some(1));
        assert_eq!(world.enforcer.doors(world.scope()).0, FETCHES);
        world.end(&mut application, second.action_id.unwrap(), Some(2));
        assert_eq!(world.enforcer.doors(world.scope()).0, GrantSet::EMPTY);
    });
}

#[test]
fn the_heartbeat_is_written_each_second_and_a_failed_one_is_tried_again() {
    run(async |mut world| {
        world.driver.tick();
        let first = world.enforcer.last_beat();
        assert!(first.is_some());
        world.clock.advance(Duration::from_millis(900));
        world.driver.tick();
        assert_eq!(world.enforcer.last_beat(), first, "not before its time");
        world.clock.advance(Duration::from_millis(100));
        world.enforcer.fail_after(0);
        world.driver.tick();
        world.clock.advance(Duration::from_secs(1));
        world.driver.tick();
        assert_eq!(world.enforcer.last_beat(), first.map(|first| first + Duration::from_secs(2)));
    });
}
