//! Money and lists, through the socket and down to the kernel.

use std::time::Duration;

use sentinel_tests::{Host, Running, Server, program, wait_until};

#[test]
fn three_dimes_fit_a_budget_of_thirty_cents_and_a_fourth_does_not() {
    let host = Host::with_policy("budgets: {session: 0.3}\n");
    let begin = ["begin=a,0.1", "end"];
    let probe = host.probe(&[begin, begin, begin, begin].concat());
    let lines = probe.lines();
    assert_eq!(lines.iter().filter(|line| line.ends_with("allow")).count(), 3, "{lines:?} {}", probe.stderr);
    assert_eq!(lines[6], "begin=a,0.1 deny BUDGET_EXCEEDED");
}

#[test]
fn eight_processes_with_eight_threads_run_exactly_the_ten_calls_that_the_budget_pays() {
    let host = Host::with_policy("budgets: {session: 1.0}\n");
    let probe = host.probe(&["spawn", "rush=8,call,0.1", "done"].repeat(8));
    let allowed = probe.lines().iter().filter(|line| line.ends_with("allow")).count();
    let denied = probe.lines().iter().filter(|line| line.ends_with("BUDGET_EXCEEDED")).count();
    assert_eq!((allowed, denied), (10, 54), "{}", probe.stderr);
    let spent: f64 = host.ledger().iter().filter_map(|line| line["cost_usd"].as_f64()).sum();
    assert!((spent - 1.0).abs() < 1e-9, "the ledger adds up to the budget: {spent}");
}

#[test]
fn an_action_on_the_deny_list_does_not_run() {
    let host = Host::with_policy("denied_actions: [delete_database]\n");
    assert_eq!(
        host.probe(&["begin=delete_database", "begin=other"]).lines(),
        ["begin=delete_database deny DENIED_ACTION", "begin=other allow"]
    );
}

#[test]
fn under_an_allow_list_any_other_action_is_denied() {
    let host = Host::with_policy("allowed_actions: [search_web]\n");
    assert_eq!(
        host.probe(&["begin=unknown", "begin=search_web"]).lines(),
        ["begin=unknown deny NOT_IN_ALLOWLIST", "begin=search_web allow"]
    );
    let nothing = Host::with_policy("allowed_actions: []\n");
    assert_eq!(nothing.probe(&["begin=search_web"]).lines(), ["begin=search_web deny NOT_IN_ALLOWLIST"]);
}

#[test]
fn a_rate_limit_holds_in_its_window_and_lets_go_after_it() {
    let host = Host::with_policy("rate_limits: {search: {max_count: 2, window_seconds: 1}}\n");
    let begin = ["begin=search", "end"];
    let probe = host.probe(&[&begin[..], &begin, &begin, &["sleep=1100"], &begin].concat());
    let begins: Vec<&str> = probe.lines().into_iter().filter(|line| line.starts_with("begin")).collect();
    assert_eq!(
        begins,
        ["begin=search allow", "begin=search allow", "begin=search deny RATE_LIMITED", "begin=search allow"]
    );
}

#[test]
fn a_spent_budget_closes_the_baseline_network_unless_the_policy_keeps_it() {
    let server = Server::start();
    let connect = format!("connect={}", server.address());
    for (on_exhausted, after) in [("close", "EPERM"), ("keep", "ok")] {
        let host = Host::with_policy(format!(
            "budgets: {{session: 0.1}}\nenforcement: {{on_exhausted: {on_exhausted}, network: {{allow: [\"{}\"]}}}}\n",
            server.address()
        ));
        let probe = host.probe(&[&connect, "begin=call,0.1", "end", &connect]);
        let lines = probe.lines();
        assert_eq!(
            (lines[0], lines[3]),
            (format!("{connect} ok").as_str(), format!("{connect} {after}").as_str()),
            "{}",
            probe.stderr
        );
    }
}

#[test]
fn the_policys_price_is_the_least_that_is_charged() {
    let host = Host::with_policy("actions: {call: {cost_usd: 0.25}}\nbudgets: {session: 1}\n");
    let probe = host.probe(&["begin=call,0.01", "end", "totals"]);
    assert_eq!(probe.lines()[2], "totals session=0.25 run=0.25", "{}", probe.stderr);
}

#[test]
fn an_action_that_fails_is_charged_and_one_that_is_dropped_counts_as_cancelled() {
    let host = Host::with_policy("budgets: {session: 1}\n");
    let probe = host.probe(&["begin=fails,0.1", "fail", "begin=dropped,0.1", "forget", "totals"]);
    assert_eq!(probe.lines()[4], "totals session=0.2 run=0.2", "{}", probe.stderr);
    wait_until("both lines", Duration::from_secs(2), || {
        host.ledger_of("fails", "error").len() == 1 && host.ledger_of("dropped", "cancelled").len() == 1
    });
}

#[test]
fn an_application_that_crashes_inside_an_action_is_settled_and_its_door_shut() {
    let server = Server::start();
    let host = Host::with_policy(format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ));
    let connect = format!("connect={}", server.address());
    // The child forked inside the action outlives it, and has its scope.
    let folder = std::env::temp_dir().join(format!("sentinel-crash-{}", std::process::id()));
    let gone = folder.display().to_string();
    let mut running = host.start_probe(&[
        "fork",
        "begin=fetch,0.1",
        "spawn",
        &format!("await={gone}"),
        &connect,
        "say=tried",
        "done",
        &connect,
        "abort",
        "join",
        "sleep=2500",
    ]);
    running.wait_for_line("child killed");
    wait_until("the ending line", Duration::from_secs(5), || host.ledger_of("fetch", "abandoned").len() == 1);
    std::fs::write(&folder, "").unwrap();
    running.wait_for_line("tried");
    let lines = running.stdout();
    let of_connect: Vec<&str> = lines.lines().filter(|line| line.starts_with(&connect)).collect();
    assert_eq!(of_connect, [format!("{connect} ok"), format!("{connect} EPERM")]);
    assert!(!running.has_ended());
    std::fs::remove_file(folder).unwrap();
}

#[test]
fn an_action_that_hangs_past_its_time_expires_and_its_door_shuts() {
    let server = Server::start();
    let host = Host::with_policy(format!(
        "actions:\n  fetch: {{max_seconds: 1, grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ));
    let connect = format!("connect={}", server.address());
    let probe = host.probe(&["begin=fetch", &connect, "sleep=1500", &connect, "end"]);
    let lines = probe.lines();
    assert_eq!(
        (lines[1], lines[2]),
        (format!("{connect} ok").as_str(), format!("{connect} EPERM").as_str()),
        "{}",
        probe.stderr
    );
    assert_eq!(host.ledger_of("fetch", "expired").len(), 1);
    assert_eq!(host.ledger_of("fetch", "success").len(), 0, "a late end settles nothing");
}

#[test]
fn a_named_session_goes_on_with_its_totals() {
    let host = Host::with_policy("budgets: {session: 0.2}\n");
    let probe = program("probe").display().to_string();
    let once = |options: &[&str]| {
        Running::start(host.run_command(options, &[&probe, "begin=call,0.2", "end"])).finish()
    };
    assert!(once(&["--session", "daily"]).stdout.contains("allow"));
    assert!(once(&["--session", "daily"]).stdout.contains("BUDGET_EXCEEDED"), "a restart doesn't refill it");
    assert!(once(&[]).stdout.contains("allow"), "a session without a name is new each time");
}
