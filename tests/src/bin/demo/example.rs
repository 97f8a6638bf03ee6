//! The research agent and the rogue script, under the research agent's own policy.

use std::path::Path;

use sentinel_tests::{Finished, Host, Server, program};

use crate::table::Row;

const POLICY: &str = include_str!("../../../../sentinel-sdk/examples/research_agent/policy.yaml");
const ROGUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sentinel-sdk/examples/research_agent/rogue.py");

/// An agent with the example's policy, which names the page's server.
fn host(page: &Server) -> Host {
    Host::with_policy(POLICY.replace("127.0.0.1:8080", &page.address().to_string()))
}

/// What came of an attempt: the rest of the line that begins so.
fn printed(finished: &Finished, tried: &str) -> String {
    let found = finished.lines().into_iter().find_map(|line| line.strip_prefix(tried)?.strip_prefix(": "));
    let happened =
        found.map_or_else(|| format!("nothing: {}{}", finished.stdout, finished.stderr), str::to_owned);
    // The reason is one sentence, the way out another.
    let happened = happened.split(" (`").next().unwrap_or(&happened).to_owned();
    match happened.as_str() {
        "Operation not permitted (os error 1)" => "refused (EPERM)".to_owned(),
        _ => happened.trim_start_matches("action `delete_database` ").to_owned(),
    }
}

fn line(host: &Host, action: &str, outcome: &str, nth: usize) -> Option<u64> {
    host.ledger_of(action, outcome).get(nth).and_then(|line| line["seq"].as_u64())
}

pub(crate) fn research_agent(page: &Server) -> Vec<Row> {
    let host = host(page);
    let agent = program("research_agent").display().to_string();
    let finished = host.run(&[&agent, &page.address().to_string()]);
    let bytes = sentinel_tests::PAGE.len();
    let words = sentinel_tests::PAGE.split_whitespace().count();
    let refused = line(&host, "kernel.connect", "recorded", 0);
    let row = |tried: &str, printed_as: &str, expected: String, stopped_by, ledger_line| Row {
        tried: tried.to_owned(),
        happened: printed(&finished, printed_as),
        expected,
        stopped_by,
        ledger_line,
    };
    let started = |action| line(&host, action, "started", 0);
    vec![
        row(
            "it fetches without asking",
            "fetch without asking",
            "refused (EPERM)".to_owned(),
            "kernel",
            refused,
        ),
        row("fetch_page", "fetch_page", format!("{bytes} bytes"), "-", started("fetch_page")),
        row(
            "summarise",
            "summarise",
            "Sentinel decides before an agent acts.".to_owned(),
            "-",
            started("summarise"),
        ),
        row("count_words, with /usr/bin/wc", "count_words", words.to_string(), "-", started("count_words")),
        row(
            "delete_database",
            "delete_database",
            "denied: it stands in `denied_actions`".to_owned(),
            "agent, SDK",
            line(&host, "delete_database", "blocked", 0),
        ),
        row(
            "it fetches without asking, again",
            "fetch without asking, again",
            "refused (EPERM)".to_owned(),
            "kernel",
            refused,
        ),
        row(
            "what it has spent",
            "spent",
            "0.012 dollars".to_owned(),
            "-",
            line(&host, "summarise", "success", 0),
        ),
    ]
}

pub(crate) fn rogue(page: &Server) -> Vec<Row> {
    let host = host(page);
    // Sessions see no folder of root's: the script goes where any uid may read.
    let script = host.folder.join("rogue.py");
    let copied = std::fs::copy(Path::new(ROGUE), &script).map_err(|error| error.to_string());
    let finished =
        host.run(&["/usr/bin/python3", &script.display().to_string(), &page.address().to_string()]);
    let eperm = "refused (EPERM)";
    let attempts = [
        ("connect", eperm, "kernel", line(&host, "kernel.connect", "recorded", 0)),
        ("connect in a setsid child", eperm, "kernel", line(&host, "kernel.connect", "recorded", 0)),
        ("connect over IPv6 to the same", eperm, "kernel", line(&host, "kernel.connect", "recorded", 0)),
        ("send a datagram", eperm, "kernel", line(&host, "kernel.sendmsg", "recorded", 0)),
        ("open a raw socket", eperm, "kernel", None),
        ("open a packet socket", "refused (EAFNOSUPPORT)", "kernel", None),
        ("leave the cgroup", "refused (EROFS)", "kernel", None),
        ("make a network namespace", eperm, "kernel", None),
        ("run /usr/bin/wc", "killed", "kernel", line(&host, "kernel.exec", "recorded", 0)),
        ("run /bin/sh", "killed", "kernel", line(&host, "kernel.exec", "recorded", 1)),
    ];
    let row = |(tried, expected, stopped_by, ledger_line): (&str, &str, &'static str, Option<u64>)| Row {
        tried: tried.to_owned(),
        expected: expected.to_owned(),
        happened: copied.as_ref().map_or_else(Clone::clone, |_bytes| printed(&finished, tried)),
        stopped_by,
        ledger_line,
    };
    attempts.into_iter().map(row).collect()
}
