//! `sentinel ledger verify`: whether the chain is whole, over all its parts and up to the line that is known to have been written.

use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sentinel_ledger::{Head, VerifyError, head_file, segments, verify_parts};

use super::failed;
use crate::cli::terminal::visible;

/// Checks the ledger; `expected` is a head file, else the one beside the ledger is taken, if there is one.
pub(super) fn check(path: &Path, expected: Option<&Path>) -> ExitCode {
    let shown = visible(&path.display().to_string());
    let unreadable = |path: &Path, error: &io::Error| {
        failed(66, &format!("cannot read `{}`: {error}; use sudo, or name another", path.display()))
    };
    let beside = head_file(path);
    let head_path = expected.unwrap_or(&beside);
    // Read before the ledger, which only grows.
    let head = match Head::read(head_path) {
        Ok(None) if expected.is_some() => {
            return unreadable(head_path, &io::Error::new(ErrorKind::NotFound, "there is no head in it"));
        }
        Ok(head) => head,
        Err(error) => return unreadable(head_path, &error),
    };
    let parts: Vec<PathBuf> = match segments(path) {
        Ok(parts) if parts.last().is_some_and(|last| last == path) => parts,
        Ok(_) => return unreadable(path, &io::Error::from(ErrorKind::NotFound)),
        Err(error) => return unreadable(path, &error),
    };
    match verify_parts(&parts, head.as_ref()) {
        Ok(whole) => {
            let older = match whole.first_seq {
                1 => String::new(),
                first => format!(" from line {first} on (older parts are elsewhere)"),
            };
            let head = whole.head;
            let _closed =
                writeln!(io::stdout(), "{shown}: whole{older}, {} lines, hash {}", head.seq, head.hash);
            ExitCode::SUCCESS
        }
        Err(VerifyError::Unreadable(error)) => unreadable(path, &error),
        Err(VerifyError::Part { path, cause }) if matches!(*cause, VerifyError::Unreadable(_)) => {
            failed(66, &format!("cannot read `{}`: {cause}", path.display()))
        }
        Err(broken) => {
            let _closed =
                writeln!(io::stderr(), "sentinel: {shown}: NOT whole: {}", visible(&broken.to_string()));
            ExitCode::from(1)
        }
    }
}
