//! The ledger: every decision and every kernel denial in one chain that a stranger can check.

use sentinel_tests::{Finished, Host, Server, program};

fn lived_in() -> (Host, Server) {
    let server = Server::start();
    let host = Host::with_policy(format!(
        "denied_actions: [drop]\nactions:\n  fetch: {{cost_usd: 0.01, tags: [web], grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ));
    let connect = format!("connect={}", server.address());
    let probe = host.probe(&[&connect, "begin=fetch", &connect, "end", "begin=drop", "exec=/bin/true"]);
    assert_eq!(probe.status, Some(0), "{}", probe.stderr);
    (host, server)
}

fn sentinel(host: &Host, arguments: &[&str]) -> Finished {
    Finished::of(host.sentinel(&[arguments, &[&host.ledger_path().display().to_string()]].concat()))
}

#[test]
fn a_session_is_told_whole_and_each_line_has_the_eight_keys() {
    let (host, _server) = lived_in();
    let ledger = host.ledger();
    for line in &ledger {
        for key in [
            "id",
            "timestamp",
            "action",
            "cost_usd",
            "duration_ms",
            "outcome",
            "tags",
            "payload",
            "seq",
            "kind",
            "hash",
        ] {
            assert!(line.get(key).is_some(), "`{key}` is missing in {line}");
        }
    }
    let told: Vec<(&str, &str)> = ledger
        .iter()
        .filter_map(|line| Some((line["action"].as_str()?, line["outcome"].as_str()?)))
        .collect();
    for expected in [
        ("agent.started", "recorded"),
        ("session.started", "recorded"),
        ("kernel.connect", "recorded"),
        ("fetch", "started"),
        ("fetch", "success"),
        ("drop", "blocked"),
        ("kernel.exec", "recorded"),
    ] {
        assert!(told.contains(&expected), "{expected:?} is missing in {told:?}");
    }
    let sum: f64 = ledger.iter().filter_map(|line| line["cost_usd"].as_f64()).sum();
    assert!((sum - 0.01).abs() < 1e-12, "the seed's recipe, the sum of all costs, is what was spent: {sum}");
}

#[test]
fn verify_passes_and_fails_after_one_byte_has_changed() {
    let (host, _server) = lived_in();
    assert_eq!(sentinel(&host, &["ledger", "verify"]).status, Some(0));
    let stranger = |path: &std::path::Path| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/verify_ledger.py");
        std::process::Command::new("/usr/bin/python3").arg(script).arg(path).status().unwrap().code()
    };
    assert_eq!(stranger(&host.ledger_path()), Some(0));
    let copy = host.folder.join("copy.jsonl");
    let bytes = std::fs::read(host.ledger_path()).unwrap();
    let mut changed = bytes.clone();
    let place = bytes.len() / 2;
    changed[place] = if changed[place] == b'x' { b'y' } else { b'x' };
    std::fs::write(&copy, changed).unwrap();
    let verify = Finished::of(host.sentinel(&["ledger", "verify", &copy.display().to_string()]));
    assert_eq!(verify.status, Some(1), "{}{}", verify.stdout, verify.stderr);
    assert_eq!(stranger(&copy), Some(1));
}

#[test]
fn tail_shows_the_last_lines_in_words() {
    let (host, _server) = lived_in();
    let tail = sentinel(&host, &["ledger", "tail"]);
    assert!(tail.stdout.contains("fetch") && tail.stdout.contains("drop"), "{}{}", tail.stdout, tail.stderr);
}

#[test]
fn the_lines_asked_for_are_shown_queried_and_exported() {
    let (host, _server) = lived_in();
    let ledger = host.ledger();
    let fetch = ledger.iter().find(|line| line["action"] == "fetch").expect("it is recorded");
    let shown = sentinel(&host, &["ledger", "show", fetch["id"].as_str().unwrap_or_default()]);
    let lines = |text: &str, part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!(lines(&shown.stdout, "\"outcome\": "), 2, "start and end: {}{}", shown.stdout, shown.stderr);
    let query = sentinel(&host, &["ledger", "query", "--interventions"]);
    assert_eq!(lines(&query.stdout, "drop") + lines(&query.stdout, "kernel."), 3, "{}", query.stdout);
    assert_eq!(lines(&query.stdout, "fetch"), 0, "{}", query.stdout);
    let verbatim = sentinel(&host, &["ledger", "query", "--json"]);
    assert_eq!(verbatim.stdout, std::fs::read_to_string(host.ledger_path()).unwrap());
    let none = sentinel(&host, &["ledger", "query", "--session", "nobody"]);
    assert_eq!((none.status, none.stdout.as_str()), (Some(0), ""), "{}", none.stderr);
    assert!(none.stderr.contains("matches"), "{}", none.stderr);
    let export = sentinel(&host, &["ledger", "export", "--format", "csv", "--kind", "action"]);
    assert_eq!(export.stdout.split("\r\n").count(), 5, "head, three lines and an end: {}", export.stdout);
}

#[test]
fn every_block_can_be_read_as_an_intervention_with_agentsentinels_keys() {
    let server = Server::start();
    let host = Host::with_policy(
        "denied_actions: [drop]\nbudgets: {run: 0.5}\nrate_limits: {often: {max_count: 0}}\n",
    );
    let connect = format!("connect={}", server.address());
    let probe = host.probe(&["begin=drop", "begin=dear,0.75", "begin=often", &connect]);
    assert_eq!(probe.status, Some(0), "{}", probe.stderr);
    let exported = sentinel(&host, &["ledger", "export", "--format", "interventions"]);
    assert_eq!(exported.status, Some(0), "{}", exported.stderr);
    let told: Vec<serde_json::Value> =
        exported.lines().into_iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<&str> = told.iter().map(|one| one["intervention_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["hard_block", "budget_exceeded", "rate_limited", "hard_block"], "{}", exported.stdout);
    assert_eq!(told[1]["blast_radius"], serde_json::json!({"funds_protected": 0.5, "cost_prevented": 0.75}));
    assert_eq!(told[0]["remediation_payload"]["reason_code"], "DENIED_ACTION");
    assert_eq!(told[3]["action_name"], "kernel.connect");
}

#[test]
fn why_tells_what_was_tried_and_what_would_allow_it() {
    let server = Server::start();
    let host = Host::with_policy("strict_mode: true\n");
    let probe = host.probe(&[&format!("connect={}", server.address())]);
    assert!(probe.stderr.contains("sentinel why"), "{}", probe.stderr);
    let ledger = host.ledger_path().display().to_string();
    let why = Finished::of(host.sentinel(&["why", "last", "--ledger", &ledger]));
    assert_eq!(why.status, Some(0), "{}", why.stderr);
    assert!(
        why.stdout.contains(&server.address().to_string()) && why.stdout.contains("allow"),
        "{}",
        why.stdout
    );
}

#[test]
fn no_payload_hides_a_line_from_the_operator() {
    let host = Host::with_policy("denied_actions: [drop]\n");
    let script = r#"
import os, socket, struct
s = socket.socket(socket.AF_UNIX); s.connect(os.environ['AGENT_SENTINEL_SOCKET'])
for text in ['{"hello":{"version":1,"client":"x"}}'] + ['{"begin":{"request":1,"action":"drop","inputs":%s}}' % p for p in ('1e999', '"\\ud800"')]:
    s.sendall(struct.pack('<I', len(text)) + text.encode()); print(s.recv(9999)[4:].decode())
"#;
    let finished = host.run(&["/usr/bin/python3", "-c", script]);
    assert_eq!(finished.stdout.matches("DENIED_ACTION").count(), 2, "{}{}", finished.stdout, finished.stderr);
    let why = sentinel(&host, &["why", "last", "--ledger"]);
    assert!(why.status == Some(0) && why.stdout.contains("drop"), "{}{}", why.stdout, why.stderr);
    let tail = sentinel(&host, &["ledger", "tail"]);
    assert_eq!(tail.stdout.matches("drop").count(), 2, "{}", tail.stdout);
}

#[test]
fn the_policy_text_that_a_denial_suggests_is_right() {
    let server = Server::start();
    let host = Host::with_policy("strict_mode: true\n");
    let connect = format!("connect={}", server.address());
    drop(host.probe(&[&connect]));
    let denial =
        host.ledger().into_iter().find(|line| line["action"] == "kernel.connect").expect("it is recorded");
    let yaml = denial["would_allow"].as_str().expect("a rule would allow it").to_owned();
    assert_eq!(
        Host::with_policy(yaml.clone()).probe(&[&connect]).lines(),
        [format!("{connect} ok")],
        "{yaml}"
    );
}

#[test]
fn status_tells_what_the_agent_does_and_holds() {
    let host = Host::with_policy("budgets: {session: 1}\n");
    let probe = host.start_probe(&["begin=call,0.25", "sleep=3000"]);
    probe.wait_for_line("begin");
    let mut status = host.sentinel(&["status", "--runtime"]);
    status.arg(host.runtime());
    let status = Finished::of(status);
    assert_eq!(status.status, Some(0), "{}", status.stderr);
    for word in ["kill", "test", "0.25"] {
        assert!(status.stdout.contains(word), "`{word}` is missing:\n{}", status.stdout);
    }
}

#[test]
fn a_ledger_on_a_full_disk_denies_new_actions_and_says_why() {
    let folder = std::env::temp_dir().join(format!("sentinel-full-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(&folder)
        .status()
        .unwrap();
    assert!(mounted.success());
    let policy = std::env::temp_dir().join(format!("sentinel-full-{}.yaml", std::process::id()));
    std::fs::write(&policy, "strict_mode: true\n").unwrap();
    let mut command = std::process::Command::new(program("sentinel"));
    command
        .args(["run", "--policy"])
        .arg(&policy)
        .arg("--state")
        .arg(&folder)
        .arg("--")
        .arg(program("probe"));
    command.args(vec!["begin=call"; 300]);
    let finished = Finished::of(command);
    let verify = std::process::Command::new(program("sentinel"))
        .args(["ledger", "verify"])
        .arg(folder.join("ledger.jsonl"))
        .status()
        .unwrap();
    drop(std::process::Command::new("umount").arg("--lazy").arg(&folder).status());
    drop(std::fs::remove_dir(&folder));
    drop(std::fs::remove_file(policy));
    let lines = finished.lines();
    assert_eq!(lines.first().copied(), Some("begin=call allow"), "{}", finished.stderr);
    assert_eq!(lines.last().copied(), Some("begin=call deny LEDGER_UNAVAILABLE"), "{}", finished.stderr);
    assert_eq!(verify.code(), Some(0), "nothing is half written");
}

/// What a stranger says of all parts of a ledger, up to its head.
fn stranger(host: &Host) -> Option<i32> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/verify_ledger.py");
    let mut command = std::process::Command::new("/usr/bin/python3");
    command.arg(script).arg("--expect-head").arg(host.folder.join("state/ledger.head"));
    command.args(host.ledger_parts()).status().unwrap().code()
}

#[test]
fn a_ledger_that_grows_is_rotated_and_a_new_agent_goes_on_with_its_totals() {
    let mut host = Host::with_policy("budgets: {session: 1000}\n");
    let stop = host.folder.join("stop").display().to_string();
    let probe = sentinel_tests::program("probe").display().to_string();
    let run = |steps: &[&str]| {
        let command: Vec<&str> = std::iter::once(probe.as_str()).chain(steps.iter().copied()).collect();
        host.run_command(&["--session", "daily"], &command)
    };
    let storm = sentinel_tests::Running::start(run(&[&format!("storm={stop},call,0.001"), "totals"]));
    sentinel_tests::wait_until("three parts", std::time::Duration::from_secs(60), || {
        host.ledger_parts().len() >= 3
    });
    std::fs::write(&stop, "").unwrap();
    let totals = storm.finish().lines().last().map(|line| (*line).to_owned()).unwrap();
    assert!(totals.starts_with("totals session="), "{totals}");
    let total = totals.split(' ').nth(1).unwrap().to_owned();
    host.kill_agent();
    host.start_agent();
    let after = Finished::of(run_in(&host, "daily", &[&probe, "totals"]));
    assert!(after.stdout.contains(&total), "{total} is missing in {}", after.stdout);
    let verify = sentinel(&host, &["ledger", "verify"]);
    assert_eq!(verify.status, Some(0), "{}{}", verify.stdout, verify.stderr);
    assert!(!verify.stdout.contains("older parts"), "{}", verify.stdout);
    assert_eq!(stranger(&host), Some(0));
    // A part that is replaced is found.
    let parts = host.ledger_parts();
    std::fs::copy(&parts[1], &parts[0]).unwrap();
    assert_eq!(sentinel(&host, &["ledger", "verify"]).status, Some(1));
    assert_eq!(stranger(&host), Some(1));
}

fn run_in(host: &Host, session: &str, command: &[&str]) -> std::process::Command {
    host.run_command(&["--session", session], command)
}

#[test]
fn a_ledger_that_somebody_moves_away_goes_on_in_a_new_file_with_all_that_was_known() {
    let mut host = Host::with_policy("budgets: {session: 1}\n");
    let probe = sentinel_tests::program("probe").display().to_string();
    let call =
        |host: &Host| Finished::of(run_in(host, "daily", &[&probe, "begin=call,0.4", "end", "totals"]));
    assert!(call(&host).stdout.contains("session=0.4 "));
    let kept = host.folder.join("kept.jsonl");
    std::fs::rename(host.ledger_path(), &kept).unwrap();
    sentinel_tests::wait_until("a new file", std::time::Duration::from_secs(10), || {
        host.ledger_path().exists()
    });
    assert_eq!(host.ledger()[0]["action"], "state");
    host.kill_agent();
    host.start_agent();
    assert!(call(&host).stdout.contains("session=0.8 "));
    assert!(call(&host).stdout.contains("deny BUDGET_EXCEEDED"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/verify_ledger.py");
    let both = std::process::Command::new("/usr/bin/python3")
        .arg(script)
        .args([&kept, &host.ledger_path()])
        .status()
        .unwrap();
    assert!(both.success(), "both files are one chain");
}

#[test]
fn a_ledger_that_was_cut_off_keeps_the_agent_from_starting() {
    let mut host = Host::with_policy("strict_mode: true\n");
    assert_eq!(host.probe(&["begin=call", "end", "sleep=300"]).status, Some(0));
    std::thread::sleep(std::time::Duration::from_millis(300));
    host.kill_agent();
    let text = std::fs::read_to_string(host.ledger_path()).unwrap();
    let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    std::fs::write(host.ledger_path(), cut).unwrap();
    assert_eq!(sentinel(&host, &["ledger", "verify"]).status, Some(1));
    let start = Finished::of(host.agent_command());
    assert_eq!(start.status, Some(71), "{}", start.stderr);
    assert!(start.stderr.contains("is known to have been written"), "{}", start.stderr);
    // Moved away by somebody who knows: it begins anew, and says so.
    std::fs::remove_file(host.ledger_path()).unwrap();
    host.start_agent();
    assert_eq!(host.ledger_of("ledger.gap", "recorded").len(), 1);
}
