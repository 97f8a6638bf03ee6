//! What a call gets that is made again.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use sentinel_engine::inputs_digest;
use sentinel_proto::{ActionId, Payload};
use serde_json::json;
use uuid::Uuid;

use super::{Divergence, Recording, ReplayError, TakeOutcome};

fn payload(text: &str) -> Payload {
    Payload::of(&json!({"args": [text], "kwargs": {}})).unwrap()
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn begun(number: u128, action: &str, input: &str) -> String {
    let payload = json!({"inputs": {"args": [input], "kwargs": {}}, "outputs": null});
    json!({"id": id(number), "action": action, "outcome": "started", "payload": payload, "kind": "action", "run_id": "r1"})
        .to_string()
}

fn ended(number: u128, action: &str, outcome: &str, output: &str) -> String {
    let payload = json!({"inputs": null, "outputs": output});
    json!({"id": id(number), "action": action, "outcome": outcome, "payload": payload, "kind": "action"})
        .to_string()
}

fn read(lines: &[String]) -> Recording {
    Recording::of_lines(lines, None).unwrap()
}

fn value(recording: &mut Recording, action: &str, input: &str) -> Result<String, Divergence> {
    recording.replay(action, &payload(input), true).map(|take| take.outputs.as_json().to_owned())
}

fn one_after_the_other() -> Vec<String> {
    vec![
        begun(1, "search", "a"),
        ended(1, "search", "success", "A"),
        begun(2, "write", "b"),
        ended(2, "write", "success", "B"),
    ]
}

#[test]
fn each_call_gets_what_was_recorded_of_it() {
    let mut recording = read(&one_after_the_other());
    assert_eq!(value(&mut recording, "search", "a").unwrap(), "\"A\"");
    assert_eq!(value(&mut recording, "write", "b").unwrap(), "\"B\"");
    assert_eq!(recording.progress(), (2, 2));
}

#[test]
fn another_order_diverges_and_uses_nothing_up() {
    let mut recording = read(&one_after_the_other());
    let divergence = value(&mut recording, "write", "b").unwrap_err();
    assert!(
        matches!(&divergence, Divergence::ActionMismatch { index: 0, expected, actual } if expected == "search" && actual == "write")
    );
    assert_eq!(value(&mut recording, "search", "a").unwrap(), "\"A\"");
}

#[test]
fn other_inputs_diverge_and_are_told_as_a_diff() {
    let mut recording = read(&one_after_the_other());
    let divergence = value(&mut recording, "search", "x").unwrap_err();
    let text = divergence.to_string();
    assert!(text.contains("- inputs.args[0]: \"a\"\n+ inputs.args[0]: \"x\""), "{text}");
}

#[test]
fn without_strictness_what_comes_next_is_returned_and_the_difference_noted() {
    let mut recording = read(&one_after_the_other());
    let take = recording.replay("search", &payload("x"), false).unwrap();
    assert_eq!(take.outputs.as_json(), "\"A\"");
    assert!(matches!(recording.divergences(), [Divergence::InputMismatch { index: 0, .. }]));
}

#[test]
fn one_call_too_many_is_a_divergence() {
    let mut recording = read(&one_after_the_other());
    value(&mut recording, "search", "a").unwrap();
    value(&mut recording, "write", "b").unwrap();
    for strict in [true, false] {
        let result = recording.replay("search", &payload("a"), strict);
        assert!(matches!(result, Err(Divergence::Exhausted { index: 2, .. })));
    }
}

#[test]
fn calls_that_overlapped_may_come_in_any_order() {
    let lines = [
        begun(1, "fetch", "a"),
        begun(2, "fetch", "b"),
        ended(2, "fetch", "success", "B"),
        ended(1, "fetch", "success", "A"),
        begun(3, "fetch", "c"),
        ended(3, "fetch", "success", "C"),
    ];
    let mut recording = read(&lines);
    assert!(value(&mut recording, "fetch", "c").is_err(), "it began after both");
    assert_eq!(value(&mut recording, "fetch", "b").unwrap(), "\"B\"");
    assert_eq!(value(&mut recording, "fetch", "a").unwrap(), "\"A\"");
    assert_eq!(value(&mut recording, "fetch", "c").unwrap(), "\"C\"");
}

#[test]
fn what_a_replayed_body_had_begun_may_be_left_out() {
    let lines = [
        begun(1, "outer", "a"),
        begun(2, "inner", "b"),
        ended(2, "inner", "success", "B"),
        ended(1, "outer", "success", "A"),
        begun(3, "next", "c"),
        ended(3, "next", "success", "C"),
    ];
    let mut recording = read(&lines);
    value(&mut recording, "outer", "a").unwrap();
    assert_eq!(value(&mut recording, "next", "c").unwrap(), "\"C\"");
}

#[test]
fn an_error_is_replayed_as_one_and_a_block_never_as_a_value() {
    let mut blocked: serde_json::Value = serde_json::from_str(&begun(2, "drop", "b")).unwrap();
    blocked["outcome"] = json!("blocked");
    blocked["reason"] = json!({"code": "DENIED_ACTION"});
    blocked["payload"]["outputs"] = json!("it stands in `denied_actions`");
    let lines =
        [begun(1, "search", "a"), ended(1, "search", "error", "ValueError: nope"), blocked.to_string()];
    let mut recording = read(&lines);
    let take = recording.replay("search", &payload("a"), true).unwrap();
    assert!(matches!(take.outcome, TakeOutcome::Error));
    let take = recording.replay("drop", &payload("b"), true).unwrap();
    assert!(matches!(&take.outcome, TakeOutcome::Blocked(Some(reason)) if reason.code() == "DENIED_ACTION"));
}

#[test]
fn what_was_given_up_has_no_value() {
    let mut recording = read(&[begun(1, "search", "a"), ended(1, "search", "cancelled", "")]);
    let divergence = recording.replay("search", &payload("a"), true).unwrap_err();
    assert!(matches!(divergence, Divergence::NoValue { ref outcome, .. } if outcome == "cancelled"));
}

#[test]
fn what_was_interrupted_has_the_value_that_came_late() {
    let mut corrected: serde_json::Value =
        serde_json::from_str(&ended(1, "search", "corrected", "A")).unwrap();
    corrected["ended"] = json!("success");
    let interrupted = [begun(1, "search", "a"), ended(1, "search", "interrupted", "")];
    assert!(value(&mut read(&interrupted), "search", "a").is_err());
    let lines = [interrupted.as_slice(), &[corrected.to_string()]].concat();
    assert_eq!(value(&mut read(&lines), "search", "a").unwrap(), "\"A\"");
}

#[test]
fn inputs_that_had_secrets_are_told_apart_by_their_digest() {
    let inputs = payload("password=hunter2");
    let mut line: serde_json::Value = serde_json::from_str(&begun(1, "log_in", "[redacted:key]")).unwrap();
    line["inputs_sha256"] = json!(inputs_digest(ActionId(id(1)), &inputs));
    let lines = [line.to_string(), ended(1, "log_in", "success", "in")];
    assert!(read(&lines).replay("log_in", &inputs, true).is_ok());
    let divergence = read(&lines).replay("log_in", &payload("password=hunter3"), true).unwrap_err();
    assert!(!divergence.to_string().is_empty());
    let shown = read(&lines).replay("log_in", &payload("[redacted:key]"), true).unwrap_err();
    assert!(shown.to_string().contains("redacted"), "{shown}");
}

#[test]
fn a_run_is_replayed_alone_and_an_unknown_one_is_an_error() {
    let mut lines = one_after_the_other();
    let other = begun(3, "other", "c").replace("\"r1\"", "\"r2\"");
    lines.extend([other, ended(3, "other", "success", "C")]);
    let of = |run| Recording::of_lines(&lines, Some(run));
    assert_eq!(of("r2").unwrap().progress(), (0, 1));
    assert!(matches!(of("r3"), Err(ReplayError::Empty { run: Some(run) }) if run == "r3"));
}

#[test]
fn lines_of_agentsentinel_can_be_replayed_and_replays_are_left_out() {
    let line = |outcome: &str| {
        json!({"id": id(1), "action": "search", "outcome": outcome, "payload": {"inputs": {"args": ["a"], "kwargs": {}}, "outputs": 7}})
            .to_string()
    };
    let mut recording = read(&[line("replayed"), line("success")]);
    assert_eq!(recording.progress(), (0, 1));
    assert_eq!(value(&mut recording, "search", "a").unwrap(), "7");
}

#[test]
fn a_line_that_is_none_is_named() {
    let lines = ["{}".to_owned()];
    let read = Recording::of_lines(&lines, None);
    assert!(matches!(read, Err(ReplayError::Line { line: 1, .. })));
    let cut = [ended(1, "search", "success", "A")];
    let read = Recording::of_lines(&cut, None);
    assert!(matches!(read, Err(ReplayError::NoBeginning { line: 1, .. })));
}
