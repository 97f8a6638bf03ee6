//! Mounts in the session's own mount namespace: the namespace itself, covers and binds.
//!
//! Everything is built detached and then moved to its place, so that nothing is ever half there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;

use super::{Confinement, HardeningError, failed};

/// What does nothing to whom connects to it, reads or writes it: what a file is covered with.
const INERT_FILE: &str = "/dev/null";

/// A mount namespace of its own, into which and out of which no mount spreads.
pub(super) fn enter_own_namespace(confinement: &mut Confinement) -> Result<(), HardeningError> {
    if confinement.root {
        unshare(UnshareFlags::NEWNS).map_err(failed("cannot make a mount namespace"))?;
    } else {
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|source| {
            HardeningError::Unsupported(format!(
                "this host lets only root make a mount namespace ({source}); run it with sudo, or allow \
                 user namespaces"
            ))
        })?;
        let (uid, gid) = (confinement.user.uid, confinement.user.gid);
        for (file, text) in [
            ("/proc/self/setgroups", "deny".to_owned()),
            ("/proc/self/uid_map", format!("{uid} {uid} 1")),
            ("/proc/self/gid_map", format!("{gid} {gid} 1")),
        ] {
            fs::write(file, text).map_err(failed(format!("cannot write `{file}`")))?;
        }
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("cannot make the mounts private"))
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: only namespaces are unshared, never the table of descriptors, and this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// A mount as the kernel lists it.
#[derive(Debug)]
pub(super) struct Mount {
    id: u64,
    /// Where it is.
    pub(super) point: PathBuf,
    /// The type of its file system.
    pub(super) kind: String,
}

/// The mounts of this namespace that a path still leads to; one that another mount covers isn't among them.
pub(super) fn visible_mounts() -> Result<Vec<Mount>, HardeningError> {
    let file = "/proc/self/mountinfo";
    let text = fs::read(file).map_err(failed(format!("cannot read `{file}`")))?;
    let mut mounts = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mount = parse_mount(line)
            .ok_or_else(|| HardeningError::Unsupported(format!("`{file}` has a line of an unknown form")))?;
        mounts.insert(mount.id, mount);
    }
    mounts.retain(|id, mount| mount_at(&mount.point) == Some(*id));
    Ok(mounts.into_values().collect())
}

/// `36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw`
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = unescape(fields.nth(3)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { id, point, kind: String::from_utf8(kind.to_owned()).ok()? })
}

/// The kernel writes a space, tab, line feed and backslash as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let code = behind
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { behind.get(3..).unwrap_or_default() } else { behind };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn mount_at(path: &Path) -> Option<u64> {
    statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID).ok().map(|found| found.stx_mnt_id)
}

/// An empty tmpfs, not mounted anywhere yet.
pub(super) fn empty_folder(attributes: MountAttrFlags) -> Result<OwnedFd, HardeningError> {
    let what = || failed::<rustix::io::Errno>("cannot make a tmpfs");
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(what())?;
    for (key, value) in [("mode", "0755"), ("size", "64k"), ("source", "sentinel")] {
        fsconfig_set_string(context.as_fd(), key, value).map_err(what())?;
    }
    fsconfig_create(context.as_fd()).map_err(what())?;
    let attributes = attributes
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(what())
}

/// What is at `path`, as a mount of its own that isn't anywhere yet.
pub(super) fn copy_of(path: &Path) -> Result<OwnedFd, HardeningError> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).map_err(failed(format!("cannot bind `{}`", path.display())))
}

/// Puts a detached mount on top of `path`.
pub(super) fn put(mount: BorrowedFd<'_>, path: &Path) -> Result<(), HardeningError> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(failed(format!("cannot mount on `{}`", path.display())))
}

/// Covers a folder with an empty one, and anything else with a file that does nothing.
pub(super) fn cover(path: &Path) -> Result<(), HardeningError> {
    let found = fs::symlink_metadata(path).map_err(failed(format!("cannot read `{}`", path.display())))?;
    let covering = if found.is_dir() {
        empty_folder(MountAttrFlags::MOUNT_ATTR_RDONLY)?
    } else {
        copy_of(Path::new(INERT_FILE))?
    };
    put(covering.as_fd(), path)
}

/// Makes a mount, and all those on it, read-only.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> Result<(), HardeningError> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, `attributes` outlives the call, and its true size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(failed("cannot make a mount read-only")(std::io::Error::last_os_error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_list_of_mounts_is_read_with_its_escapes() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402/a\134b rw,noatime master:1 shared:2 - cgroup2 none rw";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.point, Path::new(r"/mnt 2/a\b"));
        assert_eq!((mount.id, mount.kind.as_str()), (36, "cgroup2"));
        assert!(parse_mount(b"36 35 98:0 /mnt1").is_none());
    }
}
