//! `sentinel policy`: what a policy says, and what would become of an action under it.
//!
//! Reads the file and nothing else: no agent has to run, and whether its executables are there is not asked.

mod check;
mod explain;
mod words;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use sentinel_policy::MAX_BYTES;

pub use check::check;
pub use explain::{ExplainArguments, explain};

/// The file is no valid policy.
const EXIT_PROBLEMS: u8 = 1;
/// The file can't be read (`EX_NOINPUT`).
const EXIT_UNREADABLE: u8 = 66;

/// What a command has to say, and how it ends.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    status: u8,
    out: String,
    err: String,
}

impl Said {
    /// Writes what can be written: a closed pipe changes no verdict.
    fn tell(&self) -> ExitCode {
        let _closed_pipe = io::stderr().lock().write_all(self.err.as_bytes());
        let _closed_pipe = io::stdout().lock().write_all(self.out.as_bytes());
        ExitCode::from(self.status)
    }
}

/// What is said of a policy's file, given its name and its bytes; or that it can't be read.
fn of_file(file: &Path, say: impl FnOnce(&str, &[u8]) -> Said) -> Said {
    let name = file.display().to_string();
    match read(file) {
        Ok(bytes) => say(&name, &bytes),
        Err(error) => {
            let name = name.escape_debug();
            let err = format!("error: `{name}` can't be read: {error}; check the path and who may read it\n");
            Said { status: EXIT_UNREADABLE, out: String::new(), err }
        }
    }
}

/// The file, up to one byte more than a policy can have.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let cap = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(file)?.take(cap).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cant_be_read_is_named_with_the_cause() {
        let said = of_file(Path::new("/nonexistent/p\u{1b}.yaml"), |_, _| Said::default());
        assert_eq!((said.status, said.out.as_str()), (EXIT_UNREADABLE, ""));
        assert!(
            said.err.contains("`/nonexistent/p\\u{1b}.yaml` can't be read: No such file"),
            "{}",
            said.err
        );
        assert_eq!(of_file(Path::new("/"), |_, _| Said::default()).status, EXIT_UNREADABLE);
    }
}
