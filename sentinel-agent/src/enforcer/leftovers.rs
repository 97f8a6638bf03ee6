//! Ends what an instance left that died without a word: its processes first, its hooks last.
//!
//! Invariant: as long as one of its processes may live, its hooks stay.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData, MapError};
use rustix::process::{Signal, pidfd_send_signal};
use sentinel_ebpf_common::TaskMark;

use super::maps::with_causes;
use super::places::{cgroup2, unavailable};
use super::{EnforcerError, Places};
use crate::peer;
use crate::session::cgroup::{CgroupError, SessionCgroup};

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(10);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(5);

type Marks = HashMap<MapData, u32, TaskMark>;

/// Kills all processes of the instance's sessions, and removes its cgroups, pins and folders. Nothing there: nothing done.
///
/// # Errors
/// Something could not be ended or removed; what is left still denies.
pub fn remove(places: &Places) -> Result<(), EnforcerError> {
    if places.cgroup.exists() {
        end_cgroup(&places.cgroup)
            .map_err(|cause| unavailable("end the sessions in", &places.cgroup, cause))?;
    }
    let cgroups = places.pins.join("CGROUPS");
    if cgroups.exists() {
        end_bound(&cgroups)?;
    }
    let tasks = places.pins.join("TASKS");
    if tasks.exists() {
        kill_marked(&tasks)?;
    }
    unpin(&places.pins)?;
    places.remove()
}

fn end_cgroup(path: &Path) -> Result<(), CgroupError> {
    let cgroup = SessionCgroup::open(path.to_owned())?;
    cgroup.kill_all(Instant::now() + DEATH)?;
    cgroup.remove()
}

/// Kills all that is in the cgroups that the kernel side knows: those of sessions that were bound are not the instance's own.
fn end_bound(pin: &Path) -> Result<(), EnforcerError> {
    let fail = |cause: MapError| unavailable("read the sessions' cgroups in", pin, with_causes(&cause));
    let map = MapData::from_pin(pin).map_err(fail)?;
    let cgroups: HashMap<MapData, u64, u32> = HashMap::try_from(Map::HashMap(map)).map_err(fail)?;
    let known = cgroups.keys().collect::<Result<Vec<u64>, MapError>>().map_err(fail)?;
    let root = cgroup2()?;
    for id in known {
        let found = SessionCgroup::with_id(&root, id);
        let found = found.map_err(|cause| unavailable("look for a session's cgroup in", &root, cause))?;
        if let Some(cgroup) = found {
            let killed = cgroup.kill_all(Instant::now() + DEATH);
            killed.map_err(|cause| unavailable("end the session in", cgroup.path(), cause))?;
        }
    }
    Ok(())
}

/// Kills marked processes that somebody took out of their session's cgroup, and waits until none is left.
fn kill_marked(pin: &Path) -> Result<(), EnforcerError> {
    let fail = |cause: MapError| unavailable("read the marks in", pin, with_causes(&cause));
    let map = MapData::from_pin(pin).map_err(fail)?;
    let marks: Marks = HashMap::try_from(Map::HashMap(map)).map_err(fail)?;
    let deadline = Instant::now() + DEATH;
    loop {
        let living = living(&marks).map_err(fail)?;
        if living.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let cause = format!("{} of its processes live on", living.len());
            return Err(unavailable("end what is marked in", pin, cause));
        }
        for process in living {
            // One that is gone by now is what is wanted; any other is found again.
            let _gone = pidfd_send_signal(process.as_fd(), Signal::KILL);
        }
        thread::sleep(PAUSE);
    }
}

/// The processes that have a mark of their own.
fn living(marks: &Marks) -> Result<Vec<OwnedFd>, MapError> {
    let mut living = Vec::new();
    // Marks go while this runs, and each that goes may start the listing over: a bound, so that it ends.
    for entry in marks.iter().take(1 << 17) {
        let (tgid, mark) = match entry {
            Ok(entry) => entry,
            Err(MapError::KeyNotFound) => continue,
            Err(cause) => return Err(cause),
        };
        // The descriptor first: what the pid stands for from here on is what is looked at.
        let Ok(pidfd) = peer::open_pidfd(tgid) else { continue };
        let is_its_own =
            peer::started_at(tgid).is_ok_and(|start| Duration::from_nanos(mark.marked_at) >= start);
        if is_its_own && peer::is_alive(pidfd.as_fd()) {
            living.push(pidfd);
        }
    }
    Ok(living)
}

/// Removes the pins; what nobody else holds is unloaded with its last one.
fn unpin(folder: &Path) -> Result<(), EnforcerError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<Result<Vec<_>, io::Error>>(),
        Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => Err(cause),
    };
    for entry in entries.map_err(|cause| unavailable("list", folder, cause))? {
        let path = entry.path();
        fs::remove_file(&path).map_err(|cause| unavailable("remove", &path, cause))?;
    }
    Ok(())
}
