//! The agents of this host, told apart by name; and what is left of those that died.
//!
//! Invariant: what bears an instance's name belongs to the one process that holds the lock on the name's file. The
//! kernel drops the lock with the process, so what a dead agent left is told from what lives.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::enforcer::{EnforcerError, Places, leftovers};

/// A file for each instance: locked by it, and with the path of its runtime folder in it.
const INSTANCES: &str = "/run/agent-sentinel/instances";

/// Why an instance could not be had.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The system refused.
    #[error("cannot {what} `{}`: {source}; the agent has to be root", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another agent has it.
    #[error("another agent has `{}`; stop it, or use folders and an --instance of its own", .0.display())]
    Taken(PathBuf),
    /// What a dead agent left resists.
    #[error("what an earlier agent left can't be removed: {0}")]
    Left(#[source] EnforcerError),
    /// There are no places for it.
    #[error(transparent)]
    Places(EnforcerError),
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstanceError {
    let path = path.to_owned();
    move |source| InstanceError::System { what, path, source }
}

/// Makes a folder with this mode, and those above it; one that is there keeps its own.
///
/// # Errors
/// The system refused.
pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), InstanceError> {
    // Folders on the way are for all to pass: the sockets' is on the way to that of the locks.
    let on_the_way = path.parent().unwrap_or(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(on_the_way)
        .map_err(system("make the folder", on_the_way))?;
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(system("make the folder", path))
}

/// A file that is locked until this is dropped. It has to be removed by [`Lock::remove`], or stays.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Locks a file, which is made if it isn't there.
    ///
    /// # Errors
    /// Another process has the lock, or the system refused.
    pub(super) fn take(path: &Path) -> Result<Self, InstanceError> {
        loop {
            let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
            let file = open.map_err(system("open", path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(InstanceError::Taken(path.to_owned())),
                Err(errno) => return Err(system("lock", path)(errno.into())),
            }
            // Its last owner may have removed it between our opening and our locking: then it is another file.
            let ours = file.metadata().map_err(system("read", path))?.ino();
            if fs::metadata(path).is_ok_and(|there| there.ino() == ours) {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Removes the file, and gives the lock up.
    pub(super) fn remove(self) {
        // One that stays is only an empty file.
        let _left = fs::remove_file(&self.path);
    }
}

/// The name, taken.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its places in the cgroup2 hierarchy and in a bpffs.
    pub(super) places: Places,
    lock: Lock,
}

impl Instance {
    /// Takes a name. What an earlier agent of that name left in other places is ended.
    ///
    /// # Errors
    /// Another agent has it, or what is left resists.
    pub(super) fn take(name: &str, runtime: &Path) -> Result<Self, InstanceError> {
        Self::take_in(Path::new(INSTANCES), name, runtime)
    }

    fn take_in(instances: &Path, name: &str, runtime: &Path) -> Result<Self, InstanceError> {
        let places = Places::find(runtime, name).map_err(InstanceError::Places)?;
        make_folder(instances, 0o700)?;
        let mut lock = Lock::take(&instances.join(name))?;
        // What an agent left in these places can be taken over; what is elsewhere is ended.
        if lock.left_in()?.is_some_and(|left| Places::find(&left, name).ok().as_ref() != Some(&places)) {
            lock.end_what_is_left(name)?;
        }
        lock.write(runtime)?;
        Ok(Self { places, lock })
    }

    /// Gives the name up. To be called when nothing that bears it is left.
    pub(super) fn remove(self) {
        let instances = self.lock.path.parent().map(Path::to_owned);
        self.lock.remove();
        // The folder goes with the last one.
        let _others_are_there = instances.map(fs::remove_dir);
    }
}

impl Lock {
    /// Ends what the agent left that had this instance's lock before.
    fn end_what_is_left(&mut self, name: &str) -> Result<(), InstanceError> {
        let Some(runtime) = self.left_in()? else { return Ok(()) };
        tracing::warn!(instance = %name.escape_debug(), "an agent died without a word; its sessions are ended");
        let places = Places::find(&runtime, name).map_err(InstanceError::Places)?;
        leftovers::remove(&places).map_err(InstanceError::Left)
    }

    /// The runtime folder of the agent that had this instance's lock before.
    fn left_in(&mut self) -> Result<Option<PathBuf>, InstanceError> {
        let mut runtime = Vec::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_end(&mut runtime));
        read.map_err(system("read", &self.path))?;
        Ok((!runtime.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(runtime))))
    }

    fn write(&mut self, runtime: &Path) -> Result<(), InstanceError> {
        let failed = system("write", &self.path);
        let runtime = std::path::absolute(runtime).and_then(|runtime| {
            self.file.rewind()?;
            self.file.set_len(0)?;
            self.file.write_all(runtime.as_os_str().as_bytes())
        });
        runtime.map_err(failed)
    }
}

/// Whose leftovers a sweep ends.
#[derive(Clone, Copy, Debug)]
pub enum Dead<'name> {
    /// All dead agents': what an operator orders.
    All,
    /// Dead private agents': they never come back, so any agent's start ends what they left. A shared agent's sessions stay, held to
    /// what the policy lets pass without any action, until that agent is started again.
    Private,
    /// This dead agent's.
    Named(&'name str),
}

impl Dead<'_> {
    fn has(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Private => name.starts_with("private-"),
            Self::Named(one) => name == one,
        }
    }
}

/// Ends what agents left that are dead: their sessions, pins and cgroups. Those that live are left alone.
///
/// # Errors
/// Something resists. The others are ended all the same.
pub fn sweep(dead: Dead<'_>) -> Result<(), InstanceError> {
    sweep_in(Path::new(INSTANCES), dead)
}

fn sweep_in(instances: &Path, dead: Dead<'_>) -> Result<(), InstanceError> {
    let entries = match fs::read_dir(instances) {
        Ok(entries) => entries,
        Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("list", instances)(error)),
    };
    let mut swept = Ok(());
    for entry in entries {
        let entry = entry.map_err(system("list", instances))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| dead.has(name)) else { continue };
        match Lock::take(&entry.path()) {
            Ok(mut lock) => match lock.end_what_is_left(name) {
                Ok(()) => lock.remove(),
                Err(error) => swept = Err(error),
            },
            Err(InstanceError::Taken(_)) => {}
            Err(error) => swept = Err(error),
        }
    }
    let _others_are_there = fs::remove_dir(instances);
    swept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("sentinel-instances-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_lock_is_held_until_it_is_given_up() {
        let folder = folder("lock");
        let lock = Lock::take(&folder.join("a")).unwrap();
        assert!(matches!(Lock::take(&folder.join("a")), Err(InstanceError::Taken(_))));
        lock.remove();
        assert!(!folder.join("a").exists());
        Lock::take(&folder.join("a")).unwrap().remove();
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn a_name_is_one_agents_and_a_sweep_leaves_it_alone_until_that_is_dead() {
        let instances = folder("sweep");
        let name = format!("test-sweep-{}", std::process::id());
        let instance = Instance::take_in(&instances, &name, Path::new("/nonexistent")).unwrap();
        assert!(matches!(
            Instance::take_in(&instances, &name, Path::new("/nonexistent")),
            Err(InstanceError::Taken(_))
        ));
        sweep_in(&instances, Dead::All).unwrap();
        assert!(instances.join(&name).exists());
        // Dropped without a word, as with a dead agent.
        drop(instance);
        sweep_in(&instances, Dead::Private).unwrap();
        sweep_in(&instances, Dead::Named("another")).unwrap();
        assert!(instances.join(&name).exists(), "it is none of these");
        sweep_in(&instances, Dead::Named(&name)).unwrap();
        assert!(!instances.exists(), "nothing is left");
    }
}
