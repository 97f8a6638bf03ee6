//! Sessions that nobody launched: cgroups that the configuration binds to a policy, with all that runs in them.
//!
//! Invariant: as soon as a bound cgroup is there, it is held; what can't be held (a process of another user, of root, with capabilities) is
//! killed rather than left to run beside its rules.

use std::path::PathBuf;
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

/// What can't be held at so many looks is killed. A unit that is being started is root's for a moment, until systemd has made it its user's.
const MOST_FAILURES: u32 = 3;
/// So long the processes of a cgroup may take to stop, so that all of them can be marked. The driver waits meanwhile.
const FREEZE_TIME: Duration = Duration::from_millis(500);
/// `CAP_NET_BIND_SERVICE`: the one capability that takes nothing from what the kernel side holds.
const HARMLESS: u64 = 1 << 10;

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Holds each bound cgroup that is there, and ends the session of one that has gone.
    pub(super) fn bind_cgroups(&mut self) {
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

    fn note_binding(&mut self, index: usize, cgroup: &SessionCgroup, held: Result<(), String>) {
        let Some(bound) = self.bindings.get_mut(index) else { return };
        let Err(cause) = held else {
            bound.failures = 0;
            return;
        };
        bound.failures = bound.failures.saturating_add(1);
        let name = &bound.binding.session;
        if bound.failures < MOST_FAILURES {
            tracing::warn!(%name, %cause, "a bound cgroup isn't held yet");
            return;
        }
        bound.failures = 0;
        tracing::error!(%name, %cause, "a bound cgroup can't be held; its processes are killed");
        if let Err(error) = cgroup.kill() {
            tracing::error!(%name, %error, "and could not be killed");
        }
    }

    /// Puts a cgroup and all that runs in it under its policy.
    fn bind(&mut self, binding: &BoundCgroup, cgroup: &SessionCgroup) -> Result<(), String> {
        if let Some(cause) = self.examinations.failure() {
            return Err(format!("this host does not enforce what it is told ({cause})"));
        }
        let BoundCgroup { session: name, policy, uid, shown, .. } = binding;
        let loaded = self.setting.policies.get(policy).cloned();
        let loaded = loaded.ok_or_else(|| format!("no policy is named `{policy}`"))?;
        for pid in cgroup.processes().map_err(|error| error.to_string())? {
            vet(pid, *uid)?;
        }
        let state = self.authority.state();
        let session = state.session_named(name).unwrap_or_else(|| state.next_session());
        if self.sessions.contains_key(&session) {
            return Err(format!("another session named `{name}` is running; end it"));
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
        let begun = begun.map_err(|error| error.to_string())?;
        if begun.facts.is_empty() {
            return Err(format!("session `{name}` has not ended"));
        }
        let own = SessionCgroup::open_bound(cgroup.path().to_owned()).map_err(|error| error.to_string())?;
        let entry = Session::unlaunched(name.to_string(), policy.clone(), Arc::clone(&rules), own);
        let held = self
            .enforcer
            .start_session(session, cgroup.id(), &rules, *uid)
            .and_then(|()| self.enforcer.bind_cgroup(session, cgroup.path()))
            .map_err(|error| error.to_string())
            .and_then(|()| self.mark_all(session, cgroup, *uid))
            .and_then(|()| {
                self.sessions.insert(session, entry);
                self.perform(&begun.effects).map_err(|error| error.to_string())
            });
        let is_paused = self.authority.state().is_paused(session);
        if let Err(error) = cgroup.freeze(is_paused) {
            tracing::error!(%session, %error, "a bound cgroup may stay frozen");
        }
        if let Err(cause) = held {
            self.undo_start(session, &cause);
            if let Err(error) = self.enforcer.stop_session(session) {
                tracing::error!(%session, %error, "rules of the session are left");
            }
            return Err(cause);
        }
        tracing::info!(%session, %name, cgroup = %shown, uid, "cgroup bound");
        Ok(())
    }

    /// Marks every process of a cgroup, which stays frozen.
    fn mark_all(&mut self, session: SessionId, cgroup: &SessionCgroup, uid: u32) -> Result<(), String> {
        cgroup.freeze_all(Instant::now() + FREEZE_TIME).map_err(|error| error.to_string())?;
        // Frozen processes fork no more; but others can be moved in at any time. Until a look finds nobody new:
        loop {
            let mut is_new = false;
            for pid in cgroup.processes().map_err(|error| error.to_string())? {
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
    pub(super) fn mark_running(&mut self, session: SessionId, pid: u32, uid: u32) -> Result<bool, String> {
        vet(pid, uid)?;
        match self.enforcer.mark(pid) {
            Ok(Some(mark)) if mark.session == session => Ok(false),
            Ok(Some(mark)) => Err(format!("process {pid} is session {}'s", mark.session)),
            Ok(None) => {
                let marked = self.enforcer.enrol_running(session, pid);
                // One that has ended meanwhile needs no mark.
                if marked.is_err() && peer::has_ended(pid) {
                    return Ok(false);
                }
                marked.map(|()| true).map_err(|error| error.to_string())
            }
            // It has ended.
            Err(_gone) if peer::has_ended(pid) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether a process of a bound cgroup can be held: it is its user's, and may not do what takes the kernel side's hold away. One that has
/// ended can.
fn vet(pid: u32, uid: u32) -> Result<(), String> {
    let credentials = match peer::credentials_of(pid) {
        Ok(credentials) => credentials,
        Err(_ended) if peer::has_ended(pid) => return Ok(()),
        Err(error) => return Err(format!("as whom process {pid} runs can't be read: {error}")),
    };
    if let Some(other) = credentials.uids.iter().find(|id| **id != uid) {
        return Err(format!(
            "process {pid} runs as uid {other}, not {uid}; set `User=` in the unit, or `user` in the binding"
        ));
    }
    let beyond = credentials.capabilities & !HARMLESS;
    if beyond != 0 {
        return Err(format!(
            "process {pid} has capabilities ({beyond:#x}) that a bound cgroup can't be held with; take them from the unit"
        ));
    }
    Ok(())
}
