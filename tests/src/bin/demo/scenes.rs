//! The scenes that `probe` plays: each runs a session and turns what it printed into rows.

use sentinel_tests::{Finished, Host, Server, first_syscall_writer};

use crate::table::Row;

/// The ledger's line of this action or kernel operation, the `nth` of them.
fn line(host: &Host, action: &str, outcome: &str, nth: usize) -> Option<u64> {
    host.ledger_of(action, outcome).get(nth).and_then(|line| line["seq"].as_u64())
}

/// Turns the result of a step into words: `connect=… ok` into `succeeds`.
pub(crate) fn words(line: &str) -> String {
    let result = line.split_once(' ').map_or("nothing was printed", |(_, result)| result);
    match result {
        "ok" => "succeeds".to_owned(),
        "EPERM" => "refused (EPERM)".to_owned(),
        "allow" => "may run".to_owned(),
        "signal: 9 (SIGKILL)" => "killed".to_owned(),
        other => other.replace("deny ", "denied: "),
    }
}

fn row(
    tried: &str,
    expected: &str,
    happened: String,
    stopped_by: &'static str,
    ledger_line: Option<u64>,
) -> Row {
    Row { tried: tried.to_owned(), expected: expected.to_owned(), happened, stopped_by, ledger_line }
}

fn fetch_policy(server: &Server) -> String {
    format!("actions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n", server.address())
}

/// The printed line number `nth`, in words.
fn printed(finished: &Finished, nth: usize) -> String {
    finished
        .lines()
        .get(nth)
        .map_or_else(|| format!("nothing: {}", finished.stderr.trim()), |line| words(line))
}

pub(crate) fn before_inside_after(page: &Server) -> Vec<Row> {
    let host = Host::with_policy(fetch_policy(page));
    let connect = format!("connect={}", page.address());
    let probe = host.probe(&[&connect, "begin=fetch", &connect, "end", &connect]);
    vec![
        row(
            "connect, right before",
            "refused (EPERM)",
            printed(&probe, 0),
            "kernel",
            line(&host, "kernel.connect", "recorded", 0),
        ),
        row(
            "connect, inside the action",
            "succeeds",
            printed(&probe, 2),
            "-",
            line(&host, "fetch", "started", 0),
        ),
        row(
            "connect, right after",
            "refused (EPERM)",
            printed(&probe, 4),
            "kernel",
            line(&host, "kernel.connect", "recorded", 0),
        ),
    ]
}

pub(crate) fn money(page: &Server, baseline: &Server) -> Vec<Row> {
    let mut rows = Vec::new();
    for on_exhausted in ["close", "keep"] {
        let host = Host::with_policy(format!(
            "budgets: {{session: 0.10}}\nactions:\n  fetch: {{cost_usd: 0.05, grants: {{network: [\"{}\"]}}}}\nenforcement: {{on_exhausted: {on_exhausted}, network: {{allow: [\"{}\"]}}}}\n",
            page.address(),
            baseline.address()
        ));
        let (fetch, always) =
            (format!("connect={}", page.address()), format!("connect={}", baseline.address()));
        let probe = host.probe(&[
            &always,
            "begin=fetch",
            &fetch,
            "end",
            "begin=fetch",
            &fetch,
            "end",
            "begin=fetch",
            &fetch,
            &always,
        ]);
        if on_exhausted == "close" {
            let started = line(&host, "fetch", "started", 1);
            let refused = line(&host, "kernel.connect", "recorded", 0);
            rows.push(row("fetch with the last 5 cents", "succeeds", printed(&probe, 5), "-", started));
            rows.push(row(
                "begin the same once more",
                "denied: BUDGET_EXCEEDED",
                printed(&probe, 7),
                "agent",
                line(&host, "fetch", "blocked", 0),
            ));
            rows.push(row("connect all the same", "refused (EPERM)", printed(&probe, 8), "kernel", refused));
            rows.push(row("the always-open address, before", "succeeds", printed(&probe, 0), "-", None));
            rows.push(row(
                "the always-open address, after (on_exhausted: close)",
                "refused (EPERM)",
                printed(&probe, 9),
                "kernel",
                line(&host, "kernel.connect", "recorded", 1),
            ));
        } else {
            rows.push(row(
                "the always-open address, after (on_exhausted: keep)",
                "succeeds",
                printed(&probe, 9),
                "-",
                None,
            ));
        }
    }
    rows
}

pub(crate) fn forbidden_code() -> Vec<Row> {
    let host = Host::with_policy("denied_actions: [delete_database]\n");
    let probe = host.probe(&["begin=delete_database"]);
    let mut rows = vec![row(
        "the body of a denied action",
        "denied: DENIED_ACTION",
        printed(&probe, 0),
        "SDK, agent",
        line(&host, "delete_database", "blocked", 0),
    )];

    let writer = first_syscall_writer();
    let path = writer.display();
    let script = format!("import os\nif os.fork() == 0: os.execv('{path}', ['writer'])\nos.wait()\n");
    for (policy, expected) in [
        ("strict_mode: true\n".to_owned(), "0 bytes"),
        (format!("enforcement: {{exec: {{allow: [{path}]}}}}\n"), "1 bytes"),
    ] {
        let host = Host::with_policy(policy);
        let finished = host.run(&["/usr/bin/python3", "-c", &script]);
        let happened = format!("{} bytes", finished.stdout.len());
        if expected == "0 bytes" {
            rows.push(row(
                "a forbidden program's first syscall, a write",
                expected,
                happened,
                "kernel",
                line(&host, "kernel.exec", "recorded", 0),
            ));
        } else {
            rows.push(row("the same program, when the policy names it", expected, happened, "-", None));
        }
    }
    drop(std::fs::remove_file(writer));
    rows
}

pub(crate) fn family(page: &Server) -> Vec<Row> {
    let host = Host::with_policy(fetch_policy(page));
    let connect = format!("connect={}", page.address());
    let probe = host.probe(&[
        "fork",
        &connect,
        "join",
        "setsid",
        &connect,
        "join",
        "begin=fetch",
        "fork",
        &connect,
        "join",
        "end",
    ]);
    let refused = line(&host, "kernel.connect", "recorded", 0);
    let mut rows = vec![
        row("a child connects", "refused (EPERM)", printed(&probe, 0), "kernel", refused),
        row(
            "a grandchild of its own session (setsid) connects",
            "refused (EPERM)",
            printed(&probe, 1),
            "kernel",
            refused,
        ),
        row(
            "a child forked inside the action connects",
            "succeeds",
            printed(&probe, 3),
            "-",
            line(&host, "fetch", "started", 0),
        ),
    ];

    let host = Host::with_policy(fetch_policy(page));
    let folder = host.folder.join("shared");
    drop(std::fs::create_dir(&folder));
    drop(std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)));
    let (open, tried) =
        (folder.join("open").display().to_string(), folder.join("tried").display().to_string());
    let (await_open, touch_open) = (format!("await={open}"), format!("touch={open}"));
    let (await_tried, touch_tried) = (format!("await={tried}"), format!("touch={tried}"));
    let probe = host.probe(&[
        "spawn",
        &await_open,
        &connect,
        &touch_tried,
        "done",
        "begin=fetch",
        &touch_open,
        &await_tried,
        &connect,
        "end",
    ]);
    let connects: Vec<String> =
        probe.lines().iter().filter(|line| line.starts_with(&connect)).map(|line| words(line)).collect();
    let nth = |nth: usize| connects.get(nth).cloned().unwrap_or_else(|| probe.stderr.clone());
    rows.push(row(
        "a sibling connects while another's action is in flight",
        "refused (EPERM)",
        nth(0),
        "kernel",
        line(&host, "kernel.connect", "recorded", 0),
    ));
    rows.push(row(
        "the one whose action it is connects",
        "succeeds",
        nth(1),
        "-",
        line(&host, "fetch", "started", 0),
    ));
    rows
}

pub(crate) fn curl(page: &Server) -> Vec<Row> {
    let url = format!("http://{}/", page.address());
    let curl = ["/usr/bin/curl", "--silent", "--show-error", &url];
    let word = |finished: &Finished| match (finished.status, finished.stdout.contains("Sentinel decides")) {
        (Some(0), true) => "prints the page".to_owned(),
        (Some(7), false) => "could not connect".to_owned(),
        _ => format!("exit {:?}: {}", finished.status, finished.stderr.trim()),
    };
    let closed = Host::with_policy("strict_mode: true\n");
    let without = closed.run(&curl);
    let open = Host::with_policy(format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", page.address()));
    let with = open.run(&curl);
    vec![
        row(
            "curl, without the rule",
            "could not connect",
            word(&without),
            "kernel",
            line(&closed, "kernel.connect", "recorded", 0),
        ),
        row(
            "curl, with the rule",
            "prints the page",
            word(&with),
            "-",
            line(&open, "session.started", "recorded", 0),
        ),
    ]
}

pub(crate) fn ledger(page: &Server) -> Vec<Row> {
    let host = Host::with_policy(fetch_policy(page));
    drop(host.probe(&["begin=fetch", "end", &format!("connect={}", page.address())]));
    let verify = |path: &std::path::Path| {
        let finished = Finished::of(host.sentinel(&["ledger", "verify", &path.display().to_string()]));
        match finished.status {
            Some(0) => "passes".to_owned(),
            Some(1) => "fails".to_owned(),
            other => format!("exit {other:?}: {}", finished.stderr.trim()),
        }
    };
    let whole = verify(&host.ledger_path());
    let changed = host.folder.join("changed.jsonl");
    let mut bytes = std::fs::read(host.ledger_path()).unwrap_or_default();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte = if *byte == b'x' { b'y' } else { b'x' };
    }
    drop(std::fs::write(&changed, bytes));
    vec![
        row("sentinel ledger verify", "passes", whole, "-", None),
        row("the same after one byte has changed", "fails", verify(&changed), "-", None),
    ]
}
