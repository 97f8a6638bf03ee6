//! Sessions that nobody launched: cgroups that the configuration binds to a policy, with all that runs in them.
//!
//! Invariant: a look that finds a bound cgroup stops all that runs in it, and what it lets go on is held. Where a process can't be held (of
//! another user, of root, with capabilities), all are killed by the same look; where something else is in the way, they stand still until the
//! next. One exception: what the service manager is just making its user's goes on meanwhile, for `MOST_FAILURES` looks.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_authority::Log;
use sentinel_engine::{Event, SessionEnding};
use sentinel_proto::{SessionId, SessionName};

use super::Driver;
use super::sessions::Session;
use crate::clock::Clock;
use crate::enforcer::Enforcer;
use crate::peer;
use crate::session::cgroup::SessionCgroup;

/// A cgroup that the configuration binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundCgroup {
    /// Its folder.
    pub cgroup: PathBuf,
    /// As in /proc/PID/cgroup.
    pub shown: String,
    /// The session's name.
    pub session: SessionName,
    /// The policy's name.
    pub policy: String,
    /// Whom its processes run as.
    pub uid: u32,
}

/// A binding and how it goes.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) binding: BoundCgroup,
    /// How often in a row it could not be held.
    failures: u32,
}

impl Bound {
    pub(super) const fn new(binding: BoundCgroup) -> Self {
        Self { binding, failures: 0 }
    }
}

/// Why the processes of a bound cgroup aren't held.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unheld {
    /// One of them never can be.
    #[error("{0}")]
    Never(String),
    /// One is root's still, and runs the service manager's own code, which is about to make it its user's. Standing still it never would be.
    #[error("{0}")]
    Starting(String),
    /// It has nothing to do with them, and can be otherwise at the next look.
    #[error("{0}")]
    NotYet(String),
}

impl Unheld {
    fn not_yet(cause: impl std::fmt::Display) -> Self {
        Self::NotYet(cause.to_string())
    }
}

/// What isn't held at so many looks is killed, whatever the cause.
const MOST_FAILURES: u32 = 3;
/// So long the processes of a cgroup may take to stop, so that all of them can be marked. The driver waits meanwhile.
const FREEZE_TIME: Duration = Duration::from_millis(500);
/// `CAP_NET_BIND_SERVICE`: the one capability that takes nothing from what the kernel side holds.
const HARMLESS: u64 = 1 << 10;

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Holds each bound cgroup that is there, and ends the session of one that has gone.
    pub(crate) fn bind_cgroups(&mut self) {
        if self.is_stopping {
            return;
        }
        for index in 0..self.bindings.len() {
            let Some(bound) = self.bindings.get(index) else { return };
            let binding = bound.binding.clone();
            let there = match SessionCgroup::open_bound(binding.cgroup.clone()) {
                Ok(there) => Some(there),
                Err(error) if error.is_gone() => None,
                // What is held stays so.
                Err(error) => {
                    tracing::error!(name = %binding.session, %error, "a bound cgroup can't be looked at");
                    continue;
                }
            };
            let known = self.sessions.iter().find(|(_, session)| session.cgroup.path() == binding.cgroup);
            match (known, there) {
                (Some((_, session)), Some(there)) if session.cgroup.id() == there.id() => {}
                // Gone, or another one of that name: what ends is taken note of first, the new one is held at the next look.
                (Some((id, _)), _) => {
                    let id = *id;
                    self.end_session(id, SessionEnding::Exited);
                }
                (None, Some(cgroup)) => {
                    let held = self.bind(&binding, &cgroup);
                    self.note_binding(index, &cgroup, held);
                }
                (None, None) => {}
            }
        }
    }

    /// Kills what isn't to be waited for, and lets go on what has to.
    pub(super) fn note_binding(&mut self, index: usize, cgroup: &SessionCgroup, held: Result<(), Unheld>) {
        let Some(bound) = self.bindings.get_mut(index) else { return };
        let Err(unheld) = held else {
            bound.failures = 0;
            return;
        };
        bound.failures = bound.failures.saturating_add(1);
        let name = &bound.binding.session;
        if matches!(unheld, Unheld::Never(_)) || bound.failures >= MOST_FAILURES {
            bound.failures = 0;
            tracing::error!(%name, cause = %unheld, "a bound cgroup can't be held; its processes are killed");
            if let Err(error) = cgroup.kill() {
                tracing::error!(%name, %error, "and could not be killed; they stay frozen");
            }
            return;
        }
        let goes_on = matches!(unheld, Unheld::Starting(_));
        tracing::warn!(%name, cause = %unheld, goes_on, "a bound cgroup isn't held yet");
        if goes_on && let Err(error) = cgroup.freeze(false) {
            tracing::error!(%name, %error, "a bound cgroup may stay frozen");
        }
    }

    /// Puts a cgroup and all that runs in it under its policy.
    ///
    /// # Errors
    /// It isn't held, and all that runs in it is stopped.
    fn bind(&mut self, binding: &BoundCgroup, cgroup: &SessionCgroup) -> Result<(), Unheld> {
        // Before anything else is asked: none of it runs on beside its rules meanwhile.
        cgroup.freeze(true).map_err(Unheld::not_yet)?;
        if let Some(cause) = self.examinations.failure() {
            return Err(Unheld::NotYet(format!("this host does not enforce what it is told ({cause})")));
        }
        let BoundCgroup { session: name, policy, uid, shown, .. } = binding;
        let loaded = self.setting.policies.get(policy).cloned();
        let loaded = loaded.ok_or_else(|| Unheld::NotYet(format!("no policy is named `{policy}`")))?;
        for pid in cgroup.processes().map_err(Unheld::not_yet)? {
            vet(pid, *uid)?;
        }
        let state = self.authority.state();
        let session = state.session_named(name).unwrap_or_else(|| state.next_session());
        if self.sessions.contains_key(&session) {
            return Err(Unheld::NotYet(format!("another session named `{name}` is running; end it")));
        }
        let rules = Arc::new(loaded.policy);
        self.authority.bind(session, Arc::clone(&rules));
        let begun = self.step(Event::SessionStart {
            session,
            name: Some(name.clone()),
            policy: policy.clone(),
            policy_sha256: loaded.sha256,
            command: vec!["cgroup".to_owned(), shown.clone()],
            uid: *uid,
            tier: format!("{}-bound", self.enforcer.enforcement().tier.as_str()),
        });
        let begun = begun.map_err(Unheld::not_yet)?;
        if begun.facts.is_empty() {
            return Err(Unheld::NotYet(format!("session `{name}` has not ended")));
        }
        let own = SessionCgroup::open_bound(cgroup.path().to_owned()).map_err(Unheld::not_yet)?;
        let entry = Session::unlaunched(name.to_string(), policy.clone(), Arc::clone(&rules), own);
        let held = self
            .enforcer
            .start_session(session, cgroup.id(), &rules, *uid)
            .and_then(|()| self.enforcer.bind_cgroup(session, cgroup.path()))
            .map_err(Unheld::not_yet)
            .and_then(|()| self.mark_all(session, cgroup, *uid))
            .and_then(|()| {
                self.sessions.insert(session, entry);
                self.perform(&begun.effects).map_err(Unheld::not_yet)
            });
        if let Err(unheld) = held {
            self.undo_start(session, &unheld.to_string());
            if let Err(error) = self.enforcer.stop_session(session) {
                tracing::error!(%session, %error, "rules of the session are left");
            }
            return Err(unheld);
        }
        let is_paused = self.authority.state().is_paused(session);
        if let Err(error) = cgroup.freeze(is_paused) {
            tracing::error!(%session, %error, "a bound cgroup may stay frozen");
        }
        tracing::info!(%session, %name, cgroup = %shown, uid, "cgroup bound");
        Ok(())
    }

    /// Marks every process of a cgroup, which stays frozen.
    fn mark_all(&mut self, session: SessionId, cgroup: &SessionCgroup, uid: u32) -> Result<(), Unheld> {
        cgroup.freeze_all(Instant::now() + FREEZE_TIME).map_err(Unheld::not_yet)?;
        // Frozen processes fork no more; but others can be moved in at any time. Until a look finds nobody new:
        loop {
            let mut is_new = false;
            for pid in cgroup.processes().map_err(Unheld::not_yet)? {
                is_new |= self.mark_running(session, pid, uid)?;
            }
            if !is_new {
                return Ok(());
            }
        }
    }

    /// Marks a process of a bound cgroup, if it has no mark. Whether it had none.
    ///
    /// # Errors
    /// It can't be held.
    pub(super) fn mark_running(&mut self, session: SessionId, pid: u32, uid: u32) -> Result<bool, Unheld> {
        vet(pid, uid)?;
        match self.enforcer.mark(pid) {
            Ok(Some(mark)) if mark.session == session => Ok(false),
            Ok(Some(mark)) => Err(Unheld::NotYet(format!("process {pid} is session {}'s", mark.session))),
            Ok(None) => {
                let marked = self.enforcer.enrol_running(session, pid);
                // One that has ended meanwhile needs no mark.
                if marked.is_err() && peer::has_ended(pid) {
                    return Ok(false);
                }
                marked.map(|()| true).map_err(Unheld::not_yet)
            }
            // It has ended.
            Err(_gone) if peer::has_ended(pid) => Ok(false),
            Err(error) => Err(Unheld::not_yet(error)),
        }
    }
}

/// Whether a process of a bound cgroup can be held: it is its user's, and may not do what takes the kernel side's hold away. One that has
/// ended can.
fn vet(pid: u32, uid: u32) -> Result<(), Unheld> {
    let credentials = match peer::credentials_of(pid) {
        Ok(credentials) => credentials,
        Err(_ended) if peer::has_ended(pid) => return Ok(()),
        Err(error) => {
            return Err(Unheld::NotYet(format!("as whom process {pid} runs can't be read: {error}")));
        }
    };
    let unheld = |cause| {
        if is_the_service_managers(pid) { Unheld::Starting(cause) } else { Unheld::Never(cause) }
    };
    if let Some(other) = credentials.uids.iter().find(|id| **id != uid) {
        return Err(unheld(format!(
            "process {pid} runs as uid {other}, not {uid}; set `User=` in the unit, or `user` in the binding"
        )));
    }
    let beyond = credentials.capabilities & !HARMLESS;
    if beyond != 0 {
        return Err(unheld(format!(
            "process {pid} has capabilities ({beyond:#x}) that a bound cgroup can't be held with; take them from the unit"
        )));
    }
    Ok(())
}

/// Whether a process executes what the service manager does, or the program by which newer ones of systemd start a unit's.
fn is_the_service_managers(pid: u32) -> bool {
    executes(pid, Path::new("/proc/1/exe"))
}

/// Whether a process executes this file, or the executor beside it. What can't be read it doesn't.
fn executes(pid: u32, manager: &Path) -> bool {
    let file = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let Some(its) = file(Path::new(&format!("/proc/{pid}/exe"))) else { return false };
    let executor = std::fs::read_link(manager).ok().map(|path| path.with_file_name("systemd-executor"));
    file(manager) == Some(its) || executor.is_some_and(|executor| file(&executor) == Some(its))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    #[test]
    fn only_who_executes_the_service_managers_program_or_its_executor_is_being_started_by_it() {
        let folder = std::env::temp_dir().join(format!("sentinel-manager-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = |name: &str| {
            let path = folder.join(name);
            std::fs::copy("/bin/sleep", &path).unwrap();
            path
        };
        let (manager, executor, other) = (program("systemd"), program("systemd-executor"), program("other"));
        let start = |path: &Path| {
            // Another test's fork may have the file that was just written still open.
            let child = (0..500).find_map(|_| {
                std::thread::sleep(Duration::from_millis(2));
                Command::new(path).arg("60").spawn().ok()
            });
            Running(child.unwrap())
        };
        let (of_manager, of_executor, of_other) = (start(&manager), start(&executor), start(&other));
        let link = folder.join("exe");
        std::os::unix::fs::symlink(&manager, &link).unwrap();
        assert!(executes(of_manager.0.id(), &link) && executes(of_executor.0.id(), &link));
        assert!(!executes(of_other.0.id(), &link));
        assert!(!executes(of_other.0.id(), &folder.join("none")), "what can't be read is nobody's");
        drop((of_manager, of_executor, of_other));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
