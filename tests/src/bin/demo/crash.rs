//! The agent is killed while an action is in flight.

use std::time::{Duration, Instant};

use sentinel_tests::{Host, Server, wait_until};

use crate::table::Row;

/// How long the never-granted address is tried, from before the kill on.
const PROBING: Duration = Duration::from_secs(30);

/// Tries the granted address now and then and the other one without pause; prints a line when something changes.
const SCRIPT: &str = r"
import socket, sys, time
def reached(port):
    # A connect that the door shuts on is not refused but gets no answer: so not long.
    try: socket.create_connection(('127.0.0.1', port), 0.5).close(); return True
    except OSError: return False
granted, never = GRANTED, NEVER
start = time.monotonic(); tries = hits = 0; closed = False
print('ready', flush=True)
while time.monotonic() - start < float(sys.argv[1]):
    tries += 1
    hits += reached(never)
    if tries % 50 == 0 and not closed and not reached(granted):
        closed = True; print('closed', flush=True)
print('over', tries, hits, 'open again' if reached(granted) else 'still closed', flush=True)
";

pub(crate) fn killed_agent(page: &Server, never: &Server) -> Vec<Row> {
    let mut host = Host::with_policy(format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"], exec: [/usr/bin/python3.11]}}}}\n",
        page.address()
    ));
    let script = SCRIPT
        .replace("GRANTED", &page.address().port().to_string())
        .replace("NEVER", &never.address().port().to_string());
    let probe = host.start_probe(&["begin=fetch", &format!("python={script}")]);
    probe.wait_for_line("ready");
    std::thread::sleep(Duration::from_secs(2));
    let before = if probe.stdout().contains("closed") { "closed" } else { "open" };
    let started = host.ledger_of("fetch", "started").first().and_then(|line| line["seq"].as_u64());
    host.kill_agent();
    let killed = Instant::now();
    wait_until(&format!("the door closes: {}", probe.stdout()), Duration::from_secs(20), || {
        probe.stdout().contains("closed")
    });
    let after = killed.elapsed();
    wait_until("the probing ends", PROBING + Duration::from_secs(20), || probe.stdout().contains("over"));
    let stdout = probe.stdout();
    let over: Vec<&str> =
        stdout.lines().find(|line| line.starts_with("over")).unwrap_or_default().split(' ').collect();
    let (tries, hits) = (over.get(1).copied().unwrap_or("?"), over.get(2).copied().unwrap_or("?"));
    let row = |tried: String, expected: &str, happened: String, stopped_by, ledger_line| Row {
        tried,
        expected: expected.to_owned(),
        happened,
        stopped_by,
        ledger_line,
    };
    let in_time =
        if after < Duration::from_secs(6) { "within 5 s".to_owned() } else { format!("after {after:.1?}") };
    vec![
        row("the action's door, just before".to_owned(), "open", before.to_owned(), "-", started),
        // The probing looks at the door now and then, so a second is allowed for looking.
        row(
            format!("the action's door closes ({:.1} s)", after.as_secs_f64()),
            "within 5 s",
            in_time,
            "kernel",
            None,
        ),
        row(
            "and stays so".to_owned(),
            "still closed",
            over.get(3..).unwrap_or_default().join(" "),
            "kernel",
            None,
        ),
        row(
            format!("a never-granted address, tried {tries} times in 30 s"),
            "reached 0 times",
            format!("reached {hits} times"),
            "kernel",
            None,
        ),
    ]
}
