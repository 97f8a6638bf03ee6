//! Human authority over what runs: approvals, pause, kill, and policies that are read anew.

use std::time::Duration;

use sentinel_tests::{Host, Running, Server, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

/// The id of the one approval that waits.
fn waiting(host: &Host) -> String {
    let mut id = String::new();
    wait_until("a wish", PATIENCE, || {
        let list = host.operate(&["approvals"]);
        let first = list.stdout.lines().find(|line| line.contains(", waits, "));
        first.is_some_and(|line| {
            line.split_whitespace().next().unwrap_or_default().clone_into(&mut id);
            true
        })
    });
    id
}

fn asking(server: &Server) -> Host {
    Host::with_policy(format!(
        "approvals: {{actions: [pay], timeout_seconds: 60}}\nactions:\n  pay: {{grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ))
}

#[test]
fn an_action_waits_for_its_approval_and_its_doors_open_only_then() {
    let server = Server::start();
    let host = asking(&server);
    let connect = format!("connect={}", server.address());
    let probe = host.start_probe(&["say=up", "begin=pay,0.5", &connect, "end", &connect]);
    probe.wait_for_line("up");
    let id = waiting(&host);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(probe.stdout(), "up\n", "it waits");
    let shown = host.operate(&["approvals", "show", &id[..8]]);
    for part in ["pay", "0.5 USD", "approvals.actions", &server.address().to_string()] {
        assert!(shown.stdout.contains(part), "`{part}` is missing in:\n{}", shown.stdout);
    }
    let approved = host.operate(&["approvals", "approve", &id, "--note", "as agreed"]);
    assert_eq!(approved.status, Some(0), "{}", approved.stderr);
    let probe = probe.finish();
    for part in [
        "sentinel: waiting: `pay` (0.5 USD) needs a human's word within ",
        " s: `approvals.actions`, line 1 of the policy",
    ] {
        assert!(probe.stderr.contains(part), "{}", probe.stderr);
    }
    assert!(
        probe.stderr.contains(&format!("sentinel approvals show {} --runtime ", &id[..8])),
        "{}",
        probe.stderr
    );
    assert_eq!(
        probe.lines(),
        ["up", "begin=pay,0.5 allow", &format!("{connect} ok"), "end", &format!("{connect} EPERM")],
        "{}",
        probe.stderr
    );
    let given = host.ledger_of("pay", "approved");
    assert_eq!(given.len(), 1);
    assert_eq!(given[0]["operator"], 0);
    assert_eq!(given[0]["payload"]["outputs"]["note"], "as agreed");
    assert_eq!(host.ledger_of("pay", "started")[0]["approval"], given[0]["id"]);
    assert_eq!(host.operate(&["approvals"]).stdout, "nothing waits for an approval\n", "it is used");
}

#[test]
fn an_action_that_an_operator_denies_does_not_run() {
    let server = Server::start();
    let host = asking(&server);
    let probe = host.start_probe(&["begin=pay", &format!("connect={}", server.address())]);
    let id = waiting(&host);
    assert_eq!(host.operate(&["approvals", "deny", &id]).status, Some(0));
    let probe = probe.finish();
    assert_eq!(
        probe.lines(),
        ["begin=pay deny APPROVAL_REJECTED", &format!("connect={} EPERM", server.address())]
    );
    let late = host.operate(&["approvals", "approve", &id]);
    assert_eq!(late.status, Some(66), "{}", late.stderr);
}

#[test]
fn nobody_in_time_is_a_no() {
    let host = Host::with_policy("approvals: {actions: [pay], timeout_seconds: 1}\n");
    let probe = host.probe(&["begin=pay"]);
    assert_eq!(probe.lines(), ["begin=pay deny APPROVAL_EXPIRED"]);
    assert_eq!(host.ledger_of("pay", "expired").len(), 1);
}

#[test]
fn a_process_in_a_session_can_not_approve_anything() {
    let server = Server::start();
    let host = asking(&server);
    let probe = host.start_probe(&["begin=pay"]);
    let id = waiting(&host);
    let sentinel = sentinel_tests::program("sentinel").display().to_string();
    let runtime = host.runtime().display().to_string();
    let inside = host.run(&[&sentinel, "approvals", "approve", &id, "--runtime", &runtime]);
    assert_ne!(inside.status, Some(0), "{}", inside.stdout);
    assert!(!probe.stdout().contains("allow"));
    assert!(host.operate(&["approvals"]).stdout.contains(", waits, "));
}

#[test]
fn a_restarted_application_finds_the_same_wish() {
    let host = Host::with_policy("approvals: {actions: [pay], timeout_seconds: 60}\n");
    let probe = sentinel_tests::program("probe").display().to_string();
    let command = |steps: &[&str]| {
        let all: Vec<&str> = std::iter::once(probe.as_str()).chain(steps.iter().copied()).collect();
        host.run_command(&["--session", "daily"], &all)
    };
    let mut first = Running::start(command(&["begin=pay,0.5"]));
    let id = waiting(&host);
    first.kill();
    wait_until("the end of the session", PATIENCE, || host.ledger_of("session.ended", "recorded").len() == 1);
    let second = Running::start(command(&["begin=pay,0.5"]));
    wait_until("its start", PATIENCE, || host.ledger_of("session.started", "recorded").len() == 2);
    assert_eq!(waiting(&host), id);
    assert_eq!(host.operate(&["approvals", "approve", &id]).status, Some(0));
    assert_eq!(second.finish().lines(), ["begin=pay,0.5 allow"]);
    assert_eq!(host.ledger_of("pay", "pending").len(), 1, "nobody was asked twice");
}

/// A command that prints a line ten times a second.
const TICKING: &str = "import time\nwhile True: print('tick', flush=True); time.sleep(0.1)";

#[test]
fn a_paused_session_stands_still_and_goes_on() {
    let host = Host::with_policy("enforcement: {exec: {allow: [/usr/bin/python3.11]}}\n");
    let run = Running::start(host.run_command(&["--session", "daily"], &["/usr/bin/python3", "-c", TICKING]));
    run.wait_for_line("tick");
    let paused = host.operate(&["pause", "daily"]);
    assert_eq!(paused.status, Some(0), "{}", paused.stderr);
    assert!(host.operate(&["status"]).stdout.contains("PAUSED"));
    std::thread::sleep(Duration::from_millis(300));
    let before = run.stdout().len();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(run.stdout().len(), before, "it stands still");
    assert_eq!(host.operate(&["pause", "daily"]).status, Some(1), "once is enough");
    assert_eq!(host.operate(&["resume", "daily"]).status, Some(0));
    wait_until("another tick", PATIENCE, || run.stdout().len() > before);
    for action in ["session.paused", "session.resumed"] {
        assert_eq!(host.ledger_of(action, "recorded")[0]["operator"], 0);
    }
}

#[test]
fn a_pause_shuts_the_door_of_an_action_in_flight_and_a_resume_opens_it_again() {
    let server = Server::start();
    let host = Host::with_policy(format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"], exec: [/usr/bin/python3.11]}}}}\n",
        server.address()
    ));
    // Frozen processes try nothing, so the door itself is looked at: what the kernel lets the action's process do right after the resume.
    let connect = format!("connect={}", server.address());
    let probe = host.start_probe(&["begin=fetch", "say=open", "sleep=1500", &connect, "end"]);
    probe.wait_for_line("open");
    assert_eq!(host.operate(&["pause", "1"]).status, Some(0));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(host.operate(&["resume", "1"]).status, Some(0));
    let probe = probe.finish();
    assert_eq!(probe.lines(), ["begin=fetch allow", "open", &format!("{connect} ok"), "end"]);
}

#[test]
fn a_killed_session_ends_and_the_ledger_says_who_did_it() {
    let host = Host::with_policy("enforcement: {exec: {allow: [/usr/bin/python3.11]}}\n");
    let run = Running::start(host.run_command(&["--session", "daily"], &["/usr/bin/python3", "-c", TICKING]));
    run.wait_for_line("tick");
    assert_eq!(host.operate(&["kill", "nobody"]).status, Some(66));
    assert_eq!(host.operate(&["kill", "daily"]).status, Some(0));
    assert_eq!(run.finish().status, Some(137));
    wait_until("its line", PATIENCE, || !host.ledger_of("session.ended", "recorded").is_empty());
    assert_eq!(host.ledger_of("session.ended", "recorded")[0]["payload"]["outputs"]["cause"], "killed");
    assert_eq!(host.ledger_of("kill.ordered", "recorded")[0]["operator"], 0);
}

#[test]
fn stop_all_ends_every_session_paused_ones_too() {
    let host = Host::with_policy("enforcement: {exec: {allow: [/usr/bin/python3.11]}}\n");
    let start = |name: &str| {
        let run =
            Running::start(host.run_command(&["--session", name], &["/usr/bin/python3", "-c", TICKING]));
        run.wait_for_line("tick");
        run
    };
    let runs = [start("one"), start("two")];
    assert_eq!(host.operate(&["pause", "two"]).status, Some(0));
    let stopped = host.operate(&["stop-all"]);
    assert_eq!(stopped.stdout, "2 sessions are killed\n", "{}", stopped.stderr);
    for run in runs {
        assert_eq!(run.finish().status, Some(137));
    }
}

#[test]
fn a_reloaded_policy_takes_a_door_away_from_what_runs_and_gives_another() {
    let (old, new) = (Server::start(), Server::start());
    let policy = |address| format!("enforcement: {{network: {{allow: [\"{address}\"]}}}}\n");
    let host = Host::with_policy(policy(old.address()));
    let go = host.folder.join("go").display().to_string();
    let (to_old, to_new) = (format!("connect={}", old.address()), format!("connect={}", new.address()));
    let probe = host.start_probe(&[&to_old, &to_new, "say=up", &format!("await={go}"), &to_old, &to_new]);
    probe.wait_for_line("up");
    host.write_policy("test", &policy(new.address()));
    let reloaded = host.operate(&["reload"]);
    assert_eq!(reloaded.status, Some(0), "{}", reloaded.stderr);
    assert!(reloaded.stdout.contains("changed: `test`; 1 sessions have new rules"), "{}", reloaded.stdout);
    std::fs::write(&go, "").unwrap();
    let probe = probe.finish();
    assert_eq!(
        probe.lines(),
        [
            &format!("{to_old} ok"),
            &format!("{to_new} EPERM"),
            "up",
            &format!("await={go} ok"),
            &format!("{to_old} EPERM"),
            &format!("{to_new} ok"),
        ]
    );
    assert_eq!(host.ledger_of("policy.changed", "recorded")[0]["payload"]["outputs"]["generation"], 2);
}

#[test]
fn a_reload_shuts_the_door_of_a_running_action_that_is_denied_now_and_keeps_that_of_another() {
    let (denied, kept) = (Server::start(), Server::start());
    let rules = format!(
        "actions:\n  one: {{grants: {{network: [\"{}\"]}}}}\n  two: {{grants: {{network: [\"{}\"]}}}}\n",
        denied.address(),
        kept.address()
    );
    let host = Host::with_policy(rules.clone());
    let go = host.folder.join("go").display().to_string();
    let (to_denied, to_kept) =
        (format!("connect={}", denied.address()), format!("connect={}", kept.address()));
    let probe = host.start_probe(&[
        "begin=one",
        "begin=two",
        "say=up",
        &format!("await={go}"),
        &to_denied,
        &to_kept,
        "end",
        "end",
    ]);
    probe.wait_for_line("up");
    host.write_policy("test", &format!("denied_actions: [one]\n{rules}"));
    assert_eq!(host.operate(&["reload"]).status, Some(0));
    std::fs::write(&go, "").unwrap();
    let probe = probe.finish();
    let lines = probe.lines();
    assert_eq!(lines[4..6], [format!("{to_denied} EPERM"), format!("{to_kept} ok")], "{lines:?}");
}

#[test]
fn an_invalid_policy_is_not_half_applied() {
    let server = Server::start();
    let policy = format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", server.address());
    let host = Host::builder().policy("test", policy).policy("other", "strict_mode: true\n").start();
    let connect = format!("connect={}", server.address());
    let go = host.folder.join("go").display().to_string();
    let probe = host.start_probe(&["say=up", &format!("await={go}"), &connect]);
    probe.wait_for_line("up");
    host.write_policy("test", "enforcement: {network: {allow: []}}\n");
    host.write_policy("other", "budget: {session: 1}\n");
    let refused = host.operate(&["reload"]);
    assert_eq!(refused.status, Some(1), "{}", refused.stdout);
    for part in ["nothing has changed", "budget"] {
        assert!(refused.stderr.contains(part), "`{part}` is missing in:\n{}", refused.stderr);
    }
    // An executable that isn't there is found only when the rules are compiled for this host.
    host.write_policy("other", "strict_mode: true\n");
    host.write_policy("test", "enforcement: {exec: {allow: [/no/such/file]}}\n");
    assert_eq!(host.operate(&["reload"]).status, Some(1));
    std::fs::write(&go, "").unwrap();
    assert!(probe.finish().lines().contains(&format!("{connect} ok").as_str()), "the old policy holds");
}

#[test]
fn a_hangup_signal_reloads_too() {
    let server = Server::start();
    let host = Host::with_policy("strict_mode: true\n");
    let go = host.folder.join("go").display().to_string();
    let connect = format!("connect={}", server.address());
    let probe = host.start_probe(&["say=up", &format!("await={go}"), &connect]);
    probe.wait_for_line("up");
    host.write_policy("test", &format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", server.address()));
    let agent = rustix::process::Pid::from_raw(host.agent_pid().cast_signed()).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::HUP).unwrap();
    wait_until("the reload", PATIENCE, || !host.ledger_of("policies.reloaded", "recorded").is_empty());
    std::fs::write(&go, "").unwrap();
    assert!(probe.finish().lines().contains(&format!("{connect} ok").as_str()));
}

#[test]
fn a_reload_voids_what_waits_for_a_human() {
    let host = Host::with_policy("approvals: {actions: [pay], timeout_seconds: 20}\n");
    let probe = host.start_probe(&["begin=pay"]);
    let id = waiting(&host);
    host.write_policy("test", "approvals: {actions: [pay, other]}\n");
    assert_eq!(host.operate(&["reload"]).status, Some(0));
    assert_eq!(probe.finish().lines(), ["begin=pay deny APPROVAL_CANCELLED"]);
    assert_eq!(host.operate(&["approvals", "approve", &id]).status, Some(66));
}

#[test]
fn a_policy_that_is_not_strict_warns_and_lets_the_action_go_on_with_its_own_doors() {
    let server = Server::start();
    let host = Host::with_policy(format!(
        "strict_mode: false\nbudgets: {{session: 0.1}}\nactions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ));
    let connect = format!("connect={}", server.address());
    let probe = host.probe(&["begin=fetch,0.5", &connect, "end", &connect]);
    assert_eq!(
        probe.lines(),
        ["begin=fetch,0.5 allow", &format!("{connect} ok"), "end", &format!("{connect} EPERM")]
    );
    assert_eq!(host.ledger_of("fetch", "warned")[0]["reason"]["code"], "BUDGET_EXCEEDED");
}
