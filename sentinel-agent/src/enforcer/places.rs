//! Finds, makes and removes the folders that an instance of the agent has in cgroup2 and in a bpffs.
//!
//! Invariant: no place is guessed. cgroup2 is where mountinfo says, and pins stand in a bpffs of root's alone.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::mountinfo::mounts;
use super::{EnforcerError, Places};

/// The folder, in cgroup2 and in the bpffs, below which each instance has its own.
const OURS: &str = "sentinel";
/// Notes of which build each instance's kernel side is.
const BUILDS: &str = "/run/agent-sentinel/builds";
/// So often something is made again that another instance has removed meanwhile.
const TRIES: u32 = 10;
/// Where a host that has a bpffs has it.
const HOST_BPFFS: &str = "/sys/fs/bpf";
/// `f_type` of a bpffs (`include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

impl Places {
    /// Where the instance of this name keeps its things: in the host's bpffs, else in one at `<runtime>/bpf`.
    /// Makes nothing.
    ///
    /// # Errors
    /// There is no cgroup2, or the name can't be a folder's.
    pub fn find(runtime: &Path, instance: &str) -> Result<Self, EnforcerError> {
        if !matches!(
            Path::new(instance).components().collect::<Vec<_>>().as_slice(),
            [Component::Normal(name)] if **name == *instance
        ) {
            return Err(EnforcerError::Unavailable {
                what: format!("no instance can be called `{instance}`"),
                cause: "its name is a folder's".to_owned(),
                way_out: "use letters, digits and `-`".to_owned(),
            });
        }
        let (host, own) = (Path::new(HOST_BPFFS), runtime.join("bpf"));
        // A mounted one of its own is what a dead instance of this name left: there are its pins.
        let bpffs = if is_bpffs(host) && !is_bpffs(&own) { host.to_owned() } else { own };
        Ok(Self { pins: bpffs.join(OURS).join(instance), cgroup: cgroup2()?.join(OURS).join(instance) })
    }

    /// The level of a session's cgroup below the root of all cgroups.
    pub(super) fn session_level(&self) -> Result<u32, EnforcerError> {
        let root = cgroup2()?;
        let below = self.cgroup.strip_prefix(&root).map_err(|_elsewhere| {
            unavailable("find the level of", &self.cgroup, format!("it isn't below `{}`", root.display()))
        })?;
        let levels = below.components().count().saturating_add(1);
        u32::try_from(levels).map_err(|error| unavailable("find the level of", &self.cgroup, error))
    }

    /// Makes the folders, and mounts the bpffs where the host has none.
    pub(super) fn make(&self) -> Result<(), EnforcerError> {
        make_folders(&self.cgroup, 0o755)?;
        let bpffs = self.bpffs();
        if !is_bpffs(bpffs) {
            make_folders(bpffs, 0o700)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("bpf", bpffs, "bpf", flags, Some(c"mode=0700"))
                .map_err(|cause| unavailable("mount a bpffs at", bpffs, cause))?;
        }
        make_folders(&self.pins, 0o700)?;
        // A bpffs that anyone may write could hold a folder of this name that is somebody else's.
        let mut own = self.pins.ancestors().take_while(|folder| *folder != bpffs);
        own.try_for_each(is_roots_alone)
    }

    /// Removes the folders, which hold nothing any more, and unmounts the bpffs if no other instance is in it.
    pub(super) fn remove(&self) -> Result<(), EnforcerError> {
        remove_folder(&self.cgroup)?;
        remove_folder(&self.pins)?;
        // One that stays names pins that are gone.
        let _never_made = fs::remove_file(self.build_note());
        let _others_are_there = fs::remove_dir(BUILDS);
        // Other instances may be in these.
        let _in_use = self.cgroup.parent().map(fs::remove_dir);
        let is_last = self.pins.parent().is_none_or(|ours| remove_folder(ours).is_ok());
        let bpffs = self.bpffs();
        if is_last && bpffs != Path::new(HOST_BPFFS) {
            if is_bpffs(bpffs) {
                // Somebody may be looking into it, which is empty now: no reason to keep it.
                unmount(bpffs, UnmountFlags::DETACH)
                    .map_err(|cause| unavailable("unmount the bpffs at", bpffs, cause))?;
            }
            remove_folder(bpffs)?;
        }
        Ok(())
    }

    /// Which build the kernel side in these places is of; empty: unknown.
    pub(super) fn build(&self) -> Result<String, EnforcerError> {
        match fs::read_to_string(self.build_note()) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|cause| unavailable("read", &self.build_note(), cause)),
        }
    }

    /// Notes which build it is of.
    pub(super) fn note_build(&self, build: &str) -> Result<(), EnforcerError> {
        let note = self.build_note();
        let mut tries = TRIES;
        loop {
            note.parent().map_or(Ok(()), |folder| make_folders(folder, 0o755))?;
            match fs::write(&note, build) {
                Ok(()) => return Ok(()),
                // Another instance has removed the folder, which was empty.
                Err(cause) if is_gone(&cause) && tries > 0 => tries = tries.saturating_sub(1),
                Err(cause) => return Err(unavailable("write", &note, cause)),
            }
        }
    }

    /// A bpffs holds nothing but pins, so the note is elsewhere; it goes with the host's next start as they do.
    fn build_note(&self) -> PathBuf {
        let instance = self.pins.file_name().unwrap_or_default();
        Path::new(BUILDS).join(instance)
    }

    /// The root of the bpffs.
    fn bpffs(&self) -> &Path {
        self.pins.parent().and_then(Path::parent).unwrap_or(&self.pins)
    }
}

/// Where all of cgroup2 is mounted.
pub(crate) fn cgroup2() -> Result<PathBuf, EnforcerError> {
    let whole = mounts()?.into_iter().find(|mount| mount.kind == "cgroup2" && mount.root == Path::new("/"));
    whole.map(|mount| mount.point).ok_or_else(|| EnforcerError::Unavailable {
        what: "no cgroup2 is mounted".to_owned(),
        cause: "`/proc/self/mountinfo` has none".to_owned(),
        way_out: "mount one: `mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2`".to_owned(),
    })
}

fn is_bpffs(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|found| u64::try_from(found.f_type) == Ok(BPF_FS_MAGIC))
}

/// Makes a folder and those above it. Another instance may remove an empty one in between: then again.
fn make_folders(folder: &Path, mode: u32) -> Result<(), EnforcerError> {
    let mut tries = TRIES;
    loop {
        match DirBuilder::new().recursive(true).mode(mode).create(folder) {
            Ok(()) => return Ok(()),
            Err(cause) if cause.kind() == ErrorKind::NotFound && tries > 0 => tries = tries.saturating_sub(1),
            Err(cause) => return Err(unavailable("make", folder, cause)),
        }
    }
}

fn is_roots_alone(folder: &Path) -> Result<(), EnforcerError> {
    let found = fs::symlink_metadata(folder).map_err(|cause| unavailable("look at", folder, cause))?;
    if found.is_dir() && found.uid() == 0 && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(unavailable("pin in", folder, "it is not a folder of root's alone"))
}

fn remove_folder(folder: &Path) -> Result<(), EnforcerError> {
    match fs::remove_dir(folder) {
        Err(cause) if !is_gone(&cause) => Err(unavailable("remove", folder, cause)),
        _ => Ok(()),
    }
}

fn is_gone(cause: &io::Error) -> bool {
    cause.kind() == ErrorKind::NotFound
}

/// An error about a file or folder.
pub(super) fn unavailable(what: &str, path: &Path, cause: impl std::fmt::Display) -> EnforcerError {
    EnforcerError::Unavailable {
        what: format!("cannot {what} `{}`", path.display()),
        cause: cause.to_string(),
        way_out: "see that the agent runs as root and that nothing else uses it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instances_name_is_one_folder() {
        let runtime = Path::new("/nonexistent");
        assert!(Places::find(runtime, "private-12").is_ok());
        for name in ["", ".", "..", "a/b", "/a", "a/"] {
            assert!(Places::find(runtime, name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_sessions_cgroup_is_three_levels_below_the_root() {
        let places = Places::find(Path::new("/nonexistent"), "host").unwrap();
        assert_eq!(places.session_level().unwrap(), 3);
        let elsewhere = Places { cgroup: PathBuf::from("/tmp/sentinel/host"), ..places };
        assert!(elsewhere.session_level().is_err());
    }
}
