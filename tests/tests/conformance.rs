//! Every case of `tests/conformance`, played through every way to reach the authority: the same answers, and the same lines in the ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use sentinel_tests::{Finished, Host, INTERPRETER, Python, program};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    statements: Vec<u32>,
    policy: String,
    calls: Vec<Value>,
    ledger: Option<Vec<String>>,
    #[serde(default)]
    contains: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
}

/// What came of a case.
struct Told {
    /// A line of JSON for each call.
    answers: Vec<Value>,
    ledger: Vec<Value>,
}

fn cases() -> Vec<Case> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        toml::from_str::<File>(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).case
    };
    files.iter().flat_map(read).collect()
}

/// Keys of a call that say what is to be made, not what comes of it.
const MADE: [&str; 10] = [
    "action",
    "cost_usd",
    "tags",
    "risk_level",
    "inputs",
    "returns",
    "raises",
    "actual_cost_usd",
    "threads",
    "approval_milliseconds",
];

/// What is to come of a call.
fn expected(call: &Value) -> Value {
    let mut told = call.as_object().unwrap().clone();
    for asked in ["totals", "reset_run"] {
        if let Some(totals) = told.remove(asked) {
            return totals;
        }
    }
    if told.contains_key("wait") {
        return serde_json::json!({});
    }
    told.retain(|key, _| !MADE.contains(&key.as_str()));
    if !told.contains_key("refused") {
        told.entry("ran").or_insert(1.into());
    }
    Value::Object(told)
}

/// Amounts as numbers, whatever they are written as.
fn normal(value: &Value) -> Value {
    match value {
        Value::Number(number) => serde_json::json!(number.as_f64()),
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), normal(value))).collect(),
        other => other.clone(),
    }
}

/// `action outcome cost`, and why where it was blocked.
fn in_short(line: &Value) -> String {
    let word = |key: &str| line[key].as_str().unwrap_or_default();
    let reason = line["reason"]["code"].as_str().map(|code| format!(" {code}")).unwrap_or_default();
    format!("{} {} {}{reason}", word("action"), word("outcome"), line["cost_usd"])
        .replace(".0 ", " ")
        .trim_end_matches(".0")
        .to_owned()
}

fn check(case: &Case, told: &Told) -> Result<(), String> {
    let expected: Vec<Value> = case.calls.iter().map(|call| normal(&expected(call))).collect();
    let answers: Vec<Value> = told.answers.iter().map(normal).collect();
    if answers != expected {
        return Err(format!("answers\n  {answers:?}\ninstead of\n  {expected:?}"));
    }
    let of_actions: Vec<&Value> = told.ledger.iter().filter(|line| line["kind"] == "action").collect();
    let lines: Vec<String> = of_actions.iter().map(|line| in_short(line)).collect();
    if let Some(expected) = &case.ledger
        && *expected != lines
    {
        return Err(format!("the ledger says\n  {lines:#?}\ninstead of\n  {expected:#?}"));
    }
    for line in &told.ledger {
        for key in ["id", "timestamp", "action", "cost_usd", "duration_ms", "outcome", "tags", "payload"] {
            if line.get(key).is_none() {
                return Err(format!("`{key}` is missing in {line}"));
            }
        }
        let micros = line["duration_ms"].as_f64().unwrap_or(f64::NAN) * 1_000.0;
        if (micros - micros.round()).abs() > 1e-6 {
            return Err(format!("`duration_ms` has more than 3 decimals in {line}"));
        }
    }
    let texts: Vec<String> = of_actions.iter().map(ToString::to_string).collect();
    for wanted in &case.contains {
        if !texts.iter().any(|text| text.contains(wanted)) {
            return Err(format!("no line has `{wanted}` in\n{}", texts.join("\n")));
        }
    }
    let all: String = told.ledger.iter().map(ToString::to_string).collect();
    match case.lacks.iter().find(|secret| all.contains(*secret)) {
        Some(secret) => Err(format!("`{secret}` stands in the ledger")),
        None => Ok(()),
    }
}

/// Plays every case, and tells all that fail.
fn play(way: &str, tell: impl Fn(&Case) -> Told) {
    let mut failed = Vec::new();
    let cases = cases();
    for case in &cases {
        if let Err(cause) = check(case, &tell(case)) {
            failed.push(format!("{}: {cause}", case.name));
        }
    }
    assert!(
        failed.is_empty(),
        "{way}: {} of {} cases fail\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

fn calls(case: &Case) -> String {
    serde_json::to_string(&case.calls).unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}"))).collect()
}

fn on_a_host(host: &Host, case: &Case, command: Command) -> Told {
    let finished = Finished::of(command);
    assert_eq!(finished.status, Some(0), "{}: {}{}", case.name, finished.stdout, finished.stderr);
    Told { answers: json_lines(&finished.stdout), ledger: host.ledger() }
}

#[test]
fn a_rust_application_of_the_host_agent_conforms() {
    let conform = program("conform").display().to_string();
    play("Rust, host", |case| {
        let host = Host::with_policy(case.policy.clone());
        let command = host.run_command(&[], &[&conform, &calls(case)]);
        on_a_host(&host, case, command)
    });
}

/// Lines without what only a host agent can say of them: the difference is one word.
fn embedded(case: &Case, mut command: Command) -> Told {
    let folder = Folder::new();
    std::fs::write(folder.0.join("policy.yaml"), &case.policy).unwrap();
    command
        .current_dir(&folder.0)
        .env_remove("AGENT_SENTINEL_HOME")
        .env("AGENT_SENTINEL_MODE", "embedded")
        .env("AGENT_SENTINEL_POLICY", folder.0.join("policy.yaml"));
    let finished = Finished::of(command);
    assert_eq!(finished.status, Some(0), "{}: {}{}", case.name, finished.stdout, finished.stderr);
    let ledger = std::fs::read_to_string(folder.0.join(".agent-sentinel/ledger.jsonl")).unwrap();
    let ledger = json_lines(&ledger);
    assert!(ledger.iter().all(|line| line["advisory"] == true), "{ledger:#?}");
    Told { answers: json_lines(&finished.stdout), ledger }
}

/// A folder of a case's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sentinel-conform-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_rust_application_that_decides_for_itself_conforms() {
    play("Rust, embedded", |case| {
        let mut command = Command::new(program("conform"));
        command.arg(calls(case));
        embedded(case, command)
    });
}

#[test]
fn a_python_application_that_decides_for_itself_conforms() {
    let site = Python::site();
    let conform = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/conform.py");
    play("Python, embedded", |case| {
        let mut command = Command::new(INTERPRETER);
        command.arg(&conform).arg(calls(case)).env("PYTHONPATH", &site).env("CONFORM_POLICY", "policy.yaml");
        embedded(case, command)
    });
}

#[test]
fn a_python_application_of_the_host_agent_conforms() {
    let conform = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/conform.py");
    play("Python, host", |case| {
        let host = Host::with_policy(case.policy.clone());
        let python = Python::on(&host);
        python.copy(&conform);
        let script = python.folder.join("conform.py").display().to_string();
        on_a_host(&host, case, python.command(&[&script, &calls(case)]))
    });
}

/// Statements that need more than calls: a kill, another process, an operator. Where each is tested.
const ELSEWHERE: &[(u32, &str, &str)] = &[
    (20, "budgets", "eight_processes_with_eight_threads_run_exactly_the_ten_calls_that_the_budget_pays"),
    (20, "budgets", "a_named_session_goes_on_with_its_totals"),
    (22, "governance", "an_action_that_an_operator_denies_does_not_run"),
    (31, "input", "all_problems_of_a_policy_are_told_at_once_with_line_and_column"),
    (34, "input", "an_empty_a_missing_and_an_unreadable_policy_are_errors"),
    (34, "input", "an_agent_with_an_invalid_policy_starts_nothing"),
    (46, "ledger", "verify_passes_and_fails_after_one_byte_has_changed"),
    (46, "ledger", "a_ledger_that_was_cut_off_keeps_the_agent_from_starting"),
    (47, "budgets", "an_application_that_crashes_inside_an_action_is_settled_and_its_door_shut"),
    (48, "survival", "whenever_the_agent_is_killed_nothing_answered_is_lost_and_no_limit_exceeded"),
    (58, "governance", "a_restarted_application_finds_the_same_wish"),
    (60, "ledger", "every_block_can_be_read_as_an_intervention_with_agentsentinels_keys"),
];

/// The behaviours of AgentSentinel's SDK, by number.
const STATEMENTS: std::ops::RangeInclusive<u32> = 1..=70;

/// The statements that tests of the Python package name: `def test_statement_NUMBER_…`.
fn shown_in_python() -> Vec<(u32, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sentinel-sdk/python/tests");
    let mut shown = Vec::new();
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "py") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for name in text.lines().filter_map(|line| line.trim_start().strip_prefix("def test_statement_")) {
            let number = name.split('_').next().and_then(|number| number.parse().ok());
            shown.push((number.unwrap_or_else(|| panic!("`{name}` has no number")), name.to_owned()));
        }
    }
    shown
}

#[test]
fn every_statement_is_shown_by_a_case_or_a_test() {
    let mut shown: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for case in cases() {
        for statement in &case.statements {
            shown.entry(*statement).or_default().push(case.name.clone());
        }
    }
    for (statement, file, test) in ELSEWHERE {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{file}.rs"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&format!("#[test]\nfn {test}()")), "`{file}` has no test `{test}`");
        shown.entry(*statement).or_default().push((*test).to_owned());
    }
    for (statement, test) in shown_in_python() {
        shown.entry(statement).or_default().push(test);
    }
    let missing: Vec<u32> = STATEMENTS.filter(|statement| !shown.contains_key(statement)).collect();
    assert!(missing.is_empty(), "nothing shows the statements {missing:?}");
}
