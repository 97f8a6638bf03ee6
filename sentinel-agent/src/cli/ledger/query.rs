//! `sentinel ledger query`: the lines that match, in words or as they are.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::filter::{Filter, Seen};
use super::parts::Line;
use super::words::in_words;
use super::{LedgerCommandError, tell};
use crate::cli::terminal::visible;

/// What `sentinel ledger query` is called with.
#[derive(Debug, clap::Args)]
pub struct QueryArguments {
    /// The ledger; without it the shared agent's, else the private one that was written last
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// As JSON Lines, as they are written there
    #[arg(long)]
    json: bool,
}

pub(super) fn query(path: &Path, arguments: &QueryArguments) -> Result<ExitCode, LedgerCommandError> {
    let stdout = io::stdout().lock();
    let on_terminal = stdout.is_terminal();
    let mut stdout = BufWriter::new(stdout);
    let seen = arguments.filter.each(path, |line| {
        if arguments.json {
            verbatim(&mut stdout, line, on_terminal)
        } else {
            stdout.write_all(in_words(&line.keys).as_bytes())
        }
    })?;
    stdout.flush()?;
    Ok(concluded(path, seen))
}

/// A line as it is written there; on a terminal without what that would obey.
pub(super) fn verbatim(out: &mut impl Write, line: &Line<'_>, on_terminal: bool) -> io::Result<()> {
    if on_terminal {
        out.write_all(visible(&String::from_utf8_lossy(line.text)).as_bytes())?;
    } else {
        out.write_all(line.text)?;
    }
    out.write_all(b"\n")
}

/// Says so where nothing matched, and answers the exit status.
pub(super) fn concluded(path: &Path, seen: Seen) -> ExitCode {
    if seen.matching == 0 {
        tell(&format!("no line of `{}` matches", path.display()));
    }
    ExitCode::from(u8::from(seen.damaged > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_verbatim_but_where_a_terminal_would_obey_it() {
        let text = "{\"a\":\"\u{9b}2J\u{202e}\",\"b\":1e999}";
        let line = Line { text: text.as_bytes(), keys: serde_json::Value::Null };
        let shown = |on_terminal| {
            let mut out = Vec::new();
            verbatim(&mut out, &line, on_terminal).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(false), format!("{text}\n"));
        assert_eq!(shown(true), "{\"a\":\"\\u{9b}2J\\u{202e}\",\"b\":1e999}\n");
    }
}
