//! Follows a path as the kernel does, and says who could lead it elsewhere.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Gid, Uid, User, getgrouplist};

/// As many symbolic links as the kernel follows.
const LINKS: u32 = 40;
const STICKY: u32 = 0o1000;

/// What a path leads over.
pub(super) struct Walk {
    /// The path without symbolic links.
    pub(super) canonical: PathBuf,
    /// Each thing that was looked up, links included.
    steps: Vec<Step>,
}

struct Step {
    folder: PathBuf,
    entry: PathBuf,
    metadata: Metadata,
}

/// Follows `path`, which is absolute.
pub(super) fn walk(path: &Path) -> io::Result<Walk> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    let mut pending = VecDeque::new();
    put_in_front(&mut pending, path);
    let mut here = PathBuf::from("/");
    let mut steps = Vec::new();
    let mut links = 0_u32;
    while let Some(part) = pending.pop_front() {
        if part == ".." {
            here.pop();
            continue;
        }
        let entry = here.join(&part);
        let metadata = fs::symlink_metadata(&entry)?;
        let is_link = metadata.is_symlink();
        steps.push(Step { folder: here.clone(), entry: entry.clone(), metadata });
        if is_link {
            links = links.saturating_add(1);
            if links > LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = fs::read_link(&entry)?;
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            put_in_front(&mut pending, &target);
        } else {
            here = entry;
        }
    }
    Ok(Walk { canonical: here, steps })
}

fn put_in_front(pending: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => pending.push_front(name.to_owned()),
            Component::ParentDir => pending.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

/// A session's user, who may write some files.
#[derive(Debug)]
pub struct Writer {
    uid: u32,
    groups: Vec<u32>,
}

impl Writer {
    /// The user with this uid, in all groups that the system lists, whether or not the session has them.
    ///
    /// # Errors
    /// The system's lists can't be read.
    pub fn with_uid(uid: u32) -> io::Result<Self> {
        let mut groups = vec![uid];
        if let Some(user) = User::from_uid(Uid::from_raw(uid))? {
            let name = std::ffi::CString::new(user.name)?;
            groups = getgrouplist(&name, user.gid)?.into_iter().map(Gid::as_raw).collect();
        }
        Ok(Self { uid, groups })
    }

    /// What the user could write or put in another's place so that the path leads to a file of the user's choice.
    pub(super) fn can_change(&self, walk: &Walk) -> io::Result<Option<PathBuf>> {
        for step in &walk.steps {
            let folder = fs::symlink_metadata(&step.folder)?;
            if self.can_write(&step.folder, &folder)? && !self.is_held_by_sticky(&folder, &step.metadata) {
                return Ok(Some(step.folder.clone()));
            }
            // A link has no rights of its own, and a folder on the way is looked at in the next step.
            if step.metadata.is_file() && self.can_write(&step.entry, &step.metadata)? {
                return Ok(Some(step.entry.clone()));
            }
        }
        Ok(None)
    }

    fn can_write(&self, path: &Path, metadata: &Metadata) -> io::Result<bool> {
        let mode = metadata.mode();
        // An owner can give itself any right.
        if metadata.uid() == self.uid || mode & 0o002 != 0 {
            return Ok(true);
        }
        // With an access control list, the group's bits are the most that any of its entries gives.
        Ok(mode & 0o020 != 0 && (self.groups.contains(&metadata.gid()) || has_access_list(path)?))
    }

    /// In a sticky folder, others can't rename or remove what isn't theirs.
    fn is_held_by_sticky(&self, folder: &Metadata, entry: &Metadata) -> bool {
        folder.mode() & STICKY != 0 && folder.uid() != self.uid && entry.uid() != self.uid
    }
}

fn has_access_list(path: &Path) -> io::Result<bool> {
    let mut none: [u8; 0] = [];
    match rustix::fs::lgetxattr(path, c"system.posix_acl_access", &mut none) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;
    use crate::enforcer::testing::Folder;

    const USER: u32 = 54_321;

    /// A root-owned program in a root-owned folder.
    fn program(folder: &Folder) -> PathBuf {
        let path = folder.path().join("program");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn changeable(path: &Path) -> Option<PathBuf> {
        Writer { uid: USER, groups: vec![USER] }.can_change(&walk(path).unwrap()).unwrap()
    }

    #[test]
    fn roots_own_file_can_not_be_changed_and_each_way_to_change_it_is_seen() {
        let folder = Folder::new("walk-writable");
        let path = program(&folder);
        assert_eq!(changeable(&path), None, "not even below a sticky folder that all can write");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o757)).unwrap();
        assert_eq!(changeable(&path), Some(path.clone()), "all may write it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o775)).unwrap();
        assert_eq!(changeable(&path), None, "root's group may");
        chown(&path, None, Some(USER)).unwrap();
        assert_eq!(changeable(&path), Some(path.clone()), "its group may");
        chown(&path, Some(USER), Some(0)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
        assert_eq!(changeable(&path), Some(path.clone()), "its owner may");
        chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o757)).unwrap();
        assert_eq!(changeable(&path), Some(folder.path().to_owned()), "all may put another there");
    }

    #[test]
    fn a_link_that_the_user_can_bend_is_seen() {
        let folder = Folder::new("walk-links");
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        let link = own.join("link");
        symlink("../program", &link).unwrap();
        let path = program(&folder);
        assert_eq!(walk(&link).unwrap().canonical, path);
        assert_eq!(changeable(&link), None);
        chown(&own, Some(USER), None).unwrap();
        assert_eq!(changeable(&link), Some(own));
    }

    #[test]
    fn links_without_end_are_an_error() {
        let folder = Folder::new("walk-circle");
        let link = folder.path().join("link");
        symlink("link", &link).unwrap();
        assert!(walk(&link).is_err());
        assert!(walk(Path::new("relative")).is_err());
    }
}
