//! The examples that need no agent do what they say.

use std::process::Command;

use sentinel_tests::{Finished, program};

/// What an example prints, line by line, in an environment that names no agent.
fn lines_of(example: &str) -> Vec<String> {
    let mut command = Command::new(program(example));
    for variable in ["SOCKET", "MODE", "POLICY", "HOME", "SESSION"] {
        command.env_remove(format!("AGENT_SENTINEL_{variable}"));
    }
    let finished = Finished::of(command);
    assert_eq!(finished.status, Some(0), "{}{}", finished.stdout, finished.stderr);
    finished.lines().iter().map(ToString::to_string).collect()
}

#[test]
fn embedded_decides_for_itself_and_shows_a_denial_and_the_totals() {
    let lines = lines_of("embedded");
    assert_eq!(lines[0], "summarise: Doors are shut.");
    let beginnings = [
        "summarise something longer: action `summarise` denied: session budget exceeded: ",
        "delete_database: action `delete_database` denied: it stands in `denied_actions`",
    ];
    for (line, beginning) in lines[1..].iter().zip(beginnings) {
        assert!(line.starts_with(beginning), "{line}");
    }
    assert_eq!(lines[3..], ["spent: 0.03 of 0.05 dollars", "the ledger: 5 lines"]);
}

#[test]
fn manual_guard_reserves_the_most_and_settles_with_what_it_really_cost() {
    let lines = lines_of("manual_guard");
    let spent: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("spent so far: ")).collect();
    assert_eq!(spent, ["0.15 dollars", "0.3 dollars", "0.9 dollars", "0.9 dollars"]);
    assert_eq!(lines[2], "\"Who opens doors?\": 3 words", "it fits beside what the first one really cost");
    assert_eq!(lines[4], "\"\": the model has no answer to nothing");
    assert!(lines[6].starts_with("\"Who pays?\": action `ask_small` denied: session budget exceeded: "));
}
