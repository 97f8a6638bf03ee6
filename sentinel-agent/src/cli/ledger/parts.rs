//! Goes through all parts of a ledger, line by line, oldest first.
//!
//! Invariant: no more than one line is in memory; and what is no ledger line is told and left out, never what stands behind it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{LedgerCommandError, tell};

/// A line longer than this is none of ours.
const MOST_LINE_BYTES: u64 = 4 * 1024 * 1024;

/// A line of a ledger.
#[derive(Debug)]
pub(super) struct Line<'text> {
    /// As it is written there, without its line break. It is JSON.
    pub(super) text: &'text [u8],
    /// All its keys but the payload.
    pub(super) keys: Value,
}

impl Line<'_> {
    /// A key's text; empty where it has none.
    pub(super) fn string(&self, key: &str) -> &str {
        self.keys.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.keys.get(key).and_then(Value::as_u64)
    }
}

/// Shows each line, until it is told to stop. Answers how many lines are damaged; each of them is told.
///
/// # Errors
/// A part can't be read, or a line can't be shown.
pub(super) fn each_line(
    path: &Path,
    mut show: impl FnMut(&Line<'_>) -> io::Result<ControlFlow<()>>,
) -> Result<u64, LedgerCommandError> {
    let parts =
        open(path).map_err(|source| LedgerCommandError::Unreadable { path: path.to_owned(), source })?;
    let mut damaged: u64 = 0;
    let last = parts.len().saturating_sub(1);
    for (index, (part, file)) in parts.into_iter().enumerate() {
        let unreadable = |source| LedgerCommandError::Unreadable { path: part.clone(), source };
        let mut reader = BufReader::new(file);
        let mut text = Vec::new();
        for number in 1_u64.. {
            let cause = match next(&mut reader, &mut text).map_err(unreadable)? {
                Next::End => break,
                // It is being written just now.
                Next::Torn if index == last => break,
                Next::Torn => "it has no end".to_owned(),
                Next::TooLong => format!("it is longer than {MOST_LINE_BYTES} bytes"),
                Next::Line => match sentinel_authority::particulars(&text) {
                    Ok(keys) => match show(&Line { text: &text, keys })? {
                        ControlFlow::Continue(()) => continue,
                        ControlFlow::Break(()) => return Ok(damaged),
                    },
                    Err(error) => error.to_string(),
                },
            };
            damaged = damaged.saturating_add(1);
            tell(&format!("line {number} of `{}` is damaged, and left out: {cause}", part.display()));
        }
    }
    Ok(damaged)
}

/// All parts, opened at once: so that none is missed or comes twice when the agent begins a new one meanwhile.
fn open(path: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    loop {
        let parts = sentinel_ledger::segments(path)?;
        if parts.is_empty() {
            return Err(ErrorKind::NotFound.into());
        }
        let opened: io::Result<Vec<(PathBuf, File)>> =
            parts.iter().map(|part| Ok((part.clone(), File::open(part)?))).collect();
        if sentinel_ledger::segments(path)? == parts {
            return opened;
        }
    }
}

/// What came next.
enum Next {
    Line,
    TooLong,
    /// A line without an end.
    Torn,
    End,
}

fn next(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Next> {
    text.clear();
    reader.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', text)?;
    match text.pop() {
        None => Ok(Next::End),
        Some(b'\n') => Ok(Next::Line),
        Some(_) if text.len() as u64 >= MOST_LINE_BYTES.saturating_sub(1) => {
            reader.skip_until(b'\n')?;
            Ok(Next::TooLong)
        }
        Some(_) => Ok(Next::Torn),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with a ledger, which goes with it.
    pub(in crate::cli::ledger) struct Folder(PathBuf);

    impl Folder {
        pub(in crate::cli::ledger) fn new(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("sentinel-cli-ledger-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        pub(in crate::cli::ledger) fn ledger(&self) -> PathBuf {
            self.0.join("ledger.jsonl")
        }

        pub(in crate::cli::ledger) fn with(self, first_seq: Option<u64>, text: impl AsRef<[u8]>) -> Self {
            let path = self.ledger();
            let path = first_seq.map_or_else(|| path.clone(), |first| sentinel_ledger::rotated(&path, first));
            std::fs::write(path, text).unwrap();
            self
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }

    fn seqs(folder: &Folder) -> (Vec<u64>, u64) {
        let mut seqs = Vec::new();
        let damaged = each_line(&folder.ledger(), |line| {
            seqs.extend(line.number("seq"));
            Ok(ControlFlow::Continue(()))
        });
        (seqs, damaged.unwrap())
    }

    #[test]
    fn all_parts_are_read_oldest_first_without_the_line_that_is_being_written() {
        let folder = Folder::new("parts")
            .with(None, "{\"seq\":5}\n{\"seq\":6}\n{\"seq\":")
            .with(Some(3), "{\"seq\":3}\n{\"seq\":4}\n")
            .with(Some(1), "{\"seq\":1}\n{\"seq\":2}\n");
        assert_eq!(seqs(&folder), (vec![1, 2, 3, 4, 5, 6], 0));
    }

    #[test]
    fn a_damaged_line_is_counted_and_hides_none_behind_it() {
        let long = format!("{{\"seq\":3,\"x\":\"{}\"}}", "x".repeat(5_000_000));
        let text = format!("garbage\n{{\"seq\":2}}\n{long}\n[1]\n{{\"seq\":5}}\n");
        let folder = Folder::new("damaged").with(Some(1), text).with(None, b"\xff\n{\"seq\":7}\n");
        assert_eq!(seqs(&folder), (vec![2, 5, 7], 4));
        let torn = Folder::new("torn").with(Some(1), "{\"seq\":1}\n{\"se").with(None, "{\"seq\":2}\n");
        assert_eq!(seqs(&torn), (vec![1, 2], 1));
    }

    #[test]
    fn reading_ends_when_enough_was_seen_and_a_missing_ledger_is_an_error() {
        let folder = Folder::new("enough").with(None, "{\"seq\":1}\n{\"seq\":2}\n");
        let mut seen = 0;
        let stopped = each_line(&folder.ledger(), |_| {
            seen += 1;
            Ok(ControlFlow::Break(()))
        });
        assert_eq!((stopped.unwrap(), seen), (0, 1));
        let missing = Folder::new("missing");
        let error = each_line(&missing.ledger(), |_| Ok(ControlFlow::Continue(()))).unwrap_err();
        assert_eq!(error.exit_status(), 66, "{error}");
    }
}
