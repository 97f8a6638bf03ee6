//! `sentinel ledger verify`: whether the chain is whole.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::Path;
use std::process::ExitCode;

use sentinel_ledger::{VerifyError, verify};

use super::failed;
use crate::cli::terminal::visible;

pub(super) fn check(path: &Path) -> ExitCode {
    let shown = visible(&path.display().to_string());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            return failed(
                66,
                &format!("cannot read `{}`: {error}; use sudo, or name another", path.display()),
            );
        }
    };
    match verify(BufReader::new(file), None) {
        Ok(whole) => {
            let head = whole.head;
            let _closed = writeln!(io::stdout(), "{shown}: whole, {} lines, hash {}", head.seq, head.hash);
            ExitCode::SUCCESS
        }
        Err(VerifyError::Unreadable(error)) => {
            failed(66, &format!("cannot read `{}`: {error}", path.display()))
        }
        Err(broken) => {
            let _closed =
                writeln!(io::stderr(), "sentinel: {shown}: NOT whole: {}", visible(&broken.to_string()));
            ExitCode::from(1)
        }
    }
}
