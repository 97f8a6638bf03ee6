//! Random histories: what is in the ledger is what has happened, and what has happened is within the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sentinel_authority::{Authority, FileLedger, Fold, Log};
use sentinel_engine::{
    ActionRequest, ActionRule, Allowlist, Attempt, Event, Fact, Grant, GrantSet, Limit, Now, Policy,
    RateLimit, ScopeId, SessionEnding, effects,
};
use sentinel_proto::{ActionId, ActionName, Money, Outcome, Payload, SessionId, SessionName};
use uuid::Uuid;

const ACTIONS: [&str; 5] = ["cheap", "dear", "limited", "denied", "unlisted"];
const SESSIONS: [u32; 2] = [1, 2];

fn name(index: usize) -> ActionName {
    ActionName::new(ACTIONS[index]).unwrap()
}

fn cents(cents: u64) -> Money {
    Money::from_nanos(cents * 10_000_000).unwrap()
}

fn policy() -> Policy {
    let limit = |amount| Limit { amount: cents(amount), line: 1 };
    let mut policy = Policy::empty();
    policy.budgets.session = Some(limit(300));
    policy.budgets.run = Some(limit(120));
    policy.budgets.actions.insert(name(1), limit(90));
    policy.denied.insert(name(3), 2);
    policy.allowed = Some(Allowlist { names: (0..4).map(|index| (name(index), 3)).collect(), line: 3 });
    policy.rates.insert(name(2), RateLimit { max_count: 3, window: Duration::from_secs(10), line: 4 });
    let dear = ActionRule { cost_floor: cents(10), grant: Some(1), max_seconds: 20, ..ActionRule::default() };
    policy.actions.insert(name(1), dear);
    policy.grants.push(Grant::default());
    policy
}

/// A step of a history, before it has ids.
#[derive(Clone, Debug)]
enum Move {
    Begin { session: usize, action: usize, cents: u64 },
    End { which: prop::sample::Index, outcome: usize, cents: Option<u64> },
    Abort { which: prop::sample::Index },
    Abandon { which: prop::sample::Index },
    Reset { session: usize },
    Restart { session: usize },
    Tick,
    Denial { session: usize },
    AgentRestart,
    Unknown,
}

fn moves() -> impl Strategy<Value = Vec<(Move, u64)>> {
    let one = prop_oneof![
        12 => (0..2_usize, 0..5_usize, 0..60_u64).prop_map(|(session, action, cents)| Move::Begin { session, action, cents }),
        8 => (any::<prop::sample::Index>(), 0..4_usize, prop::option::of(0..90_u64))
            .prop_map(|(which, outcome, cents)| Move::End { which, outcome, cents }),
        1 => any::<prop::sample::Index>().prop_map(|which| Move::Abort { which }),
        1 => any::<prop::sample::Index>().prop_map(|which| Move::Abandon { which }),
        1 => (0..2_usize).prop_map(|session| Move::Reset { session }),
        1 => (0..2_usize).prop_map(|session| Move::Restart { session }),
        2 => Just(Move::Tick),
        1 => (0..2_usize).prop_map(|session| Move::Denial { session }),
        1 => Just(Move::AgentRestart),
        1 => Just(Move::Unknown),
    ];
    prop::collection::vec((one, 0..5_000_u64), 1..60)
}

/// Plays a history, and looks at the authority after each step.
struct Play<L: Log> {
    authority: Authority<L>,
    policy: Arc<Policy>,
    now: Now,
    started: Vec<ActionId>,
    facts: Vec<Fact>,
    overruns: BTreeMap<SessionId, Money>,
}

impl<L: Log> Play<L> {
    fn new(log: L) -> Self {
        let now = Now { wall_micros: 1_700_000_000_000_000, elapsed: Duration::from_secs(1_000) };
        let mut play = Self {
            authority: Authority::with(log),
            policy: Arc::new(policy()),
            now,
            started: Vec::new(),
            facts: Vec::new(),
            overruns: BTreeMap::new(),
        };
        for session in SESSIONS {
            play.start(session);
        }
        play
    }

    fn start(&mut self, session: u32) {
        self.authority.bind(SessionId(session), Arc::clone(&self.policy));
        // The first has a name, and so goes on; the second is new each time.
        let name = (session == 1).then(|| SessionName::new("daily").unwrap());
        self.step(Event::SessionStart {
            session: SessionId(session),
            name,
            policy: "test".to_owned(),
            policy_sha256: "00".to_owned(),
            command: vec!["agent".to_owned(), "a \"quoted\"\n word".to_owned()],
            uid: 1000,
            tier: "kill".to_owned(),
        });
    }

    fn play(&mut self, step: &Move, milliseconds: u64) {
        self.now.elapsed += Duration::from_millis(milliseconds);
        self.now.wall_micros += milliseconds * 1_000;
        let pick = |which: &prop::sample::Index, started: &[ActionId]| {
            if started.is_empty() {
                ActionId(Uuid::from_u128(7))
            } else {
                started[which.index(started.len())]
            }
        };
        match step {
            Move::Begin { session, action, cents: amount } => {
                let action_id = ActionId(Uuid::new_v4());
                self.started.push(action_id);
                let session = SessionId(SESSIONS[*session]);
                self.step(Event::Begin(Box::new(ActionRequest {
                    action_id,
                    session,
                    scope: ScopeId(u64::from(session.0)),
                    action: name(*action),
                    cost: cents(*amount),
                    tags: Vec::new(),
                    inputs: Payload::of(&["in", "ä\u{7f}\"\\"]).unwrap(),
                    pid: 42,
                })));
            }
            Move::End { which, outcome, cents: amount } => {
                let action_id = pick(which, &self.started);
                let outcome =
                    [Outcome::Success, Outcome::Error, Outcome::Panicked, Outcome::Cancelled][*outcome];
                let session = self.authority.state().session_of(action_id).unwrap_or(SessionId(1));
                let cost = amount.map(cents);
                self.step(Event::End { action_id, session, outcome, cost, outputs: Payload::null() });
            }
            Move::Abort { which } => {
                let action_id = pick(which, &self.started);
                self.step(Event::Abort { action_id, cause: "no room".to_owned() });
            }
            Move::Abandon { which } => {
                let action_ids = vec![pick(which, &self.started)];
                self.step(Event::Abandon { action_ids });
            }
            Move::Reset { session } => self.step(Event::RunReset { session: SessionId(SESSIONS[*session]) }),
            Move::Restart { session } => {
                let session = SESSIONS[*session];
                self.step(Event::SessionEnd { session: SessionId(session), ending: SessionEnding::Exited });
                self.start(session);
            }
            Move::Tick => self.step(Event::Tick),
            Move::Denial { session } => self.step(Event::KernelDenied {
                session: SessionId(SESSIONS[*session]),
                attempt: Box::new(Attempt {
                    operation: "connect".to_owned(),
                    target: "192.0.2.1:443/tcp".to_owned(),
                    verdict: "no_rule".to_owned(),
                    fate: "refused".to_owned(),
                    process: "curl".to_owned(),
                    pid: 7,
                    would_allow: None,
                }),
                count: 3,
            }),
            Move::AgentRestart => {
                self.step(Event::AgentStarted { version: "0.1.0".to_owned(), tier: "kill".to_owned() });
                for session in SESSIONS {
                    self.start(session);
                }
            }
            Move::Unknown => {
                let before = self.authority.state().clone();
                self.step(Event::End {
                    action_id: ActionId(Uuid::from_u128(99)),
                    session: SessionId(77),
                    outcome: Outcome::Success,
                    cost: None,
                    outputs: Payload::null(),
                });
                assert_eq!(*self.authority.state(), before, "an unknown id changes nothing");
            }
        }
    }

    fn step(&mut self, event: Event) {
        let before = self.authority.state().clone();
        let Ok(step) = self.authority.step(event, self.now) else {
            assert_eq!(*self.authority.state(), before, "an append that fails changes nothing");
            return;
        };
        for fact in &step.facts {
            if let Fact::ActionEnded { session, overrun, .. } = fact {
                let sum = self.overruns.entry(*session).or_default();
                *sum = sum.saturating_add(*overrun);
            }
            if let Fact::SessionStarted { session: session @ SessionId(2), .. } = fact {
                self.overruns.remove(session);
            }
        }
        self.facts.extend(step.facts);
    }

    fn check(&self) {
        for session in SESSIONS.map(SessionId) {
            let Some(totals) = self.authority.state().totals(session) else { continue };
            let overruns = self.overruns.get(&session).copied().unwrap_or_default();
            assert!(totals.session <= cents(300).saturating_add(overruns), "{totals:?}, overruns {overruns}");
            assert!(totals.run <= cents(120).saturating_add(overruns), "{totals:?}, overruns {overruns}");
        }
    }
}

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
            for effect in effects(state, &policies, &play.facts[before..]) {
                if let sentinel_engine::Effect::SetDoors { scope, open, until, .. } = effect {
                    let holding: Vec<_> = state.actions_of_scope(scope).filter(|(_, action)| !action.grants.is_empty()).collect();
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
    fn the_fold_of_the_ledger_is_the_live_state(moves in moves()) {
        let folder = Folder::new();
        let start = Now { wall_micros: 0, elapsed: Duration::ZERO };
        let mut play = Play::new(FileLedger::open(&folder.file(), start).unwrap().ledger);
        for (step, milliseconds) in &moves {
            play.play(step, *milliseconds);
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
        });
    }
    let text = std::fs::read_to_string(folder.file()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let sum: f64 = lines.filter_map(|line| line["cost_usd"].as_f64()).sum();
    assert!((sum - 1.0).abs() < 1e-12, "two of 0.50 fit the run's budget of 1.20, the third doesn't: {sum}");
}
