//! `sentinel ledger`: reads a ledger, whole or its end. Changes nothing.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sentinel_ledger::{Follow, VerifyError, last_lines, verify};
use serde_json::Value;

use super::terminal::visible;
use super::why::ledger_path;

/// How often `--follow` looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `sentinel ledger …`.
#[derive(Debug, clap::Subcommand)]
pub enum LedgerCommand {
    /// Says whether the chain is whole: no line changed, removed or put in. Exit status 1: it is not
    Verify {
        /// The ledger; without it the shared agent's, else the private one that was written last
        file: Option<PathBuf>,
    },
    /// Shows the last lines in words
    Tail {
        /// The ledger; without it the shared agent's, else the private one that was written last
        file: Option<PathBuf>,
        /// How many
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: usize,
        /// Goes on as lines come
        #[arg(short, long)]
        follow: bool,
    },
}

/// Carries the command out. Exit status 66: the ledger can't be read.
#[must_use]
pub fn carry_out(command: &LedgerCommand) -> ExitCode {
    let (LedgerCommand::Verify { file } | LedgerCommand::Tail { file, .. }) = command;
    let Some(path) = ledger_path(file.as_deref()) else {
        return failed("there is no ledger yet; name the file");
    };
    match command {
        LedgerCommand::Verify { .. } => check(&path),
        LedgerCommand::Tail { lines, follow, .. } => match tail(&path, *lines, *follow) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                failed(&format!("cannot read `{}`: {error}; use sudo, or name another", path.display()))
            }
            Ok(()) => ExitCode::SUCCESS,
        },
    }
}

fn failed(message: &str) -> ExitCode {
    let _closed = writeln!(io::stderr(), "sentinel: {}", visible(message));
    ExitCode::from(66)
}

fn check(path: &Path) -> ExitCode {
    let shown = visible(&path.display().to_string());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            return failed(&format!("cannot read `{}`: {error}; use sudo, or name another", path.display()));
        }
    };
    match verify(BufReader::new(file), None) {
        Ok(whole) => {
            let head = whole.head;
            let _closed = writeln!(io::stdout(), "{shown}: whole, {} lines, hash {}", head.seq, head.hash);
            ExitCode::SUCCESS
        }
        Err(VerifyError::Unreadable(error)) => failed(&format!("cannot read `{}`: {error}", path.display())),
        Err(broken) => {
            let _closed =
                writeln!(io::stderr(), "sentinel: {shown}: NOT whole: {}", visible(&broken.to_string()));
            ExitCode::from(1)
        }
    }
}

fn tail(path: &Path, lines: usize, follow: bool) -> io::Result<()> {
    let mut following = if follow { Some(Follow::from_end(path)?) } else { None };
    let mut stdout = io::stdout().lock();
    for line in last_lines(path, lines)? {
        stdout.write_all(in_words(&line).as_bytes())?;
    }
    while let Some(following) = &mut following {
        for line in following.new_lines()? {
            stdout.write_all(in_words(&line).as_bytes())?;
        }
        stdout.flush()?;
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// A ledger line as a person reads it: number, time, session, what, how it went, and the particulars of its kind.
fn in_words(line: &[u8]) -> String {
    // Without its payload, which is whatever an application sent.
    let Ok(line) = sentinel_authority::particulars(line) else {
        return "(a line that is no JSON; `sentinel ledger verify` tells more)\n".to_owned();
    };
    let text = |key: &str| line.get(key).and_then(Value::as_str).map(visible).unwrap_or_default();
    let number = |key: &str| line.get(key).and_then(Value::as_f64).filter(|number| *number != 0.0);
    let seq = line.get("seq").and_then(Value::as_u64).unwrap_or(0);
    let session = if text("session").is_empty() { "-".to_owned() } else { text("session") };
    let mut words = format!("{seq:>6}  {}  {session:<10} {}", text("timestamp"), text("action"));
    let mut add = |word: &str| {
        if !word.is_empty() {
            let _infallible = write!(words, "  {word}");
        }
    };
    if text("outcome") != "recorded" {
        add(&text("outcome"));
    }
    add(&text("target"));
    if !text("process").is_empty() {
        let pid = line.get("pid").and_then(Value::as_u64).unwrap_or(0);
        add(&format!("by {} (pid {pid})", text("process")));
    }
    add(&text("fate"));
    add(&text("verdict"));
    if let Some(code) = line.get("reason").and_then(|reason| reason.get("code")).and_then(Value::as_str) {
        add(&visible(code));
    }
    if let Some(reserved) = number("reserved_usd") {
        add(&format!("reserved {reserved} USD"));
    }
    if let Some(cost) = number("cost_usd") {
        add(&format!("{cost} USD"));
    }
    if let Some(count) = line.get("count").and_then(Value::as_u64).filter(|count| *count > 1) {
        add(&format!("x{count}"));
    }
    words.push('\n');
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_in_words_and_never_raw() {
        let action = r#"{"timestamp":"t","action":"fetch\u001b[2J","cost_usd":0.01,"outcome":"success","kind":"action","session":"s1","seq":7}"#;
        assert_eq!(in_words(action.as_bytes()), "     7  t  s1         fetch\\u{1b}[2J  success  0.01 USD\n");
        let kernel = r#"{"timestamp":"t","action":"kernel.connect","cost_usd":0,"outcome":"recorded","kind":"kernel","session":"s1","target":"192.0.2.1:443/tcp","verdict":"no_rule","fate":"refused","process":"curl","pid":9,"count":3,"seq":8}"#;
        assert_eq!(
            in_words(kernel.as_bytes()),
            "     8  t  s1         kernel.connect  192.0.2.1:443/tcp  by curl (pid 9)  refused  no_rule  x3\n"
        );
        assert!(in_words(b"garbage").contains("no JSON"));
    }
}
