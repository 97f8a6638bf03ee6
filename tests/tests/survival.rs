//! What holds when the agent dies: everything that was denied stays denied, and what was open closes by itself.

use std::time::{Duration, Instant};

use sentinel_tests::{Finished, Host, Server, wait_until};

#[test]
fn a_killed_agents_doors_close_within_five_seconds_and_nothing_else_ever_opens() {
    let (granted, never) = (Server::start(), Server::start());
    let mut host = Host::with_policy(format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"], exec: [/usr/bin/python3.11]}}}}\n",
        granted.address()
    ));
    let script = format!(
        r"
import socket, time, sys
def reached(address):
    try: socket.create_connection(address, 2).close(); return True
    except OSError: return False
granted, never = ('127.0.0.1', {}), ('127.0.0.1', {})
print('ready', flush=True)
start = time.monotonic(); closed = None; tries = 0
while time.monotonic() - start < float(sys.argv[1]):
    tries += 1
    if reached(never): print('REACHED', flush=True)
    if tries % 50 == 0:
        if reached(granted): closed = None
        elif closed is None: closed = time.monotonic(); print('closed', flush=True)
print('tries', tries)
",
        granted.address().port(),
        never.address().port()
    );
    // The python process is forked inside the action, so it shares its door.
    let probe = host.start_probe(&["begin=fetch", "say=begun", &format!("python={script}"), "say=over"]);
    probe.wait_for_line("ready");
    assert!(!probe.stdout().contains("closed"), "the door is open while the action is in flight");
    std::thread::sleep(Duration::from_secs(1));
    assert!(!probe.stdout().contains("closed"), "and stays open while the agent lives");
    host.kill_agent();
    let killed = Instant::now();
    probe.wait_for_line("closed");
    assert!(killed.elapsed() < Duration::from_secs(6), "closed after {:?}", killed.elapsed());
    wait_until("the probing's end", Duration::from_secs(40), || {
        never.accepted() > 0 || probe.stdout().contains("tries")
    });
    assert_eq!(never.accepted(), 0, "{}", probe.stdout());
}

#[test]
fn the_next_agent_ends_the_sessions_of_the_killed_one_and_goes_on_with_its_ledger() {
    let mut host = Host::with_policy("budgets: {session: 1}\n");
    let mut probe = host.start_probe(&["begin=call,0.25", "sleep=60000"]);
    probe.wait_for_line("begin=call,0.25 allow");
    host.kill_agent();
    host.start_agent();
    wait_until("the end of the orphaned session", Duration::from_secs(10), || probe.has_ended());
    let interrupted = host.ledger_of("call", "interrupted");
    assert_eq!(interrupted.len(), 1, "{:#?}", host.ledger());
    assert_eq!(interrupted[0]["cost_usd"], 0.25, "what was in flight is charged in full");
    let verify =
        Finished::of(host.sentinel(&["ledger", "verify", &host.ledger_path().display().to_string()]));
    assert_eq!(verify.status, Some(0), "{}{}", verify.stdout, verify.stderr);
}

#[test]
fn a_killed_launcher_takes_its_session_with_it() {
    let host = Host::with_policy("strict_mode: true\n");
    let marker = format!("sentinel-orphan-{}", std::process::id());
    let script = format!("import time; print('up', flush=True); time.sleep(60)  # {marker}");
    let mut run = sentinel_tests::Running::start(host.run_command(&[], &["/usr/bin/python3", "-c", &script]));
    run.wait_for_line("up");
    run.kill();
    wait_until("the end of its command", Duration::from_secs(10), || !is_running(&marker));
    wait_until("its ledger line", Duration::from_secs(5), || {
        !host.ledger_of("session.ended", "recorded").is_empty()
    });
}

#[test]
fn a_stopped_agent_leaves_no_session_behind() {
    let host = Host::with_policy("strict_mode: true\n");
    let marker = format!("sentinel-stopped-{}", std::process::id());
    let script = format!("import time; print('up', flush=True); time.sleep(60)  # {marker}");
    let run = sentinel_tests::Running::start(host.run_command(&[], &["/usr/bin/python3", "-c", &script]));
    run.wait_for_line("up");
    drop(host);
    assert!(!is_running(&marker));
    assert_ne!(run.finish().status, Some(0));
}

fn is_running(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("python3") && !line.contains("sentinel\0run") && line.contains(marker)
    })
}
