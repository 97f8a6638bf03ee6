//! Sessions: their beginnings, names, ends and quotas.

use sentinel_engine::{Attempt, Event, Fact, MAX_ACTION_NAMES, MAX_IN_FLIGHT};
use sentinel_proto::{MAX_PAYLOAD_BYTES, Outcome, Payload, SessionId, SessionName};

use crate::world::{Rules, SESSION, World, seconds};

const DAILY: SessionId = SessionId(7);

/// A world with a second session, named `daily`, in which this was spent.
fn with_daily(rules: &Rules, cost: &str) -> World {
    let mut world = World::new(&Rules::none());
    world.start_session(DAILY, Some("daily"), rules);
    let mut request = world.request("act", cost);
    request.session = DAILY;
    let action_id = world.ask(request).unwrap();
    let outputs = Payload::null();
    world.step(Event::End {
        action_id,
        session: DAILY,
        outcome: Outcome::Success,
        cost: None,
        outputs,
        annotations: None,
    });
    world
}

#[test]
fn a_named_session_goes_on_with_its_totals_under_its_old_id() {
    let rules = Rules::none().session_budget("1").rate("act", 1, seconds(60));
    let mut world = with_daily(&rules, "0.75");
    world.end_session(DAILY);
    let new_id = world.state.next_session();
    let facts = world.start_session(new_id, Some("daily"), &rules);
    assert!(matches!(&facts[..], [Fact::SessionStarted { session: DAILY, .. }]), "{facts:?}");
    assert_eq!(world.state.totals(DAILY).unwrap().session.to_string(), "0.75");
    let mut request = world.request("act", "0");
    request.session = DAILY;
    assert_eq!(
        world.ask(request).unwrap_err().reason.code(),
        "RATE_LIMITED",
        "its slots are taken as before"
    );
    assert_eq!(world.state.totals(new_id), None);
}

#[test]
fn a_session_without_a_name_is_new_each_time() {
    let mut world = World::new(&Rules::none());
    world.call("act", "0.75").unwrap();
    world.end_session(SESSION);
    assert_eq!(world.state.totals(SESSION), None);
    let next = world.state.next_session();
    assert_ne!(next, SESSION);
    world.start_session(next, None, &Rules::none());
    assert_eq!(world.state.totals(next).unwrap().session.to_string(), "0");
}

#[test]
fn a_name_that_is_in_use_starts_nothing() {
    let mut world = with_daily(&Rules::none(), "0");
    let daily = SessionName::new("daily").unwrap();
    assert_eq!(world.state.session_named(&daily), Some(DAILY));
    assert!(world.state.is_alive(DAILY), "so the caller can tell");
    assert_eq!(world.start_session(SessionId(8), Some("daily"), &Rules::none()), []);
}

#[test]
fn the_id_of_a_named_session_is_nobody_elses() {
    let mut world = with_daily(&Rules::none(), "0.5");
    world.end_session(DAILY);
    assert_eq!(world.start_session(DAILY, None, &Rules::none()), []);
    assert_eq!(world.start_session(DAILY, Some("other"), &Rules::none()), []);
    assert!(world.state.next_session() > DAILY);
}

#[test]
fn what_is_in_flight_is_abandoned_before_its_session_ends() {
    let mut world = World::new(&Rules::none().grant("act", 1));
    world.begin("act", "0.5").unwrap();
    let facts = world.end_session(SESSION);
    assert!(
        matches!(
            &facts[..],
            [Fact::ActionEnded { outcome: Outcome::Abandoned, .. }, Fact::SessionEnded { .. }]
        ),
        "{facts:?}"
    );
    assert_eq!(world.end_session(SESSION), [], "a session ends once");
}

#[test]
fn of_a_very_long_command_the_beginning_is_recorded() {
    let nasty = "\u{7}ü".repeat(100_000);
    let many = vec![String::new(); 100_000];
    for command in [vec!["sh".to_owned(), "-c".to_owned(), nasty], many] {
        let mut world = World::new(&Rules::none());
        let event = Event::SessionStart {
            session: DAILY,
            name: None,
            policy: "test".to_owned(),
            policy_sha256: "00".to_owned(),
            command: command.clone(),
            uid: 1000,
            tier: "kill".to_owned(),
        };
        let [Fact::SessionStarted { command: recorded, .. }] = &world.step(event)[..] else {
            panic!("it doesn't start");
        };
        assert_eq!(recorded[0], command[0]);
        assert!(
            Payload::of(recorded).unwrap().as_json().len() < MAX_PAYLOAD_BYTES - 10_000,
            "a line has room for it"
        );
    }
    let world = World::new(&Rules::none());
    let (Fact::SessionStarted { command, .. }, _) = &world.facts[0] else { panic!("it doesn't start") };
    assert_eq!(*command, ["agent"], "a short one is recorded whole");
}

#[test]
fn a_session_that_ends_takes_no_other_along() {
    let mut world = World::new(&Rules::none());
    world.start_session(DAILY, None, &Rules::none());
    let action_id = world.begin("act", "0.5").unwrap();
    world.end_session(DAILY);
    assert!(world.state.in_flight(action_id).is_some());
    assert_eq!(world.state.living_sessions().collect::<Vec<_>>(), [SESSION]);
}

#[test]
fn in_a_session_that_has_ended_nothing_starts() {
    let mut world = with_daily(&Rules::none(), "0");
    world.end_session(DAILY);
    for session in [DAILY, SessionId(99)] {
        let mut request = world.request("act", "0");
        request.session = session;
        assert_eq!(world.ask(request).unwrap_err().reason.code(), "SESSION_ENDED");
        assert_eq!(world.step(Event::RunReset { session }), []);
    }
}

#[test]
fn without_a_policy_nothing_starts() {
    let mut world = World::new(&Rules::none());
    assert!(world.call("act", "0").is_ok());
    world.policies.clear();
    assert!(world.call("act", "0").is_err());
}

#[test]
fn sessions_share_nothing() {
    let rules = Rules::none().session_budget("1").rate("act", 1, seconds(60));
    let mut world = World::new(&rules);
    world.start_session(DAILY, None, &rules);
    world.call("act", "1").unwrap();
    let mut request = world.request("act", "1");
    request.session = DAILY;
    assert!(world.ask(request).is_ok());
}

#[test]
fn no_more_than_a_thousand_and_some_actions_of_a_session_are_in_flight_at_once() {
    let mut world = World::new(&Rules::none());
    let ids: Vec<_> = (0..MAX_IN_FLIGHT).map(|_| world.begin("act", "0").unwrap()).collect();
    assert_eq!(world.begin("act", "0").unwrap_err().reason.code(), "QUOTA_EXCEEDED");
    world.start_session(DAILY, None, &Rules::none());
    let mut request = world.request("act", "0");
    request.session = DAILY;
    assert!(world.ask(request).is_ok(), "another session is not held up");
    world.end(ids[0], Outcome::Success, None);
    assert!(world.begin("act", "0").is_ok());
}

#[test]
fn no_more_than_ten_thousand_names_of_actions_are_kept_for_a_session() {
    let mut world = World::new(&Rules::none().denied("denied"));
    for number in 0..MAX_ACTION_NAMES {
        world.call(&number.to_string(), "0").unwrap();
    }
    assert_eq!(world.begin("one-more", "0").unwrap_err().reason.code(), "QUOTA_EXCEEDED");
    assert!(world.begin("17", "0").is_ok(), "a known one is still welcome");
}

#[test]
fn counters_tell_how_often_what_was_decided() {
    let mut world = World::new(&Rules::none().denied("denied"));
    world.call("act", "0").unwrap();
    world.begin("denied", "0").unwrap_err();
    let attempt = Attempt {
        operation: "connect".to_owned(),
        target: "192.0.2.1:443/tcp".to_owned(),
        verdict: "no_rule".to_owned(),
        fate: "refused".to_owned(),
        process: "curl".to_owned(),
        pid: 43,
        would_allow: None,
    };
    world.step(Event::KernelDenied { session: SESSION, attempt: Box::new(attempt), count: 3 });
    let counters = world.totals().counters;
    assert_eq!((counters.allowed, counters.denied, counters.kernel_denials), (1, 1, 3));
    assert_eq!(world.step(Event::RecordsDropped { count: 2 }), [Fact::RecordsDropped { count: 2 }]);
}
