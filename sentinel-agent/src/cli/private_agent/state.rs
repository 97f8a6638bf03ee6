//! Where a private agent keeps its ledger: each in a folder that no other uses at the same time.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sentinel_proto::SessionName;

use super::{PrivateAgentError, system};

/// Where agents keep what outlives them, unless they are told otherwise.
pub(super) const STATE: &str = "/var/lib/agent-sentinel";
/// The most private agents without a folder of their own at once.
pub(super) const MOST_UNNAMED: u32 = 1_024;

/// Where it keeps its ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFolder {
    /// There.
    Given(PathBuf),
    /// In the folder of a named session, which finds its totals again.
    Named(SessionName),
    /// In the first that no other uses.
    AnyFree,
}

pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), PrivateAgentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(system(format!("make the folder `{}`", path.display())))
}

/// The folder, locked until the file is closed; none: another agent has it.
fn lock(folder: &Path) -> Result<Option<File>, PrivateAgentError> {
    make_folder(folder, 0o700)?;
    let path = folder.join("private.lock");
    let what = || system(format!("lock `{}`", path.display()));
    let file = File::create(&path).map_err(what())?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(what()(errno.into())),
    }
}

pub(super) fn lock_or_busy(folder: &Path) -> Result<(PathBuf, File), PrivateAgentError> {
    match lock(folder)? {
        Some(file) => Ok((folder.to_owned(), file)),
        None => Err(PrivateAgentError::Busy(folder.to_owned())),
    }
}

pub(super) fn first_free(parent: &Path) -> Result<(PathBuf, File), PrivateAgentError> {
    for number in 0..MOST_UNNAMED {
        let folder = parent.join(number.to_string());
        if let Some(file) = lock(&folder)? {
            return Ok((folder, file));
        }
    }
    Err(PrivateAgentError::TooMany)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_at_once_never_share_a_folder_and_a_free_one_is_used_again() {
        let parent = std::env::temp_dir().join(format!("sentinel-private-{}", std::process::id()));
        let (first, first_lock) = first_free(&parent).unwrap();
        let (second, _second_lock) = first_free(&parent).unwrap();
        assert_eq!(
            (first.as_path(), second.as_path()),
            (parent.join("0").as_path(), parent.join("1").as_path())
        );
        assert!(matches!(lock_or_busy(&first), Err(PrivateAgentError::Busy(_))));
        drop(first_lock);
        assert_eq!(first_free(&parent).unwrap().0, first);
        std::fs::remove_dir_all(parent).unwrap();
    }
}
