//! `sentinel session reset`: budgets that are given back, by a running agent or in the ledger of programs that decide for themselves.

use std::process::Command;
use std::time::Duration;

use sentinel_authority::{Limits, Member, SharedAuthority};
use sentinel_engine::Now;
use sentinel_tests::{Finished, Host, Laptop, NOBODY, Running, Server, program};

fn reset_of(laptop: &Laptop, arguments: &[&str]) -> Finished {
    Finished::of(laptop.command("sentinel", &[&["session", "reset"], arguments].concat()))
}

#[test]
fn a_spent_budget_is_given_back_without_an_agent_and_without_root() {
    let laptop = Laptop::with_policy("budgets: {session: 1.0}\n");
    assert_eq!(laptop.run(&["begin=call,1", "end"]), "begin=call,1 allow\nend");
    assert_eq!(laptop.run(&["begin=call,0.5"]), "begin=call,0.5 deny BUDGET_EXCEEDED");
    let reset = reset_of(&laptop, &[]);
    assert_eq!(reset.status, Some(0), "{}", reset.stderr);
    assert_eq!(reset.stdout, "session `default` has its budgets back: 1 USD were spent\n");
    assert_eq!(
        laptop.run(&["begin=call,0.5", "end", "totals"]).lines().last(),
        Some("totals session=0.5 run=0.5")
    );
    let lines = laptop.ledger();
    let reset = lines.iter().find(|line| line["action"] == "session.reset").expect("it is recorded");
    assert_eq!((&reset["operator"], &reset["session"]), (&NOBODY.into(), &"default".into()));
}

#[test]
fn processes_that_share_the_ledger_go_on_and_keep_what_they_have_in_flight() {
    let laptop = Laptop::with_policy("budgets: {session: 1.0}\n");
    let go = laptop.folder.join("go");
    let wait = format!("await={}", go.display());
    let probe = Running::start(laptop.probe(&[
        "begin=long,0.25",
        "begin=call,0.5",
        "end",
        "begin=call,0.5",
        "say=spent",
        &wait,
        "begin=call,0.9",
        "begin=call,0.75",
        "end",
        "end",
        "totals",
    ]));
    probe.wait_for_line("spent");
    let reset = reset_of(&laptop, &["--home", ".agent-sentinel", "--session", "default"]);
    assert_eq!(
        reset.stdout,
        "session `default` has its budgets back: 0.5 USD were spent; 0.25 USD stay reserved by what is in flight\n",
        "{}",
        reset.stderr
    );
    std::fs::write(&go, "").unwrap();
    let finished = probe.finish();
    assert_eq!(
        finished.lines()[3..],
        [
            "begin=call,0.5 deny BUDGET_EXCEEDED",
            "spent",
            &format!("{wait} ok"),
            "begin=call,0.9 deny BUDGET_EXCEEDED",
            "begin=call,0.75 allow",
            "end",
            "end",
            "totals session=1 run=0.75",
        ],
        "{}",
        finished.stderr
    );
    assert!(!laptop.ledger().is_empty(), "and its chain is whole");
}

#[test]
fn whoever_resets_is_none_of_those_that_a_run_goes_on_for() {
    let laptop = Laptop::with_policy("budgets: {run: 1.0}\n");
    laptop.run(&["begin=call,0.75", "end"]);
    let ledger = laptop.folder.join(".agent-sentinel/ledger.jsonl");
    let now = Now { wall_micros: 0, elapsed: Duration::ZERO };
    let open = |member: Option<Member>| match member {
        Some(member) => SharedAuthority::join(&ledger, Limits::default(), member, now).unwrap(),
        None => SharedAuthority::visit(&ledger, Limits::default(), now).unwrap(),
    };
    let visitor = open(None);
    assert_eq!(
        laptop.run(&["begin=call,0.5", "end", "totals"]).lines().last(),
        Some("totals session=1.25 run=0.5")
    );
    drop(visitor);
    let _member = open(Some(Member::new(7)));
    assert_eq!(laptop.run(&["totals"]), "totals session=1.25 run=0.5", "for a member it does");
}

#[test]
fn the_environment_names_the_folder_and_the_session_and_another_session_keeps_its_totals() {
    let laptop = Laptop::with_policy("budgets: {session: 1.0}\n");
    let home = laptop.folder.join("elsewhere");
    let of = |mut command: Command, session: &str| {
        command.env("AGENT_SENTINEL_HOME", &home).env("AGENT_SENTINEL_SESSION", session);
        Finished::of(command)
    };
    for session in ["one", "two"] {
        of(laptop.probe(&["begin=call,1", "end"]), session);
    }
    let reset = of(laptop.command("sentinel", &["session", "reset"]), "one");
    assert_eq!(reset.stdout, "session `one` has its budgets back: 1 USD were spent\n", "{}", reset.stderr);
    assert_eq!(of(laptop.probe(&["begin=call,1"]), "one").lines(), ["begin=call,1 allow"]);
    assert_eq!(of(laptop.probe(&["begin=call,1"]), "two").lines(), ["begin=call,1 deny BUDGET_EXCEEDED"]);
}

#[test]
fn where_nobody_has_written_a_ledger_none_is_made() {
    let laptop = Laptop::with_policy("strict_mode: true\n");
    let reset = reset_of(&laptop, &[]);
    assert_eq!(reset.status, Some(66), "{}", reset.stderr);
    for part in ["there is no `.agent-sentinel/ledger.lock`", "--home", "sentinel session reset SESSION"] {
        assert!(reset.stderr.contains(part), "`{part}` is missing in:\n{}", reset.stderr);
    }
    assert!(!laptop.folder.join(".agent-sentinel").exists());
}

#[test]
fn a_session_that_is_not_there_is_an_error_that_names_those_that_are() {
    let laptop = Laptop::with_policy("strict_mode: true\n");
    laptop.run(&["begin=call", "end"]);
    let before = laptop.ledger().len();
    let reset = reset_of(&laptop, &["--session", "daily"]);
    assert_eq!(reset.status, Some(66), "{}", reset.stderr);
    assert!(reset.stderr.contains("there is no session `daily`"), "{}", reset.stderr);
    assert!(reset.stderr.contains("it has `default`"), "{}", reset.stderr);
    assert_eq!(laptop.ledger().len(), before);
    assert_eq!(reset_of(&laptop, &["--session", "a/b"]).status, Some(64));
    assert_eq!(reset_of(&laptop, &["daily", "--home", "."]).status, Some(64), "it is one or the other");
    assert_eq!(reset_of(&laptop, &["--runtime", "."]).status, Some(64), "an agent's session has to be named");
}

#[test]
fn root_does_not_write_into_another_users_ledger() {
    let laptop = Laptop::with_policy("strict_mode: true\n");
    laptop.run(&["begin=call", "end"]);
    let mut command = Command::new(program("sentinel"));
    command.args(["session", "reset", "--home"]).arg(laptop.folder.join(".agent-sentinel"));
    let reset = Finished::of(command);
    assert_eq!(reset.status, Some(77), "{}", reset.stderr);
    assert!(reset.stderr.contains("belongs to uid 65534"), "{}", reset.stderr);
}

#[test]
fn a_session_of_a_running_agent_has_its_budget_and_its_network_back() {
    let server = Server::start();
    let host = Host::with_policy(format!(
        "budgets: {{session: 1.0}}\nenforcement: {{network: {{allow: [\"{}\"]}}}}\n",
        server.address()
    ));
    let (connect, go) =
        (format!("connect={}", server.address()), host.folder.join("go").display().to_string());
    let probe = host.start_probe(&[
        "begin=call,1",
        "end",
        "begin=call,0.5",
        &connect,
        "say=spent",
        &format!("await={go}"),
        "begin=call,0.5",
        "end",
        &connect,
    ]);
    probe.wait_for_line("spent");
    let reset = host.operate(&["session", "reset", "1"]);
    assert_eq!(reset.stdout, "session `1` has its budgets back: 1 USD were spent\n", "{}", reset.stderr);
    std::fs::write(&go, "").unwrap();
    let finished = probe.finish();
    assert_eq!(
        finished.lines()[2..],
        [
            "begin=call,0.5 deny BUDGET_EXCEEDED",
            &format!("{connect} EPERM"),
            "spent",
            &format!("await={go} ok"),
            "begin=call,0.5 allow",
            "end",
            &format!("{connect} ok"),
        ],
        "{}",
        finished.stderr
    );
    assert_eq!(host.ledger_of("session.reset", "recorded")[0]["operator"], 0);
}

#[test]
fn a_named_session_that_is_over_has_its_budget_back_at_its_next_start() {
    let host = Host::with_policy("budgets: {session: 1.0}\n");
    let probe = program("probe").display().to_string();
    let run = |steps: &[&str]| {
        let all: Vec<&str> = std::iter::once(probe.as_str()).chain(steps.iter().copied()).collect();
        Finished::of(host.run_command(&["--session", "daily"], &all))
    };
    run(&["begin=call,1", "end"]);
    assert_eq!(run(&["begin=call,1"]).lines(), ["begin=call,1 deny BUDGET_EXCEEDED"]);
    let reset = host.operate(&["session", "reset", "daily"]);
    assert_eq!(reset.status, Some(0), "{}", reset.stderr);
    assert_eq!(run(&["begin=call,1"]).lines(), ["begin=call,1 allow"]);
    let unknown = host.operate(&["session", "reset", "weekly"]);
    assert_eq!(unknown.status, Some(66), "{}", unknown.stderr);
}

#[test]
fn a_process_in_a_session_can_not_give_itself_its_budget_back() {
    let host = Host::with_policy("budgets: {session: 1.0}\n");
    let sentinel = program("sentinel").display().to_string();
    let runtime = host.runtime().display().to_string();
    let inside = host.run(&[&sentinel, "session", "reset", "1", "--runtime", &runtime]);
    assert_ne!(inside.status, Some(0), "{}", inside.stdout);
    assert!(host.ledger_of("session.reset", "recorded").is_empty());
}
