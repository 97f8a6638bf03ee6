//! Why a ledger's file can't be used, and the way out.

use std::path::PathBuf;

use crate::Broken;

/// Why a ledger's file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system said no.
    #[error("`{path}` can't be {what}: {cause}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What could not be done to it.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process writes it.
    #[error("another agent writes `{0}`; end it, or give this one a state folder of its own")]
    Busy(PathBuf),
    /// Its chain is broken.
    #[error(
        "`{path}`, line {line}: {what}; move the file away to begin a new one, and look into who changed it"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        what: Broken,
    },
    /// A line is chained, but can't be understood by whoever reads it.
    #[error(
        "`{path}`, line {line}: {cause}; was it written by a newer version? move the file away to begin a new one"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What the reader says.
        cause: String,
    },
    /// It has become shorter while it was written.
    #[error(
        "`{path}` has {bytes} bytes, and {expected} are known to have been written; restore the file, or move it and `{head}` away to begin anew, which is recorded"
    )]
    Shortened {
        /// Which.
        path: PathBuf,
        /// Its head file.
        head: PathBuf,
        /// Its length now.
        bytes: u64,
        /// Its length as it is known.
        expected: u64,
    },
    /// It ends before a line that is known to have been written.
    #[error(
        "`{path}` ends with line {found}, and line {expected} with hash {hash} is known to have been written; restore the file, or move it and `{head}` away to begin anew, which is recorded"
    )]
    HeadMissing {
        /// The file.
        path: PathBuf,
        /// Its head file.
        head: PathBuf,
        /// The number of its last line.
        found: u64,
        /// The number of the line that is known.
        expected: u64,
        /// The hash of the line that is known.
        hash: String,
    },
    /// There is more of it than there may be.
    #[error(
        "the ledger `{path}` has reached its quota of {quota} bytes; archive its oldest parts and remove them"
    )]
    Quota {
        /// The file.
        path: PathBuf,
        /// The most bytes.
        quota: u64,
    },
    /// An earlier write failed and could not be taken back.
    #[error(
        "`{0}` ends with an unfinished write that could not be taken back; restart the agent, which sets it aside"
    )]
    Poisoned(PathBuf),
}
