//! What hooks report.

use std::time::Duration;

use sentinel_engine::Fact;
use sentinel_proto::app::{Reply, Request};
use sentinel_proto::{SessionId, admin};

use super::run;
use crate::enforcer::KernelRecord;

fn record(session: SessionId, port: u32) -> KernelRecord {
    KernelRecord {
        at: 1_000_000_000_000,
        operation: sentinel_ebpf_common::record::OPERATION_CONNECT,
        verdict: 1,
        session: session.0,
        audited: 0,
        tgid: std::process::id(),
        tid: std::process::id(),
        comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
        address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
        port,
        protocol: 6,
        family: 0,
        dev: 0,
        ino: 0,
        rule_bits: 0,
        open_bits: 0,
        scopes: [0; 4],
        cookie: 0,
        source: [0; 16],
        source_port: 0,
        reserved: 0,
        path: [0; sentinel_ebpf_common::record::PATH_BYTES],
    }
}

fn counts(facts: &[Fact]) -> Vec<u64> {
    let counts = facts.iter().filter_map(|fact| match fact {
        Fact::KernelDenied { count, .. } => Some(*count),
        _ => None,
    });
    counts.collect()
}

#[test]
fn the_first_of_a_kind_is_a_line_and_a_notice_at_once_and_repeats_are_one_line_with_a_count() {
    run(async |mut world| {
        let (session, mut launcher, mut application) = world.session();
        for port in [443, 443, 443, 80, 443] {
            world.enforcer.report(record(session, port));
        }
        world.driver.tick();
        assert_eq!(counts(&world.facts()), [1, 1]);
        for _ in 0..2 {
            let Some(admin::Reply::Notice(notice)) = launcher.receive() else { panic!("no notice") };
            assert!(!notice.denial.id.is_empty() && notice.pid == std::process::id());
        }
        assert!(launcher.receive::<admin::Reply>().is_none(), "two kinds, two notices");

        world.clock.advance(Duration::from_secs(10));
        world.driver.tick();
        assert_eq!(counts(&world.facts()), [1, 1, 3]);

        let asked = Request::Denials(sentinel_proto::app::Denials { request: 4, within_ms: 1_000_000 });
        let Some(Reply::Denials(list)) = world.ask(&mut application, asked) else { panic!("no answer") };
        assert_eq!((list.request, list.denials.len()), (4, 5));
    });
}

#[test]
fn what_could_not_be_written_is_written_with_the_next() {
    run(async |mut world| {
        let (session, mut launcher, _application) = world.session();
        world.enforcer.report(record(session, 443));
        world.ledger.fail_after(0);
        world.driver.tick();
        assert!(counts(&world.facts()).is_empty() && launcher.receive::<admin::Reply>().is_none());
        world.enforcer.report(record(session, 443));
        world.clock.advance(Duration::from_secs(1));
        world.driver.tick();
        assert_eq!(counts(&world.facts()), [1]);
    });
}

#[test]
fn repeats_are_written_before_their_session_ends() {
    run(async |mut world| {
        let (session, launcher, _application) = world.session();
        world.enforcer.report(record(session, 443));
        world.enforcer.report(record(session, 443));
        world.driver.handle(crate::connection::Arrival::Closed(launcher.ours));
        assert_eq!(counts(&world.facts()), [1, 1]);
        assert!(matches!(world.facts().last(), Some(Fact::SessionEnded { .. })));
    });
}

#[test]
fn lost_records_are_a_fact_whenever_their_number_has_moved() {
    run(async |mut world| {
        let lost = |facts: Vec<Fact>| -> Vec<u64> {
            facts
                .iter()
                .filter_map(
                    |fact| if let Fact::RecordsDropped { count } = fact { Some(*count) } else { None },
                )
                .collect()
        };
        world.enforcer.drop_records(3);
        world.driver.tick();
        world.clock.advance(Duration::from_secs(1));
        world.driver.tick();
        assert_eq!(lost(world.facts()), [3]);
        world.enforcer.drop_records(2);
        world.ledger.fail_after(0);
        world.clock.advance(Duration::from_secs(1));
        world.driver.tick();
        world.clock.advance(Duration::from_secs(1));
        world.driver.tick();
        assert_eq!(lost(world.facts()), [3, 2], "one that couldn't be written is written later");
    });
}

/// What would allow each denial that has been written.
fn suggestions(facts: &[Fact]) -> Vec<String> {
    let texts = facts.iter().filter_map(|fact| match fact {
        Fact::KernelDenied { attempt, .. } => attempt.would_allow.clone(),
        _ => None,
    });
    texts.collect()
}

#[test]
fn what_is_refused_in_an_action_is_suggested_for_that_action_and_else_for_the_baseline() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let action = world.begin(&mut application, "look").action_id.unwrap();
        let mut inside = record(session, 443);
        // By a child that has begun actions of its own before.
        inside.scopes[..2].copy_from_slice(&[1, world.scope().0]);
        // Nobody takes the report before the action's end comes.
        world.enforcer.report(inside);
        drop(world.end(&mut application, action, Some(8)));
        let text = "actions:\n  look:\n    grants:\n      network:\n        - \"192.0.2.1:443\"";
        assert_eq!(suggestions(&world.facts()), [text]);

        // The same afterwards, and while another process's action is in flight.
        drop(world.begin(&mut application, "look"));
        world.enforcer.report(record(session, 443));
        world.driver.drain_records();
        let text = "enforcement:\n  network:\n    allow:\n      - \"192.0.2.1:443\"";
        assert_eq!(suggestions(&world.facts()).last().map(String::as_str), Some(text));
    });
}

#[test]
fn of_actions_in_flight_at_once_the_latest_is_the_likeliest() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        for action in ["look", "listen"] {
            drop(world.begin(&mut application, action));
            world.clock.advance(Duration::from_millis(1));
        }
        let mut inside = record(session, 443);
        inside.scopes[0] = world.scope().0;
        world.enforcer.report(inside);
        world.driver.drain_records();
        let text = "actions:\n  listen:\n    grants:\n      network:\n        - \"192.0.2.1:443\"  # or to another action that was in flight: `look`";
        assert_eq!(suggestions(&world.facts()), [text]);
    });
}
