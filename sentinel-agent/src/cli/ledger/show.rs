//! `sentinel ledger show`: all lines of an action, or one line, whole.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::parts::{Line, each_line};
use super::pretty::pretty;
use super::{LedgerCommandError, tell};

/// The fewest characters that stand for an id.
const LEAST_OF_ID: usize = 6;

/// What `sentinel ledger show` is called with.
#[derive(Debug, clap::Args)]
pub struct ShowArguments {
    /// The action's id (its beginning is enough, from 6 characters on), or a line's number
    #[arg(value_name = "ID|SEQ")]
    wanted: String,
    /// The ledger; without it the shared agent's, else the private one that was written last
    pub(super) file: Option<PathBuf>,
}

pub(super) fn show(path: &Path, arguments: &ShowArguments) -> Result<ExitCode, LedgerCommandError> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    let seen = write(path, &arguments.wanted, &mut stdout)?;
    stdout.flush()?;
    if seen.shown == 0 {
        let wanted = &arguments.wanted;
        tell(&format!(
            "no line of `{}` has the id or number `{wanted}`; write at least {LEAST_OF_ID} characters of an id, or see `sentinel ledger tail`",
            path.display()
        ));
    }
    Ok(ExitCode::from(u8::from(seen.shown == 0 || seen.damaged > 0)))
}

#[derive(Debug, PartialEq, Eq)]
struct Shown {
    shown: u64,
    damaged: u64,
}

fn write(path: &Path, wanted: &str, out: &mut impl Write) -> Result<Shown, LedgerCommandError> {
    let mut shown: u64 = 0;
    let damaged = each_line(path, |line| {
        if matches(line, wanted) {
            shown = shown.saturating_add(1);
            out.write_all(pretty(&String::from_utf8_lossy(line.text)).as_bytes())?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Shown { shown, damaged })
}

fn matches(line: &Line<'_>, wanted: &str) -> bool {
    let is_id = wanted.len() >= LEAST_OF_ID && line.string("id").starts_with(&wanted.to_ascii_lowercase());
    is_id || line.number("seq").is_some_and(|seq| wanted.parse() == Ok(seq))
}

#[cfg(test)]
mod tests {
    use super::super::parts::tests::Folder;
    use super::*;

    const FIRST: &str = "{\"id\":\"aaaaaaaa-1\",\"action\":\"a\",\"outcome\":\"started\",\"payload\":{\"inputs\":1e999},\"seq\":1}\n";
    const SECOND: &str = "{\"id\":\"bbbbbbbb-1\",\"action\":\"b\",\"outcome\":\"blocked\",\"seq\":2}\n";
    const THIRD: &str = "{\"id\":\"aaaaaaaa-1\",\"action\":\"a\",\"outcome\":\"success\",\"payload\":{\"outputs\":\"\u{9b}2J\"},\"seq\":3}\n";

    fn shown(name: &str, wanted: &str) -> String {
        let folder = Folder::new(name).with(Some(1), format!("{FIRST}{SECOND}")).with(None, THIRD);
        let mut out = Vec::new();
        write(&folder.ledger(), wanted, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_action_is_shown_with_all_its_lines_whole_and_safe_on_a_terminal() {
        for wanted in ["aaaaaaaa-1", "aaaaaa", "AAAAAAAA"] {
            let shown = shown("show-id", wanted);
            for part in ["\"started\"", "\"success\"", "\"inputs\": 1e999", "\\u{9b}2J"] {
                assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
            }
            assert!(!shown.contains("blocked") && !shown.contains('\u{9b}'), "{shown}");
        }
    }

    #[test]
    fn a_line_is_shown_by_its_number_and_too_little_of_an_id_shows_nothing() {
        let one = shown("show-seq", "2");
        assert!(one.contains("blocked") && !one.contains("started"), "{one}");
        assert_eq!(shown("show-short", "aaaaa"), "");
        assert_eq!(shown("show-none", "cccccccc"), "");
    }
}
