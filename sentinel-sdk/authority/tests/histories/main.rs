//! Random histories: what is in the ledger is what has happened, and what has happened is within the policy.

mod play;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use play::{Move, Play, SESSIONS, moves};
use proptest::prelude::*;
use sentinel_authority::{FileLedger, Fold, Ledger, Log};
use sentinel_engine::{Event, Fact, GrantSet, Now, State, effects};
use sentinel_ledger::MemoryLog;
use sentinel_proto::{Outcome, Payload, SessionId};
use uuid::Uuid;

/// A ledger's file in a folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("sentinel-authority-{}", Uuid::new_v4())))
    }

    fn file(&self) -> PathBuf {
        self.0.join("ledger.jsonl")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A log that keeps nothing, and fails when it is told to.
#[derive(Debug, Default)]
struct Forgetful {
    appends: usize,
    fails: BTreeSet<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("told to fail")]
struct Told;

impl Log for Forgetful {
    type Error = Told;

    fn append(&mut self, facts: &[Fact], _at: Now) -> Result<Vec<Uuid>, Told> {
        self.appends += 1;
        if self.fails.contains(&self.appends) {
            return Err(Told);
        }
        Ok(facts.iter().map(|_| Uuid::nil()).collect())
    }

    fn last_seq(&self) -> u64 {
        0
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_spent_never_exceeds_a_budget_but_by_recorded_overruns(moves in moves()) {
        let mut play = Play::new(Forgetful::default());
        for (step, milliseconds) in &moves {
            play.play(step, *milliseconds);
            play.check();
        }
    }

    #[test]
    fn an_append_that_fails_changes_nothing(moves in moves(), fails in prop::collection::btree_set(3..40_usize, 0..6)) {
        let mut play = Play::new(Forgetful { appends: 0, fails });
        for (step, milliseconds) in &moves {
            play.play(step, *milliseconds);
            play.check();
        }
    }

    #[test]
    fn doors_are_open_just_while_an_action_with_a_grant_is_in_flight(moves in moves()) {
        let mut play = Play::new(Forgetful::default());
        for (step, milliseconds) in &moves {
            let before = play.facts.len();
            play.play(step, *milliseconds);
            let state = play.authority.state();
            let policies = SESSIONS.iter().map(|id| (SessionId(*id), Arc::clone(&play.policy))).collect();
            for effect in effects(state, &policies, &play.facts[before..], play.now) {
                if let sentinel_engine::Effect::SetDoors { scope, open, until, .. } = effect {
                    let holding: Vec<_> = state.actions_of_scope(scope).filter(|(_, action)| !action.grants.is_empty() && !state.is_paused(action.session)).collect();
                    prop_assert_eq!(open == GrantSet::EMPTY, holding.is_empty());
                    prop_assert!(holding.iter().all(|(_, action)| action.deadline <= until));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_fold_of_the_ledger_is_the_live_state_however_it_is_rotated(
        moves in moves(), rotates in prop::collection::btree_set(0..60_usize, 0..6),
    ) {
        let folder = Folder::new();
        let start = Now { wall_micros: 0, elapsed: Duration::ZERO };
        let mut play = Play::new(FileLedger::open(&folder.file(), start).unwrap().ledger);
        for (number, (step, milliseconds)) in moves.iter().enumerate() {
            play.play(step, *milliseconds);
            if rotates.contains(&number) {
                prop_assert!(play.authority.rotate_if(true, play.now).unwrap());
            }
        }
        let text = std::fs::read(folder.file()).unwrap();
        let mut fold = Fold::new(play.now);
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            fold.line(line).unwrap();
            for key in ["id", "timestamp", "action", "cost_usd", "duration_ms", "outcome", "tags", "payload", "seq", "hash"] {
                let line: serde_json::Value = serde_json::from_slice(line).unwrap();
                prop_assert!(line.get(key).is_some(), "`{}` is missing in {}", key, line);
            }
        }
        let now = play.now;
        let live = play.authority.state().clone();
        drop(play);
        prop_assert_eq!(FileLedger::open(&folder.file(), now).unwrap().state, live);
    }
}

/// The state that an agent would begin with, were it started now.
fn folded(log: &MemoryLog, now: Now) -> State {
    let mut fold = Fold::new(now);
    for line in log.lines() {
        fold.line(line).unwrap();
    }
    fold.into_state()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn after_each_step_the_fold_of_the_lines_is_the_live_state_also_when_an_append_fails(
        moves in moves(),
        nth in 1..60_u64,
    ) {
        let mut play = Play::new(Ledger::beginning(MemoryLog::failing_at(nth)));
        for (step, milliseconds) in &moves {
            play.play(step, *milliseconds);
            let authority = &play.authority;
            prop_assert_eq!(&folded(authority.log().chain(), play.now), authority.state());
        }
        prop_assert_eq!(play.facts.len(), play.authority.log().chain().lines().count(), "a line for each fact");
    }

    #[test]
    fn on_a_full_disk_nothing_more_is_granted_and_nothing_is_half_written(moves in moves(), room in 0..20_000_usize) {
        let mut play = Play::new(Ledger::beginning(MemoryLog::with_room_for(room)));
        for (step, milliseconds) in &moves {
            play.play(step, *milliseconds);
            play.check();
            let authority = &play.authority;
            prop_assert_eq!(&folded(authority.log().chain(), play.now), authority.state());
        }
        let text: Vec<u8> = play.authority.log().chain().lines().flat_map(|line| [line, b"\n"].concat()).collect();
        prop_assert!(text.len() <= room);
        let head = sentinel_ledger::verify(text.as_slice(), None).unwrap().head;
        prop_assert_eq!(head.seq, play.facts.len() as u64);
    }
}

#[test]
fn the_sum_of_all_costs_is_what_was_spent() {
    let folder = Folder::new();
    let start = Now { wall_micros: 0, elapsed: Duration::ZERO };
    let mut play = Play::new(FileLedger::open(&folder.file(), start).unwrap().ledger);
    for amount in [50, 50, 50] {
        play.play(&Move::Begin { session: 0, action: 0, cents: amount }, 1);
    }
    for _ in 0..3 {
        let id = play.started.remove(0);
        play.step(Event::End {
            action_id: id,
            session: SessionId(1),
            outcome: Outcome::Success,
            cost: None,
            outputs: Payload::null(),
            annotations: None,
        });
    }
    let text = std::fs::read_to_string(folder.file()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let sum: f64 = lines.filter_map(|line| line["cost_usd"].as_f64()).sum();
    assert!((sum - 1.0).abs() < 1e-12, "two of 0.50 fit the run's budget of 1.20, the third doesn't: {sum}");
}
