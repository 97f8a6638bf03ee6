//! How actions end, and what can't end them.

use std::time::Duration;

use sentinel_engine::{Event, Fact};
use sentinel_proto::{ActionId, Outcome, Payload, SessionId};
use uuid::Uuid;

use crate::world::{Rules, SESSION, World, seconds};

fn outcomes(facts: &[Fact]) -> Vec<Outcome> {
    let ended = facts.iter().filter_map(|fact| match fact {
        Fact::ActionEnded { outcome, .. } => Some(*outcome),
        Fact::AgentStarted { .. }
        | Fact::ActionWarned { .. }
        | Fact::ActionCorrected { .. }
        | Fact::ActionRecorded(_)
        | Fact::SessionReset { .. }
        | Fact::ActionRegranted { .. }
        | Fact::ApprovalRequested { .. }
        | Fact::ApprovalGiven { .. }
        | Fact::ApprovalClosed { .. }
        | Fact::SessionPaused { .. }
        | Fact::SessionResumed { .. }
        | Fact::KillOrdered { .. }
        | Fact::PoliciesReloaded { .. }
        | Fact::PolicyChanged { .. }
        | Fact::Gap { .. }
        | Fact::AgentStopped
        | Fact::SessionStarted { .. }
        | Fact::SessionEnded { .. }
        | Fact::RunReset { .. }
        | Fact::ActionStarted { .. }
        | Fact::ActionDenied { .. }
        | Fact::KernelDenied { .. }
        | Fact::Examined { .. }
        | Fact::RecordsDropped { .. } => None,
    });
    ended.collect()
}

#[test]
fn an_end_tells_how_long_the_action_ran() {
    let mut world = World::new(&Rules::none());
    let action_id = world.begin("act", "0").unwrap();
    world.wait(Duration::from_nanos(1_234_567_891));
    let facts = world.end(action_id, Outcome::Success, None);
    let [Fact::ActionEnded { duration, .. }] = &facts[..] else { panic!("not one end but {facts:?}") };
    assert_eq!(*duration, Duration::from_micros(1_234_567), "to the microsecond, as the ledger tells it");
}

#[test]
fn a_second_end_settles_nothing() {
    let mut world = World::new(&Rules::none());
    let action_id = world.begin("act", "0.5").unwrap();
    world.end(action_id, Outcome::Success, Some("0.5"));
    let before = world.state.clone();
    assert_eq!(world.end(action_id, Outcome::Error, Some("3")), []);
    assert_eq!(world.state, before);
}

#[test]
fn a_session_cannot_end_anothers_action() {
    let mut world = World::new(&Rules::none());
    world.start_session(SessionId(2), None, &Rules::none());
    let action_id = world.begin("act", "0.5").unwrap();
    let foreign = Event::End {
        action_id,
        session: SessionId(2),
        outcome: Outcome::Success,
        cost: None,
        outputs: Payload::null(),
        annotations: None,
    };
    assert_eq!(world.step(foreign), []);
    assert_eq!(outcomes(&world.end(action_id, Outcome::Success, None)), [Outcome::Success], "its own can");
}

#[test]
fn an_application_cannot_report_what_only_the_agent_can_know() {
    let mut world = World::new(&Rules::none());
    let action_id = world.begin("act", "0.5").unwrap();
    for outcome in [
        Outcome::Started,
        Outcome::Expired,
        Outcome::Abandoned,
        Outcome::Interrupted,
        Outcome::Aborted,
        Outcome::Blocked,
        Outcome::Recorded,
    ] {
        assert_eq!(world.end(action_id, outcome, Some("0")), [], "{outcome:?}");
    }
    assert_eq!(world.totals().in_flight, 1);
}

#[test]
fn an_action_expires_at_its_time_and_a_late_end_changes_nothing() {
    let mut world = World::new(&Rules::none().max_seconds("act", 20));
    let action_id = world.begin("act", "0.5").unwrap();
    assert_eq!(world.state.next_deadline(), Some(world.now.elapsed + seconds(20)));
    world.wait(Duration::from_millis(19_999));
    assert_eq!(world.step(Event::Tick), []);
    world.wait(Duration::from_millis(1));
    assert_eq!(outcomes(&world.step(Event::Tick)), [Outcome::Expired]);
    assert_eq!(world.spent().0, "0.5", "charged in full");
    assert_eq!(world.end(action_id, Outcome::Success, Some("0")), []);
    assert_eq!(world.step(Event::Tick), []);
    assert_eq!(world.state.next_deadline(), None);
}

#[test]
fn an_action_without_a_time_of_its_own_expires_after_ten_minutes() {
    let mut world = World::new(&Rules::none());
    world.begin("act", "0").unwrap();
    assert_eq!(world.state.next_deadline(), Some(world.now.elapsed + seconds(600)));
}

#[test]
fn an_abandoned_action_is_charged_in_full_once() {
    let mut world = World::new(&Rules::none());
    let gone = world.begin("act", "0.5").unwrap();
    let stays = world.begin("act", "0.25").unwrap();
    let unknown = ActionId(Uuid::from_u128(999));
    let facts = world.step(Event::Abandon { action_ids: vec![gone, unknown] });
    assert_eq!(outcomes(&facts), [Outcome::Abandoned]);
    assert_eq!(world.step(Event::Abandon { action_ids: vec![gone] }), []);
    world.end(stays, Outcome::Success, Some("0"));
    assert_eq!(world.spent().0, "0.5");
}

#[test]
fn an_agent_that_starts_again_interrupts_what_was_in_flight_and_ends_the_sessions() {
    let mut world = World::new(&Rules::none());
    let action_id = world.begin("act", "0.5").unwrap();
    let facts = world.step(Event::AgentStarted {
        version: "0.1.0".to_owned(),
        tier: "kill".to_owned(),
        adopted: Vec::new(),
    });
    assert!(matches!(facts[0], Fact::AgentStarted { .. }));
    assert_eq!(outcomes(&facts), [Outcome::Interrupted]);
    assert!(matches!(&facts[2], Fact::SessionEnded { session: SESSION, .. }));
    assert!(!world.state.is_alive(SESSION));
    assert_eq!(world.end(action_id, Outcome::Success, Some("0")), []);
}

/// A world in which an agent died while an action was in flight, and its next has taken the session over.
fn interrupted(rules: &Rules, cost: &str) -> (World, ActionId) {
    let mut world = World::new(rules);
    let action_id = world.begin("act", cost).unwrap();
    world.wait(seconds(5));
    let adopted = vec![SESSION];
    let started = Event::AgentStarted { version: "0.1.0".to_owned(), tier: "kill".to_owned(), adopted };
    assert_eq!(outcomes(&world.step(started)), [Outcome::Interrupted]);
    (world, action_id)
}

#[test]
fn a_late_end_of_an_interrupted_action_corrects_its_cost_and_outcome_once() {
    let (mut world, action_id) = interrupted(&Rules::none().day_budget("5", "UTC"), "0.5");
    assert_eq!(world.spent().0, "0.5", "charged in full");
    let facts = world.end(action_id, Outcome::Success, Some("0.125"));
    let [Fact::ActionCorrected { before, charged, overrun, duration, outcome, .. }] = &facts[..] else {
        panic!("not one correction but {facts:?}")
    };
    assert_eq!([before.to_string(), charged.to_string(), overrun.to_string()], ["0.5", "0.125", "0"]);
    assert_eq!((*duration, *outcome), (seconds(5), Outcome::Success));
    assert_eq!(world.spent(), ("0.125".to_owned(), "0.125".to_owned()));
    assert_eq!(world.end(action_id, Outcome::Success, Some("0")), [], "a second time it is unknown");
}

#[test]
fn a_correction_is_held_to_the_policys_floor_and_a_failure_to_its_reservation() {
    let (mut world, action_id) = interrupted(&Rules::none().floor("act", "0.25"), "0.5");
    world.end(action_id, Outcome::Success, Some("0"));
    assert_eq!(world.spent().0, "0.25");
    let (mut world, action_id) = interrupted(&Rules::none(), "0.5");
    world.end(action_id, Outcome::Error, Some("0"));
    assert_eq!(world.spent().0, "0.5");
    let (mut world, action_id) = interrupted(&Rules::none(), "0.5");
    world.end(action_id, Outcome::Success, Some("0.75"));
    assert_eq!(world.spent().0, "0.75", "more than was reserved is charged, as an overrun");
}

#[test]
fn a_correction_of_another_session_or_after_the_actions_time_or_its_sessions_end_is_none() {
    let rules = Rules::none().max_seconds("act", 20);
    let (mut world, action_id) = interrupted(&rules, "0.5");
    world.start_session(SessionId(2), None, &Rules::none());
    let foreign = Event::End {
        action_id,
        session: SessionId(2),
        outcome: Outcome::Success,
        cost: None,
        outputs: Payload::null(),
        annotations: None,
    };
    assert_eq!(world.step(foreign), []);
    let mut late = world.clone();
    late.wait(seconds(15));
    assert_eq!(late.end(action_id, Outcome::Success, Some("0")), []);
    let mut over = world.clone();
    over.end_session(SESSION);
    over.start_session(SESSION, None, &Rules::none());
    assert_eq!(over.end(action_id, Outcome::Success, Some("0")), []);
    assert_eq!(world.end(action_id, Outcome::Success, Some("0")).len(), 1, "its own in time is one");
}

#[test]
fn an_agent_that_stops_abandons_what_is_in_flight_and_ends_the_sessions() {
    let mut world = World::new(&Rules::none());
    world.begin("act", "0.5").unwrap();
    let facts = world.step(Event::AgentStopped);
    assert_eq!(outcomes(&facts), [Outcome::Abandoned]);
    assert_eq!(facts.last(), Some(&Fact::AgentStopped));
    assert_eq!(world.state.living_sessions().count(), 0);
}

#[test]
fn what_is_unknown_changes_nothing() {
    let mut world = World::new(&Rules::none());
    let before = world.state.clone();
    let (action_id, session) = (ActionId(Uuid::from_u128(999)), SessionId(99));
    let events = [
        Event::End {
            action_id,
            session,
            outcome: Outcome::Success,
            cost: None,
            outputs: Payload::null(),
            annotations: None,
        },
        Event::Abort { action_id, cause: String::new() },
        Event::Abandon { action_ids: vec![action_id] },
        Event::SessionEnd { session, ending: sentinel_engine::SessionEnding::Exited },
        Event::RunReset { session },
        Event::Tick,
    ];
    for event in events {
        assert_eq!(world.step(event.clone()), [], "{event:?}");
    }
    assert_eq!(world.state, before);
    assert_eq!(world.state.totals(session), None);
    assert_eq!(world.state.in_flight(action_id), None);
}
