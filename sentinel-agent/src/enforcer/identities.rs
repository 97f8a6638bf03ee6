//! Files and folders by the numbers that the kernel side sees: sockets and library folders that a policy names, and what is the agent's own.
//!
//! Invariant: a path that can't be told opens nothing, and is said.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};

use super::images::ImageError;
use super::mountinfo::{Mount, kernel_device};
use super::walk::walk;

/// What is at a path, held so that its number is not given to another.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) held: OwnedFd,
    pub(super) dev: u32,
    pub(super) ino: u64,
}

/// What is behind the symbolic links of `path`.
pub(super) fn identity(path: &Path, mounts: &[Mount]) -> Result<Identity, ImageError> {
    let unreadable = |cause: io::Error| ImageError::Unreadable { path: path.to_owned(), cause };
    let canonical = walk(path).map_err(unreadable)?.canonical;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = openat(CWD, &canonical, flags, Mode::empty()).map_err(|errno| unreadable(errno.into()))?;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let found = statx(&held, "", AtFlags::EMPTY_PATH, wanted).map_err(|errno| unreadable(errno.into()))?;
    let mount = mounts.iter().find(|mount| mount.id == found.stx_mnt_id);
    let dev = kernel_device(found.stx_dev_major, found.stx_dev_minor);
    match dev.filter(|dev| mount.is_some_and(|mount| mount.dev == *dev)) {
        Some(dev) => Ok(Identity { held, dev, ino: found.stx_ino }),
        None => Err(ImageError::Renumbered(path.to_owned())),
    }
}

/// Those that can be told; what can't is said, and opens nothing.
pub(super) fn identities(key: &str, paths: &[PathBuf], mounts: &[Mount]) -> Vec<Identity> {
    let told = |path: &PathBuf| {
        identity(path, mounts)
            .inspect_err(|error| tracing::warn!(%error, "`{key}` names what is not there; it opens nothing"))
            .ok()
    };
    paths.iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::enforcer::mountinfo::mounts;
    use crate::enforcer::testing::Folder;

    #[test]
    fn a_folder_is_told_through_links_and_what_is_missing_opens_nothing() {
        let folder = Folder::new("identities");
        let (link, missing) = (folder.path().join("link"), folder.path().join("missing"));
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let found = identities("enforcement.exec.libraries", &[missing, link], &mounts().unwrap());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].ino, std::fs::metadata(folder.path()).unwrap().ino());
    }
}
