//! `sentinel doctor`: what this host enforces, tried out.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use sentinel_tests::{Finished, Host, program};

fn rows(examination: &serde_json::Value) -> Vec<(String, String, bool)> {
    let rows = examination["rows"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (text(&row["what"]), text(&row["hold"]), row["proof"] == "tried")).collect()
}

#[test]
fn a_running_agent_tries_every_row_and_names_what_it_does_not_cover() {
    let host = Host::with_policy("strict_mode: true\n");
    let finished = host.operate(&["doctor", "--json"]);
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
    let examination: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    let rows = rows(&examination);
    for what in [
        "a TCP connect over IPv4",
        "a UDP connect",
        "a datagram to an address",
        "a raw socket",
        "a packet with IP options",
    ] {
        assert!(
            rows.contains(&(what.to_owned(), "denied_before_execution".to_owned(), true)),
            "{what}: {rows:?}"
        );
    }
    let exec = rows.iter().find(|(what, _, _)| what == "an exec of a file").unwrap();
    let expected = if examination["tier"] == "lsm" {
        "denied_before_execution"
    } else {
        "killed_before_first_instruction"
    };
    assert_eq!((exec.1.as_str(), exec.2), (expected, true));
    assert!(rows.iter().any(|(_, hold, tried)| hold == "not_covered" && !tried), "{rows:?}");
    assert!(examination["programs"].as_array().unwrap().iter().all(|program| program["missed"] == 0));

    let table = host.operate(&["doctor"]);
    assert!(table.stdout.contains("+ a TCP connect over IPv4"), "{}", table.stdout);
    assert!(table.stdout.ends_with("was tried just now, and holds\n"), "{}", table.stdout);
}

#[test]
fn its_trials_are_no_denials_of_anybody() {
    let host = Host::with_policy("strict_mode: true\n");
    let before = host.ledger().len();
    assert_eq!(host.operate(&["doctor"]).status, Some(0));
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(host.ledger().len(), before, "{:#?}", host.ledger());
}

#[test]
fn without_an_agent_root_tries_it_alone_and_leaves_nothing() {
    let folder = std::env::temp_dir().join(format!("sentinel-doctor-{}", std::process::id()));
    let mut doctor = Command::new(program("sentinel"));
    doctor.args(["doctor", "--runtime"]).arg(&folder);
    let finished = Finished::of(doctor);
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("+ an exec of a file"), "{}", finished.stdout);
    assert!(std::fs::read_dir(&folder).unwrap().next().is_none(), "nothing is left in its folder");
    std::fs::remove_dir(folder).unwrap();
}

#[test]
fn without_an_agent_and_without_root_it_says_what_is_missing() {
    let mut doctor = Command::new(program("sentinel"));
    doctor.args(["doctor", "--runtime", "/nonexistent-runtime"]).uid(54_242).gid(54_242).current_dir("/");
    let finished = Finished::of(doctor);
    assert_eq!(finished.status, Some(69), "{}", finished.stdout);
    assert!(finished.stderr.contains("root"), "{}", finished.stderr);
}
