//! Which parts of the file system a session doesn't see, or can't write.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;

use super::mounts::{copy_of, cover, empty_folder, make_read_only, put, visible_mounts};
use super::{Confinement, HardeningError, SOCKET_IN_SESSION, failed};

/// Where services keep their sockets.
const RUN: &str = "/run";

/// File systems that show or change the kernel's inside.
const KERNEL_FILE_SYSTEMS: &[&str] = &["bpf", "debugfs", "securityfs", "tracefs"];

/// No process of the session can be moved, frozen or limited through a file.
pub(super) fn make_cgroups_read_only(_: &mut Confinement) -> Result<(), HardeningError> {
    for mount in visible_mounts()?.iter().filter(|mount| matches!(mount.kind.as_str(), "cgroup" | "cgroup2"))
    {
        let folder = open_path(&mount.point)?;
        make_read_only(folder.as_fd())?;
    }
    Ok(())
}

/// Pinned programs and maps, trace files and the settings of security modules are out of reach.
pub(super) fn cover_kernel_folders(_: &mut Confinement) -> Result<(), HardeningError> {
    let mounts = visible_mounts()?;
    for mount in mounts.iter().filter(|mount| KERNEL_FILE_SYSTEMS.contains(&mount.kind.as_str())) {
        // One may have vanished under the cover of another.
        if mount.point.exists() {
            cover(&mount.point)?;
        }
    }
    Ok(())
}

/// `/proc/sys` is for reading: what the kernel runs on a crash or for a missing module is set there.
pub(super) fn make_kernel_settings_read_only(_: &mut Confinement) -> Result<(), HardeningError> {
    for mount in visible_mounts()?.iter().filter(|mount| mount.kind == "proc") {
        let settings = mount.point.join("sys");
        if settings.exists() {
            let copy = copy_of(&settings)?;
            make_read_only(copy.as_fd())?;
            put(copy.as_fd(), &settings)?;
        }
    }
    Ok(())
}

/// `/run` holds the agent's socket for applications, what the policy opens, and what names are resolved by: no more.
pub(super) fn replace_run_folder(confinement: &mut Confinement) -> Result<(), HardeningError> {
    let run = fs::canonicalize(RUN).map_err(failed(format!("cannot resolve `{RUN}`")))?;
    // All that stays has to be held before the folder is covered.
    let mut kept: Vec<(PathBuf, OwnedFd)> = Vec::new();
    if let Some(folder) = confinement.agent_socket.as_deref().and_then(Path::parent) {
        // The folder, which holds nothing else: the next agent's socket is another file in it.
        let copy = copy_of(folder)?;
        make_read_only(copy.as_fd())?;
        kept.push((Path::new(SOCKET_IN_SESSION).parent().unwrap_or(&run).to_owned(), copy));
    }
    for wanted in &confinement.unix_allow {
        match fs::canonicalize(wanted) {
            Ok(path) if path.starts_with(&run) => {
                let copy = copy_of(&path)?;
                kept.push((path, copy));
            }
            Ok(_elsewhere) => {}
            Err(error) => confinement
                .warnings
                .push(format!("`{}` of `enforcement.unix.allow` can't be opened: {error}", wanted.display())),
        }
    }
    if let Ok(path) = fs::canonicalize("/etc/resolv.conf")
        && path.starts_with(&run)
    {
        let copy = copy_of(&path)?;
        kept.push((path, copy));
    }

    let folder = empty_folder(MountAttrFlags::empty())?;
    put(folder.as_fd(), &run)?;
    for (path, mount) in &kept {
        place(path, mount)?;
    }
    make_read_only(folder.as_fd())?;
    // On most hosts it is a link to `/run`.
    if fs::canonicalize("/var/run").is_ok_and(|path| !path.starts_with(&run)) {
        cover(Path::new("/var/run"))?;
    }
    Ok(())
}

/// Makes an empty file or folder at `path`, as the mount is one, and puts the mount on it. Folders are open to all, whatever the umask is.
fn place(path: &Path, mount: &OwnedFd) -> Result<(), HardeningError> {
    let what = || failed::<std::io::Error>(format!("cannot make `{}`", path.display()));
    let folders: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
    for folder in folders.into_iter().rev() {
        fs::create_dir(folder).map_err(what())?;
        fs::set_permissions(folder, Permissions::from_mode(0o755)).map_err(what())?;
    }
    let is_folder = rustix::fs::fstat(mount).map_err(|errno| what()(errno.into()))?;
    if rustix::fs::FileType::from_raw_mode(is_folder.st_mode) == rustix::fs::FileType::Directory {
        fs::create_dir(path).map_err(what())?;
        fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(what())?;
    } else {
        fs::write(path, []).map_err(what())?;
    }
    put(mount.as_fd(), path)
}

/// The agent's state, policies, pins and sockets are out of sight.
pub(super) fn cover_agent_folders(confinement: &mut Confinement) -> Result<(), HardeningError> {
    for folder in &confinement.mask {
        match fs::canonicalize(folder) {
            // The session's own `/run` has nothing of the agent but the socket that belongs there.
            Ok(path) if path.starts_with(RUN) => {}
            Ok(path) => cover(&path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(format!("cannot cover `{}`", folder.display()))(error)),
        }
    }
    Ok(())
}

/// Sockets that services listen on outside `/run`: a connection to one is refused.
pub(super) fn cover_unix_sockets(confinement: &mut Confinement) -> Result<(), HardeningError> {
    let file = "/proc/self/net/unix";
    let table = fs::read(file).map_err(failed(format!("cannot read `{file}`")))?;
    let allowed: BTreeSet<PathBuf> =
        confinement.unix_allow.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let found: BTreeSet<PathBuf> =
        bound_paths(&table).filter_map(|path| fs::canonicalize(path).ok()).collect();
    for path in found.difference(&allowed).filter(|path| !path.starts_with(RUN)) {
        if fs::symlink_metadata(path).is_ok_and(|entry| entry.file_type().is_socket()) {
            cover(path)?;
        }
    }
    Ok(())
}

/// The absolute paths in the kernel's table of unix sockets. Abstract names begin with an `@`.
fn bound_paths(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        // The seven fields before it hold no slash.
        let start = line.iter().position(|byte| *byte == b'/')?;
        let before = line.get(..start)?;
        let path = line.get(start..)?;
        (!before.contains(&b'@')).then(|| PathBuf::from(OsStr::from_bytes(path)))
    })
}

/// The folder that the command was started in, entered anew: the old one may lie under a cover.
pub(super) fn enter_working_folder(confinement: &mut Confinement) -> Result<(), HardeningError> {
    let folder = &confinement.working_folder;
    std::env::set_current_dir(folder).map_err(|source| HardeningError::System {
        what: format!(
            "the working folder `{}` isn't there in a session; start it elsewhere",
            folder.display()
        ),
        source,
    })
}

fn open_path(path: &Path) -> Result<OwnedFd, HardeningError> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed(format!("cannot open `{}`", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_unix_sockets_is_read_for_paths_with_spaces_and_without_abstract_names() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            000000005004ed8a: 00000003 00000000 00000000 0001 03   161\n\
            000000005004ed8b: 00000002 00000000 00010000 0001 01   162 /tmp/a b.sock\n\
            000000005004ed8c: 00000002 00000000 00010000 0001 01   163 @/tmp/abstract\n\
            000000005004ed8d: 00000002 00000000 00000000 0002 01   164 /dev/log\n";
        let paths: Vec<PathBuf> = bound_paths(table).collect();
        assert_eq!(paths, [Path::new("/tmp/a b.sock"), Path::new("/dev/log")]);
    }
}
