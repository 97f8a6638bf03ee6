//! A program that runs again gets what was recorded of it. Each test has a process of its own, which decides for itself: a replay is one for
//! all threads.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use sentinel_sdk::replay::{Divergence, Replay};
use sentinel_sdk::{Error, guarded_action};
use serde::{Deserialize, Serialize};

static RAN: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    title: String,
    links: Vec<u32>,
}

#[guarded_action(replay = true, cost_usd = 0.5)]
fn fetch(host: &str) -> Result<Page, Box<dyn std::error::Error>> {
    RAN.fetch_add(1, Ordering::Relaxed);
    if host == "nowhere" {
        return Err("no such host".into());
    }
    Ok(Page { title: host.to_uppercase(), links: vec![1, 2] })
}

#[guarded_action(replay = true)]
async fn sum<T: Into<u64> + Copy + Serialize>(of: &[T]) -> Result<u64, Error> {
    RAN.fetch_add(1, Ordering::Relaxed);
    Ok(of.iter().map(|one| (*one).into()).sum())
}

#[guarded_action]
fn unreplayable() -> Result<(), Error> {
    RAN.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Why it is not begun, if an answer is there at once.
fn at_once(action: &str) -> Option<Error> {
    sentinel_sdk::action(action).begin_at_once().expect("a process that decides for itself answers").err()
}

fn home() -> PathBuf {
    std::env::var_os("AGENT_SENTINEL_HOME").expect("each test's process has one").into()
}

fn replay() -> Replay {
    Replay::read(&home().join("ledger.jsonl"), None).unwrap()
}

/// Whether this is the test's own process; where not, it is run, and has to pass.
fn is_in_its_own_process(test: &str) -> bool {
    if std::env::var_os("AGENT_SENTINEL_HOME").is_some() {
        return true;
    }
    let home = std::env::temp_dir().join(format!("sentinel-replay-{}-{test}", std::process::id()));
    let policy = home.join("policy.yaml");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(&policy, "denied_actions: [unreplayable]\nbudgets: {session: 1.0}\n").unwrap();
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env("AGENT_SENTINEL_MODE", "embedded")
        .env("AGENT_SENTINEL_HOME", &home)
        .env("AGENT_SENTINEL_POLICY", policy)
        .env_remove("AGENT_SENTINEL_SOCKET")
        .output()
        .unwrap();
    std::fs::remove_dir_all(home).unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    false
}

#[test]
fn the_body_does_not_run_and_what_it_returned_then_is_returned_for_nothing() {
    if !is_in_its_own_process("the_body_does_not_run_and_what_it_returned_then_is_returned_for_nothing") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = (fetch("a").unwrap(), runtime.block_on(sum(&[1_u32, 2])).unwrap());
    let spent = sentinel_sdk::totals_blocking().unwrap();
    let replaying = replay().start();
    assert_eq!((fetch("a").unwrap(), runtime.block_on(sum(&[1_u32, 2])).unwrap()), first);
    assert_eq!(RAN.load(Ordering::Relaxed), 2);
    assert_eq!(replaying.progress(), (2, 2));
    assert_eq!(sentinel_sdk::totals_blocking().unwrap(), spent);
    drop(replaying);
    fetch("a").unwrap();
    assert_eq!(RAN.load(Ordering::Relaxed), 3, "and after it bodies run again");
    let ledger = std::fs::read_to_string(home().join("ledger.jsonl")).unwrap();
    assert_eq!(ledger.matches("\"outcome\":\"replayed\"").count(), 2);
}

#[test]
fn an_error_is_returned_again_as_one() {
    if !is_in_its_own_process("an_error_is_returned_again_as_one") {
        return;
    }
    assert_eq!(fetch("nowhere").unwrap_err().to_string(), "no such host");
    let _replaying = replay().start();
    let error = fetch("nowhere").unwrap_err();
    assert_eq!(error.to_string(), "no such host");
    assert_eq!(error.downcast_ref::<Error>().unwrap().recorded_error(), Some("no such host"));
    assert_eq!(RAN.load(Ordering::Relaxed), 1);
}

#[test]
fn a_denied_action_is_denied_again_and_one_that_can_not_be_answered_does_not_run() {
    if !is_in_its_own_process("a_denied_action_is_denied_again_and_one_that_can_not_be_answered_does_not_run")
    {
        return;
    }
    fetch("a").unwrap();
    fetch("b").unwrap();
    let spent = fetch("c").unwrap_err();
    assert!(unreplayable().unwrap_err().is_denied());
    let _replaying = replay().start();
    fetch("a").unwrap();
    fetch("b").unwrap();
    let again = fetch("c").unwrap_err();
    for error in [spent, again] {
        assert_eq!(error.downcast_ref::<Error>().unwrap().reason_code(), Some("BUDGET_EXCEEDED"));
    }
    let error = unreplayable().unwrap_err();
    assert!(error.is_divergence() && error.to_string().contains("`replay = true`"), "{error}");
    for begun in [sentinel_sdk::action("by_hand").begin_blocking().err(), at_once("by_hand")] {
        assert!(begun.is_some_and(|error| error.is_divergence()), "nor does one that is begun by hand");
    }
    assert_eq!(RAN.load(Ordering::Relaxed), 2);
}

#[test]
fn another_call_diverges_with_a_diff_and_a_lenient_replay_notes_it() {
    if !is_in_its_own_process("another_call_diverges_with_a_diff_and_a_lenient_replay_notes_it") {
        return;
    }
    fetch("a").unwrap();
    let strict = replay().start();
    let error = fetch("b").unwrap_err();
    assert!(
        error.to_string().contains("- inputs.kwargs.host: \"a\"\n+ inputs.kwargs.host: \"b\""),
        "{error}"
    );
    assert!(error.downcast_ref::<Error>().unwrap().is_divergence());
    drop(strict);
    let lenient = replay().lenient().start();
    assert_eq!(fetch("b").unwrap().title, "A");
    assert!(matches!(lenient.divergences()[..], [Divergence::InputMismatch { index: 0, .. }]));
    assert!(fetch("b").is_err(), "one call too many is one in either case");
}
