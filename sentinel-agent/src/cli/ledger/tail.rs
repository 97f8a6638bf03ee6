//! `sentinel ledger tail`: the last lines in words, and those that come.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sentinel_ledger::{Follow, last_lines};

use super::LedgerCommandError;
use super::words::in_words;

/// How often `--follow` looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) fn tail(path: &Path, lines: usize, follow: bool) -> Result<ExitCode, LedgerCommandError> {
    let unreadable = |source| LedgerCommandError::Unreadable { path: path.to_owned(), source };
    let mut following = if follow { Some(Follow::from_end(path).map_err(unreadable)?) } else { None };
    let mut stdout = io::stdout().lock();
    for line in last_lines(path, lines).map_err(unreadable)? {
        stdout.write_all(told(&line).as_bytes())?;
    }
    while let Some(following) = &mut following {
        for line in following.new_lines().map_err(unreadable)? {
            stdout.write_all(told(&line).as_bytes())?;
        }
        stdout.flush()?;
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(ExitCode::SUCCESS)
}

fn told(line: &[u8]) -> String {
    // Without its payload, which is whatever an application sent.
    sentinel_authority::particulars(line).map_or_else(
        |_no_line| "(a line that is no JSON; `sentinel ledger verify` tells more)\n".to_owned(),
        |line| in_words(&line),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_none_is_told_all_the_same() {
        assert!(told(b"garbage").contains("no JSON"));
        assert!(told(br#"{"action":"fetch","payload":{"inputs":1e999}}"#).contains("fetch"));
    }
}
