//! The matching that the hooks call, on the host: by example at each edge, and by property over all inputs.

use proptest::prelude::*;
use sentinel_ebpf_common::verdict::{
    Verdict, heartbeat_is_fresh, is_in_flight, judge, mark_is_current, network_baseline, open_in_scope,
};
use sentinel_ebpf_common::{BASELINE, GRANTS, HEARTBEAT_MAX_AGE_NS, Scope, Session, TaskMark};

const NOW: u64 = 3_600_000_000_000;

fn mark(marked_at: u64) -> TaskMark {
    TaskMark { session: 7, marked_at, ..TaskMark::default() }
}

fn scope(expires_at: u64) -> Scope {
    Scope { session: 7, generation: 1, open: 0b110, expires_at, ..Scope::default() }
}

#[test]
fn a_heartbeat_is_fresh_for_less_than_five_seconds() {
    assert!(heartbeat_is_fresh(NOW, NOW));
    assert!(heartbeat_is_fresh(NOW - HEARTBEAT_MAX_AGE_NS + 1, NOW));
    assert!(!heartbeat_is_fresh(NOW - HEARTBEAT_MAX_AGE_NS, NOW));
    assert_eq!(HEARTBEAT_MAX_AGE_NS, 5_000_000_000);
}

#[test]
fn a_heartbeat_that_was_never_written_is_stale_even_right_after_boot() {
    assert!(!heartbeat_is_fresh(0, 0));
    assert!(!heartbeat_is_fresh(0, 1));
    assert!(heartbeat_is_fresh(1, 1), "the same instant, written");
}

#[test]
fn a_heartbeat_from_the_future_is_stale() {
    assert!(!heartbeat_is_fresh(NOW + 1, NOW));
    assert!(!heartbeat_is_fresh(u64::MAX, NOW));
}

#[test]
fn a_mark_counts_from_the_instant_its_process_started() {
    assert!(mark_is_current(&mark(NOW), NOW));
    assert!(mark_is_current(&mark(NOW + 1), NOW));
    assert!(!mark_is_current(&mark(NOW - 1), NOW));
}

#[test]
fn a_reused_pid_does_not_inherit_the_mark_of_the_dead() {
    let of_the_dead = mark(NOW);
    let (started_before, started_after) = (NOW - 1_000, NOW + 1_000);
    assert!(mark_is_current(&of_the_dead, started_before), "while its own process lived");
    assert!(!mark_is_current(&of_the_dead, started_after));
}

#[test]
fn a_start_that_could_not_be_read_makes_no_mark_current() {
    assert!(!mark_is_current(&mark(NOW), 0));
    assert!(mark_is_current(&mark(NOW), 1));
}

#[test]
fn a_mark_without_a_session_is_none() {
    assert!(!mark_is_current(&TaskMark { session: 0, ..mark(NOW) }, NOW));
}

#[test]
fn a_scope_is_open_until_the_instant_it_expires() {
    assert_eq!(open_in_scope(&scope(NOW + 1), 7, 1, NOW), 0b110);
    assert_eq!(open_in_scope(&scope(NOW), 7, 1, NOW), 0);
    assert_eq!(open_in_scope(&scope(NOW - 1), 7, 1, NOW), 0);
}

#[test]
fn a_scope_opens_nothing_for_another_session_or_under_another_generation() {
    assert_eq!(open_in_scope(&scope(NOW + 1), 8, 1, NOW), 0);
    assert_eq!(open_in_scope(&scope(NOW + 1), 7, 2, NOW), 0);
}

#[test]
fn an_empty_scope_entry_opens_nothing() {
    assert_eq!(open_in_scope(&Scope::default(), 0, 0, 0), 0);
}

#[test]
fn the_baseline_network_is_open_by_its_own_flag_alone() {
    let with = |flags| network_baseline(&Session { generation: 1, flags });
    assert_eq!(with(Session::BASELINE_NETWORK), BASELINE);
    assert_eq!(with(Session::BASELINE_NETWORK | Session::AUDIT), BASELINE);
    assert_eq!(with(0), 0);
    assert_eq!(with(Session::AUDIT), 0);
}

#[test]
fn a_refusal_names_its_cause() {
    assert_eq!(judge(0b10, 0b11, true), Verdict::Allowed);
    assert_eq!(judge(0, u64::MAX, true), Verdict::NoRule);
    assert_eq!(judge(0b10, 0b01, true), Verdict::DoorClosed);
    assert_eq!(judge(0b10, 0b01, false), Verdict::HeartbeatStale);
    assert_eq!(judge(0, 0b01, false), Verdict::NoRule, "no heartbeat would have opened it");
}

#[test]
fn the_baseline_is_not_leased() {
    assert_eq!(judge(BASELINE, BASELINE, false), Verdict::Allowed);
}

#[test]
fn a_socket_lives_as_long_as_an_action_that_was_in_flight_when_it_was_opened() {
    let mut scope = scope(NOW);
    scope.since = [u64::MAX; GRANTS];
    scope.since[1] = 100;
    assert!(is_in_flight(&scope, 0b10, 100) && is_in_flight(&scope, 0b10, 101));
    assert!(!is_in_flight(&scope, 0b10, 99), "opened before, in an action that is over");
    assert!(!is_in_flight(&scope, 0b100, 101), "open, but nobody said since when");
    assert!(!is_in_flight(&scope, 0b1000, 101), "not open");
    scope.open |= BASELINE;
    scope.since[0] = 0;
    assert!(!is_in_flight(&scope, BASELINE, 101), "the baseline is no action");
    scope.since[2] = 0;
    assert!(is_in_flight(&scope, 0b100, 1), "kept alive");
}

#[test]
fn each_verdict_has_a_number_and_a_name_of_its_own() {
    let known: Vec<Verdict> = (0..=64).filter_map(Verdict::from_number).collect();
    assert_eq!(known.len(), 18);
    let mut names: Vec<&str> = known.iter().map(|verdict| verdict.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), known.len());
}

proptest! {
    #[test]
    fn a_socket_sends_only_by_a_grant_that_let_it_go_is_open_and_did_not_begin_later(
        open: u64, bits: u64, opened_at in 0_u64..8, since in prop::collection::vec(0_u64..8, GRANTS),
    ) {
        let mut scope = Scope { open, ..scope(NOW) };
        scope.since.copy_from_slice(&since);
        let expected = (1..GRANTS).any(|bit| (open & bits) >> bit & 1 == 1 && since[bit] <= opened_at);
        prop_assert_eq!(is_in_flight(&scope, bits, opened_at), expected);
    }

    #[test]
    fn a_door_opens_only_for_a_bit_in_the_rule_that_is_open_now(rule: u64, open: u64, fresh: bool) {
        prop_assert_eq!(judge(rule, open, fresh) == Verdict::Allowed, (0..64).any(|bit| rule >> bit & open >> bit & 1 == 1));
    }

    #[test]
    fn opening_more_never_refuses_what_was_let_pass(rule: u64, open: u64, more: u64, fresh: bool) {
        let is_allowed = |open| judge(rule, open, fresh) == Verdict::Allowed;
        prop_assert!(!is_allowed(open) || is_allowed(open | more));
    }

    #[test]
    fn a_fresh_heartbeat_is_written_past_and_young(heartbeat: u64, now: u64) {
        let expected = heartbeat > 0 && (0..5_000_000_000).contains(&(i128::from(now) - i128::from(heartbeat)));
        prop_assert_eq!(heartbeat_is_fresh(heartbeat, now), expected);
    }

    #[test]
    fn the_same_holds_near_the_edge(now in HEARTBEAT_MAX_AGE_NS + 3.., age in HEARTBEAT_MAX_AGE_NS - 2..HEARTBEAT_MAX_AGE_NS + 3) {
        prop_assert_eq!(heartbeat_is_fresh(now - age, now), age < HEARTBEAT_MAX_AGE_NS);
    }

    #[test]
    fn once_stale_a_heartbeat_stays_stale(mut times: [u64; 3]) {
        times.sort_unstable();
        let [heartbeat, now, later] = times;
        prop_assert!(heartbeat_is_fresh(heartbeat, now) || !heartbeat_is_fresh(heartbeat, later));
    }

    #[test]
    fn no_mark_is_current_for_two_processes_in_turn(first in 1..=NOW, marked in 0..=NOW, dead in 1..=NOW) {
        let marked_at = first + marked;
        prop_assert!(mark_is_current(&mark(marked_at), first));
        prop_assert!(!mark_is_current(&mark(marked_at), marked_at + dead), "its pid, reused after the mark was made");
    }

    #[test]
    fn a_scope_opens_all_of_its_own_bits_or_none(open: u64, owner: u32, session: u32, made: u32, generation: u32, expires_at: u64, now: u64) {
        let scope = Scope { session: owner, generation: made, open, expires_at, ..Scope::default() };
        let counts = owner == session && made == generation && now < expires_at;
        prop_assert_eq!(open_in_scope(&scope, session, generation, now), if counts { open } else { 0 });
        prop_assert_eq!(open_in_scope(&scope, owner, made, now), if now < expires_at { open } else { 0 });
    }

    #[test]
    fn a_number_is_no_verdict_or_the_one_that_has_it(number: u32) {
        prop_assert!(Verdict::from_number(number).is_none_or(|verdict| verdict as u32 == number));
    }
}
