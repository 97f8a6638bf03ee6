//! `sentinel why`: everything about one refusal, from the ledger.

mod counters;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use sentinel_proto::{Denial, Reason, RulePlace};
use serde_json::Value;

use super::terminal::visible;
use counters::Counters;

/// Where a shared agent keeps its ledger.
const SHARED: &str = "/var/lib/agent-sentinel/ledger.jsonl";
/// Below which private agents keep theirs: a folder each.
const PRIVATE: [&str; 2] = ["/var/lib/agent-sentinel/private", "/var/lib/agent-sentinel/named"];
/// A line longer than this is none of ours.
const MOST_LINE_BYTES: u64 = 64 << 20;
/// The fewest characters that stand for an id.
const LEAST_OF_ID: usize = 6;

/// What `sentinel why` is called with.
#[derive(Debug, clap::Args)]
pub struct WhyArguments {
    /// The id that the refusal was printed with (its beginning is enough), a line's number, or `last`.
    #[arg(value_name = "ID|last")]
    pub id: String,
    /// The ledger. Without it: the shared agent's, else the private agents' that was written last.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
enum WhyError {
    #[error("cannot read the ledger `{}`: {source}; name another with --ledger, or use sudo", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("no ledger is at `{SHARED}` or below `{}`; name it with --ledger", PRIVATE[0])]
    NoLedger,
    #[error("line {line} of `{}` is no ledger line; `sentinel ledger verify` tells more", path.display())]
    Malformed { path: PathBuf, line: u64 },
    #[error("nothing in `{}` has the id `{id}`; `sentinel ledger tail` shows the latest lines", path.display())]
    NotFound { path: PathBuf, id: String },
    #[error("nothing was refused by `{}`", path.display())]
    NothingRefused { path: PathBuf },
    #[error(
        "`{0}` is too short to stand for one id; write at least {LEAST_OF_ID} characters of it, or `last`"
    )]
    TooShort(String),
}

/// Prints it. Exit status 1: there is nothing of that id; 66: the ledger can't be read.
#[must_use]
pub fn why(arguments: &WhyArguments) -> ExitCode {
    let told = default_ledger(arguments.ledger.as_deref()).and_then(|path| explain(&path, &arguments.id));
    match told {
        Ok(text) => {
            let _closed = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _closed = writeln!(io::stderr(), "sentinel: {}", visible(&error.to_string()));
            ExitCode::from(match error {
                WhyError::NotFound { .. } | WhyError::NothingRefused { .. } | WhyError::TooShort(_) => 1,
                WhyError::Unreadable { .. } | WhyError::NoLedger | WhyError::Malformed { .. } => 66,
            })
        }
    }
}

/// The ledger that was named, else the shared agent's, else the private one that was written last; none: there is none.
#[must_use]
pub fn ledger_path(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    let shared = PathBuf::from(SHARED);
    if shared.exists() {
        return Some(shared);
    }
    let folders = PRIVATE.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let ledgers = folders.map(|folder| folder.path().join("ledger.jsonl"));
    let written = |path: &PathBuf| path.metadata().and_then(|found| found.modified()).ok();
    let dated = ledgers.filter_map(|path| written(&path).map(|at| (at, path)));
    dated.max_by_key(|(at, _): &(SystemTime, PathBuf)| *at).map(|(_, path)| path)
}

fn default_ledger(given: Option<&Path>) -> Result<PathBuf, WhyError> {
    ledger_path(given).ok_or(WhyError::NoLedger)
}

fn explain(path: &Path, id: &str) -> Result<String, WhyError> {
    if id != "last" && id.len() < LEAST_OF_ID && id.parse::<u64>().is_err() {
        return Err(WhyError::TooShort(id.to_owned()));
    }
    let unreadable = |source| WhyError::Unreadable { path: path.to_owned(), source };
    // All parts as one, oldest first. One that can't be read is told by the last, which has to be there.
    let last = File::open(path).map_err(unreadable)?;
    let older = sentinel_ledger::segments(path).map_err(unreadable)?;
    let older = older.into_iter().filter(|part| part != path).filter_map(|part| File::open(part).ok());
    let nothing: Box<dyn Read> = Box::new(std::io::empty());
    let all = older.chain([last]).fold(nothing, |before, part| Box::new(before.chain(part)));
    let mut reader = BufReader::new(all);
    let (mut counters, mut found) = (Counters::default(), None);
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        let read = reader.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', &mut text).map_err(unreadable)?;
        // A line without an end is being written just now.
        if read == 0 || text.last() != Some(&b'\n') {
            break;
        }
        // Without its payload, which is whatever an application sent.
        let line = sentinel_authority::particulars(&text)
            .map_err(|_not_json| WhyError::Malformed { path: path.to_owned(), line: number })?;
        counters.count(&line);
        let is_it = if id == "last" { is_refusal(&line) } else { matches(&line, id) };
        if is_it {
            let seq = line.get("seq").and_then(Value::as_u64).unwrap_or(number);
            found = Some(rendered(&line, &counters, path, seq));
        }
    }
    found.ok_or_else(|| {
        if id == "last" {
            WhyError::NothingRefused { path: path.to_owned() }
        } else {
            WhyError::NotFound { path: path.to_owned(), id: id.to_owned() }
        }
    })
}

fn is_refusal(line: &Value) -> bool {
    string(line, "outcome") == "blocked"
        || (string(line, "kind") == "kernel" && !string(line, "operation").is_empty())
}

fn matches(line: &Value, id: &str) -> bool {
    string(line, "id").starts_with(id)
        || line.get("seq").and_then(Value::as_u64).is_some_and(|seq| id.parse() == Ok(seq))
}

fn string<'l>(line: &'l Value, key: &str) -> &'l str {
    line.get(key).and_then(Value::as_str).unwrap_or("")
}

fn rendered(line: &Value, counters: &Counters, path: &Path, number: u64) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            let _infallible = writeln!(text, "{name:<11}{}", visible(value));
        }
    };
    if string(line, "kind") == "kernel" {
        row("what", &format!("{} {}", string(line, "operation"), string(line, "target")));
        row("fate", &format!("{} by the kernel", string(line, "fate")));
        row("verdict", &verdict(string(line, "verdict")));
        let pid = line.get("pid").map(ToString::to_string).unwrap_or_default();
        row("process", &format!("{} (pid {pid})", string(line, "process")));
        let count = line.get("count").and_then(Value::as_u64).unwrap_or(1);
        if count > 1 {
            row("repeated", &format!("{count} times since it was written before"));
        }
    } else {
        row("action", string(line, "action"));
        row("outcome", string(line, "outcome"));
        if let Some(denial) = denial(line) {
            row("reason", &format!("{} ({})", denial.reason, denial.reason.code()));
            if let Some(RulePlace { rule, line }) = &denial.rule {
                row("rule", &format!("`{rule}`, line {line} of the policy"));
            }
            row("way out", &denial.reason.way_out());
        }
    }
    row("session", &format!("{}, {}", string(line, "session"), counters.of(line)));
    row("when", string(line, "timestamp"));
    row("id", string(line, "id"));
    row("ledger", &format!("line {number} of {}", path.display()));
    match line.get("would_allow").and_then(Value::as_str) {
        Some(yaml) => {
            text.push_str("the policy would allow it with\n");
            for line in yaml.lines() {
                let _infallible = writeln!(text, "  {}", visible(line));
            }
        }
        None if string(line, "kind") == "kernel" => text.push_str("no policy would allow it\n"),
        None => {}
    }
    text
}

fn denial(line: &Value) -> Option<Denial> {
    let reason: Reason = serde_json::from_value(line.get("reason")?.clone()).ok()?;
    let rule = line.get("rule").and_then(|rule| serde_json::from_value(rule.clone()).ok());
    Some(Denial { reason, rule })
}

/// A verdict's name, in words.
fn verdict(name: &str) -> String {
    let words = match name {
        "no_rule" => "no rule of the policy names it",
        "door_closed" => "a rule names it, but only for actions that were not in flight here",
        "heartbeat_stale" => "a rule names it, but the agent was not there to keep its doors open",
        "no_storage" => "the socket was not created in the session",
        "no_session" => "its session is not known",
        "surface" => "sockets of this kind are never allowed",
        "failed" => "something could not be read or stored",
        "foreign_task" => "its session is not the socket's",
        "not_tls" => {
            "under `tls_names: enforce` a connection to a host begins with a TLS ClientHello, and this one doesn't"
        }
        "cut_client_hello" => {
            "its TLS ClientHello didn't come whole in one record and packet, so it can't be judged"
        }
        "no_server_name" => "its TLS ClientHello names no server, or several",
        "encrypted_client_hello" => {
            "its TLS ClientHello hides the server, or seems to (ECH); switch that off in the program"
        }
        "server_name" => {
            "the server that its TLS ClientHello asks for is in no rule that let the connection go"
        }
        "unsteady_client_hello" => {
            "its TLS ClientHello was sent so that another could arrive: with urgent data, or from memory that the program can still write"
        }
        _ => return name.to_owned(),
    };
    format!("{words} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = concat!(
        r#"{"id":"aaaaaaaa-1","timestamp":"t1","action":"search","cost_usd":0.5,"outcome":"success","kind":"action","session":"s1","session_id":1,"seq":1}"#,
        "\n",
        r#"{"id":"bbbbbbbb-2","timestamp":"t2","action":"drop","cost_usd":0,"outcome":"blocked","kind":"action","session":"s1","session_id":1,"reason":{"code":"DENIED_ACTION"},"rule":{"rule":"denied_actions","line":4},"seq":2}"#,
        "\n",
        r#"{"id":"cccccccc-3","timestamp":"t3","action":"kernel.connect","cost_usd":0,"outcome":"recorded","kind":"kernel","session":"s1","session_id":1,"operation":"connect","target":"192.0.2.1:443/tcp\u001b[2J","verdict":"no_rule","fate":"refused","process":"curl","pid":7,"count":3,"would_allow":"enforcement:\n  network: {}","seq":3}"#,
        "\n",
    );

    fn ledger(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sentinel-why-{}-{name}.jsonl", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_last_refusal_is_told_with_its_verdict_and_the_policy_that_would_allow_it() {
        let path = ledger("last", LEDGER);
        let told = explain(&path, "last").unwrap();
        for part in [
            "connect 192.0.2.1:443/tcp\\u{1b}[2J",
            "no rule of the policy",
            "curl (pid 7)",
            "3 times",
            "  network: {}",
            "line 3 of",
        ] {
            assert!(told.contains(part), "`{part}` is missing in:\n{told}");
        }
        assert!(!told.contains('\u{1b}'));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_denied_action_is_found_by_the_beginning_of_its_id_and_told_with_rule_and_counters() {
        let path = ledger("id", LEDGER);
        let told = explain(&path, "bbbbbbbb").unwrap();
        for part in [
            "DENIED_ACTION",
            "`denied_actions`, line 4 of the policy",
            "spent 0.5 USD",
            "1 allowed, 1 denied",
        ] {
            assert!(told.contains(part), "`{part}` is missing in:\n{told}");
        }
        assert_eq!(told, explain(&path, "2").unwrap(), "and by its number");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_not_there_is_an_error_that_says_where_was_looked() {
        let path = ledger("missing", LEDGER);
        assert!(matches!(explain(&path, "dddddddd"), Err(WhyError::NotFound { .. })));
        assert!(matches!(explain(&path, "aa"), Err(WhyError::TooShort(_))));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(explain(&path, "last"), Err(WhyError::NothingRefused { .. })));
        std::fs::write(&path, "no json\n").unwrap();
        assert!(matches!(explain(&path, "last"), Err(WhyError::Malformed { line: 1, .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(explain(&path, "last").unwrap_err().to_string().contains("--ledger"));
    }
}
