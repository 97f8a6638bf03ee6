//! The cgroup that holds a session's processes.
//!
//! Invariant: the folder and its files stay root's. Nothing in it is delegated, so no process of the session, whatever
//! it does to its own files, can leave the cgroup or change it.

mod limit;

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sentinel_proto::SessionId;

/// How long to wait before asking again whether a folder can be removed.
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// How long to wait before asking again whether all have stopped.
const FREEZE_PAUSE: Duration = Duration::from_millis(1);

/// Why a session's cgroup could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The system refused.
    #[error("cannot {what} `{}`: {source}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Processes are still in it.
    #[error("`{}` still holds processes after {waited:?}", path.display())]
    NotEmpty {
        /// The cgroup.
        path: PathBuf,
        /// How long they were waited for.
        waited: Duration,
    },
}

impl CgroupError {
    /// Whether it says that there is no such cgroup.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::System { source, .. } if is_gone(source))
    }
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::System { what, path, source }
}

/// A session's cgroup. Dropping it removes nothing: what outlives the agent must stay held.
#[derive(Debug)]
pub struct SessionCgroup {
    path: PathBuf,
    id: u64,
    is_bound: bool,
}

impl SessionCgroup {
    /// Makes the cgroup of a session below `parent`, which must exist. An older one of that name is an error.
    ///
    /// # Errors
    /// The folder can't be made, or its processes can't be counted although the controller is there. Nothing stays.
    pub fn create(parent: &Path, id: SessionId) -> Result<Self, CgroupError> {
        let path = parent.join(id.to_string());
        fs::create_dir(&path).map_err(system("make the cgroup", &path))?;
        let made = Self::open(path.clone()).and_then(|cgroup| {
            limit::limit_tasks(parent, &path)?;
            Ok(cgroup)
        });
        if made.is_err() {
            // It is empty: nothing has been put into it. The first error is the one to tell.
            let _already_failed = fs::remove_dir(&path);
        }
        made
    }

    /// The cgroup at `path`, which exists: one that an agent left behind, or one that another process made.
    ///
    /// # Errors
    /// There is none.
    pub fn open(path: PathBuf) -> Result<Self, CgroupError> {
        let id = fs::metadata(&path).map_err(system("read the cgroup", &path))?.ino();
        Ok(Self { path, id, is_bound: false })
    }

    /// As [`open`](Self::open), one that isn't the agent's: it is never removed.
    ///
    /// # Errors
    /// There is none.
    pub fn open_bound(path: PathBuf) -> Result<Self, CgroupError> {
        Ok(Self { is_bound: true, ..Self::open(path)? })
    }

    /// The cgroup of this id, wherever it stands below `root`. It counts as bound: it is never removed. None: it is gone.
    ///
    /// # Errors
    /// A folder can't be looked at: it may be there.
    pub fn with_id(root: &Path, id: u64) -> Result<Option<Self>, CgroupError> {
        for folder in tree(root)? {
            match Self::open_bound(folder) {
                Ok(cgroup) if cgroup.id == id => return Ok(Some(cgroup)),
                Ok(_another) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether it is somebody else's.
    #[must_use]
    pub const fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// The kernel's id of the cgroup, as hooks see it: the inode of its folder.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into it, with all its threads.
    ///
    /// # Errors
    /// It is where it was.
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        let file = self.path.join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(system("move a process by", &file))
    }

    /// The pids of all processes in it and in the cgroups below it.
    ///
    /// # Errors
    /// A list can't be read.
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        for folder in tree(&self.path)? {
            let file = folder.join("cgroup.procs");
            match fs::read_to_string(&file) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                Err(gone) if is_gone(&gone) => {}
                Err(source) => return Err(system("read", &file)(source)),
            }
        }
        Ok(pids)
    }

    /// Kills every process in it and below it, those that are being forked included. A cgroup that is gone is done.
    ///
    /// # Errors
    /// The kernel refused, and processes may live.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let file = self.path.join("cgroup.kill");
        match fs::write(&file, "1") {
            Err(gone) if is_gone(&gone) => Ok(()),
            written => written.map_err(system("kill by", &file)),
        }
    }

    /// Kills every process in it and below it and waits, blocking, until none is left.
    ///
    /// # Errors
    /// The kernel refused, or [`CgroupError::NotEmpty`] at `deadline`.
    pub fn kill_all(&self, deadline: Instant) -> Result<(), CgroupError> {
        self.kill()?;
        self.wait_until_empty(deadline)
    }

    /// Freezes every process in it and below it, or lets them go on. Returns before all of them have stopped.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let file = self.path.join("cgroup.freeze");
        fs::write(&file, if frozen { "1" } else { "0" }).map_err(system("freeze by", &file))
    }

    /// Freezes it and waits, blocking, until every process in it and below it has stopped.
    ///
    /// # Errors
    /// The kernel refused, or one hasn't stopped at `deadline`: it sleeps where nothing can stop it. It is frozen all the same.
    pub fn freeze_all(&self, deadline: Instant) -> Result<(), CgroupError> {
        self.freeze(true)?;
        let file = self.path.join("cgroup.events");
        loop {
            let events = fs::read_to_string(&file).map_err(system("read", &file))?;
            if events.lines().any(|line| line == "frozen 1") {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let late = io::Error::new(ErrorKind::TimedOut, "a process in it doesn't stop");
                return Err(system("wait until it is frozen by", &file)(late));
            }
            thread::sleep(FREEZE_PAUSE);
        }
    }

    /// Whether a process, dead ones that nobody has waited for aside, is in it or below it.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        let file = self.path.join("cgroup.events");
        match fs::read_to_string(&file) {
            Ok(text) => Ok(!text.lines().any(|line| line == "populated 0")),
            Err(gone) if is_gone(&gone) => Ok(false),
            Err(source) => Err(system("read", &file)(source)),
        }
    }

    /// Waits, blocking, until no process is left.
    ///
    /// # Errors
    /// [`CgroupError::NotEmpty`] at `deadline`.
    pub fn wait_until_empty(&self, deadline: Instant) -> Result<(), CgroupError> {
        let started = Instant::now();
        let file = self.path.join("cgroup.events");
        let events = match fs::File::open(&file) {
            Ok(events) => events,
            Err(gone) if is_gone(&gone) => return Ok(()),
            Err(source) => return Err(system("open", &file)(source)),
        };
        // The kernel wakes a poller at a change after its last look, so the look comes first.
        while self.is_populated()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CgroupError::NotEmpty { path: self.path.clone(), waited: started.elapsed() });
            }
            // A look each tenth of a second even without a wake-up: the wait never depends on one.
            let pause = left.min(Duration::from_millis(100));
            let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
            let mut wanted = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)];
            match poll(&mut wanted, Some(&pause)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(system("watch", &file)(errno.into())),
            }
        }
        Ok(())
    }

    /// Removes it and the cgroups below it, which must be empty. One that is gone is done, and so is one that isn't the agent's.
    ///
    /// # Errors
    /// A folder could not be removed; those below it may be gone.
    pub fn remove(&self) -> Result<(), CgroupError> {
        if self.is_bound {
            return Ok(());
        }
        for folder in tree(&self.path)?.into_iter().rev() {
            // The kernel says "busy" for a moment after the last process has left.
            let mut tries = 100_u32;
            loop {
                match fs::remove_dir(&folder) {
                    Ok(()) => break,
                    Err(gone) if is_gone(&gone) => break,
                    Err(busy) if busy.kind() == ErrorKind::ResourceBusy && tries > 0 => {
                        tries = tries.saturating_sub(1);
                        thread::sleep(REMOVE_PAUSE);
                    }
                    Err(source) => return Err(system("remove the cgroup", &folder)(source)),
                }
            }
        }
        Ok(())
    }
}

/// A cgroup that was removed answers "no such file", or "no such device" where its file was open already.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// The folder and all below it, each before its own children.
fn tree(root: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut folders = vec![root.to_owned()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(gone) if is_gone(&gone) => continue,
            Err(source) => return Err(system("list", &folder)(source)),
        };
        for entry in entries {
            let entry = entry.map_err(system("list", &folder))?;
            if entry.file_type().map_err(system("list", &folder))?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A folder for one test in the cgroup2 hierarchy, removed with what is in it.
    struct Parent(SessionCgroup);

    impl Parent {
        fn new(test: &str) -> Self {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let root = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
            let root = Path::new(root.split(' ').nth(4).unwrap());
            let path = root.join(format!("sentinel-test-{}-{test}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(SessionCgroup::open(path).unwrap())
        }
    }

    impl Drop for Parent {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait_until_empty(Instant::now() + Duration::from_secs(5)).unwrap();
            self.0.remove().unwrap();
        }
    }

    fn sleeper() -> Child {
        Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn a_cgroup_knows_holds_and_kills_the_processes_in_it_and_below_it() {
        let parent = Parent::new("holds");
        let cgroup = SessionCgroup::create(parent.0.path(), SessionId(7)).unwrap();
        let below = SessionCgroup::create(cgroup.path(), SessionId(1)).unwrap();
        let (mut inside, mut deeper, mut outside) = (sleeper(), sleeper(), sleeper());
        cgroup.add(inside.id()).unwrap();
        below.add(deeper.id()).unwrap();

        let mut known = cgroup.processes().unwrap();
        known.sort_unstable();
        let mut expected = vec![inside.id(), deeper.id()];
        expected.sort_unstable();
        assert_eq!(known, expected);
        assert!(cgroup.is_populated().unwrap());
        assert!(matches!(cgroup.wait_until_empty(Instant::now()), Err(CgroupError::NotEmpty { .. })));

        cgroup.kill().unwrap();
        inside.wait().unwrap();
        deeper.wait().unwrap();
        cgroup.wait_until_empty(Instant::now() + Duration::from_secs(5)).unwrap();
        cgroup.remove().unwrap();
        assert!(!cgroup.path().exists());
        assert!(outside.try_wait().unwrap().is_none(), "a process outside lives on");
        outside.kill().unwrap();
        outside.wait().unwrap();
    }

    #[test]
    fn the_id_is_the_kernels_and_a_second_cgroup_of_a_session_is_refused() {
        let parent = Parent::new("id");
        let cgroup = SessionCgroup::create(parent.0.path(), SessionId(3)).unwrap();
        assert_eq!(cgroup.id(), fs::metadata(cgroup.path()).unwrap().ino());
        let found = SessionCgroup::with_id(&parent.0.path().join(".."), cgroup.id()).unwrap().unwrap();
        assert_eq!(fs::canonicalize(found.path()).unwrap(), cgroup.path());
        assert!(SessionCgroup::create(parent.0.path(), SessionId(3)).is_err());
        cgroup.remove().unwrap();
        cgroup.remove().expect("what is gone is removed");
        assert!(SessionCgroup::with_id(parent.0.path(), cgroup.id()).unwrap().is_none());
        cgroup.kill().expect("what is gone is killed");
        assert!(SessionCgroup::create(parent.0.path(), SessionId(3)).is_ok());
    }
}
