//! Compares, each second, who is in a session's cgroup with who bears its mark: the two are one set.
//!
//! Invariant: a process that is in one and not in the other at two looks in a row is killed: it was moved, by somebody who can do that. In
//! a bound cgroup, whose processes others may start, one without a mark gets it; elsewhere the child of a marked one does. A mark whose process has ended is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};
use sentinel_authority::Log;
use sentinel_engine::{Attempt, Event};
use sentinel_proto::SessionId;

use super::Driver;
use crate::clock::Clock;
use crate::enforcer::Enforcer;
use crate::peer;

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(5);
/// After so many looks in a row that found nobody alive, nobody is.
const QUIET_LOOKS: u32 = 20;
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(5);

/// Who was in the wrong place at the last look: session and tgid.
pub(super) type Strays = BTreeSet<(SessionId, u32)>;

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Kills whoever is in the wrong place for the second time.
    pub(super) fn end_strays(&mut self) {
        if self.sessions.is_empty() {
            return self.strays.clear();
        }
        // The marks first: a process that is forked in between is then in the cgroup without one, once.
        let marks = match self.enforcer.marks() {
            Ok(marks) => marks,
            Err(error) => return tracing::error!(%error, "whose marks there are can't be read"),
        };
        let mut marked: BTreeMap<SessionId, BTreeSet<u32>> = BTreeMap::new();
        for (tgid, mark) in marks {
            marked.entry(mark.session).or_default().insert(tgid);
        }
        let mut strays = Strays::new();
        let mut to_mark = Vec::new();
        for (id, session) in self.sessions.iter().filter(|(_, session)| session.ending.is_none()) {
            let inside: BTreeSet<u32> = match session.cgroup.processes() {
                Ok(pids) => pids.into_iter().collect(),
                Err(error) => {
                    tracing::error!(session = %id, %error, "who is in a session can't be read");
                    continue;
                }
            };
            let marked = marked.remove(id).unwrap_or_default();
            for pid in inside.difference(&marked) {
                if session.cgroup.is_bound() {
                    to_mark.push((*id, *pid));
                } else {
                    strays.insert((*id, *pid));
                }
            }
            // What has ended keeps its mark until its parent has heard of it.
            strays.extend(marked.difference(&inside).map(|pid| (*id, *pid)));
        }
        for (session, pid) in to_mark {
            let Some(uid) = self.authority.state().uid_of(session) else { continue };
            if let Err(cause) = self.mark_running(session, pid, uid) {
                tracing::warn!(%session, pid, %cause, "a process without a mark can't be held");
                strays.insert((session, pid));
            }
        }
        let seen_twice: Vec<_> = strays.intersection(&self.strays).copied().collect();
        self.strays = strays;
        for (session, pid) in seen_twice {
            if !self.mark_child(session, pid) {
                self.end_stray(session, pid);
            }
        }
    }

    /// Removes a mark that has outlived its process: the kernel doesn't run `process_free` in the middle of a write to any map, and enough of such
    /// marks would fill theirs. Should the pid be given to a fork of a session in this very moment, that is without a mark, and killed.
    fn forget_ended(&mut self, session: SessionId, pid: u32) {
        if let Err(error) = self.enforcer.forget_ended(pid) {
            tracing::warn!(%session, pid, %error, "the mark of a process that has ended stays");
        }
    }

    /// Marks a child of a marked process that has no mark: a kernel that preempts may have left out what makes it. Who was moved in has its parent
    /// outside. Whether it is marked now.
    fn mark_child(&mut self, session: SessionId, pid: u32) -> bool {
        let bears_mark =
            |pid: u32| matches!(self.enforcer.mark(pid), Ok(Some(mark)) if mark.session == session);
        let is_inside = self
            .sessions
            .get(&session)
            .is_some_and(|entry| entry.cgroup.processes().is_ok_and(|inside| inside.contains(&pid)));
        if !is_inside || bears_mark(pid) || !peer::parent_of(pid).is_ok_and(bears_mark) {
            return false;
        }
        let Some(uid) = self.authority.state().uid_of(session) else { return false };
        tracing::warn!(%session, pid, "a child had no mark; it gets one");
        let marked = self.mark_running(session, pid, uid);
        marked.inspect_err(|cause| tracing::warn!(%session, pid, %cause, "it can't be held")).is_ok()
    }

    fn end_stray(&mut self, session: SessionId, pid: u32) {
        // No session has the agent, whatever a map says.
        if pid == std::process::id() {
            return;
        }
        let pidfd = match peer::open_pidfd(pid) {
            Ok(pidfd) => pidfd,
            Err(_gone) if peer::has_ended(pid) => return self.forget_ended(session, pid),
            Err(_unknown) => return,
        };
        let is_inside = self
            .sessions
            .get(&session)
            .is_some_and(|entry| entry.cgroup.processes().is_ok_and(|processes| processes.contains(&pid)));
        // By the pidfd's process alone, from here on: its mark is none if the pid is another's by now.
        let is_marked = matches!(self.enforcer.mark(pid), Ok(Some(mark)) if mark.session == session);
        if is_inside == is_marked || !peer::is_alive(pidfd.as_fd()) {
            return;
        }
        let killed = pidfd_send_signal(&pidfd, Signal::KILL);
        let what = if is_inside {
            "a process without a mark in its cgroup"
        } else {
            "a process of it outside its cgroup"
        };
        tracing::error!(%session, pid, what, ?killed, "somebody moved a process; it is killed");
        let attempt = Box::new(Attempt {
            operation: "move".to_owned(),
            target: what.to_owned(),
            verdict: "stray".to_owned(),
            fate: if killed.is_ok() { "killed" } else { "recorded" }.to_owned(),
            process: String::new(),
            pid,
            would_allow: None,
        });
        // Killed all the same where it can't be written.
        drop(self.step(Event::KernelDenied { session, attempt, count: 1 }));
    }

    /// Kills every process that bears a session's mark, those that are forked meanwhile included, and waits, blocking, until none is left.
    ///
    /// # Errors
    /// Some may be left: what holds them must stay.
    pub(super) fn kill_marked(&self, session: SessionId) -> Result<(), String> {
        let deadline = Instant::now() + DEATH;
        let mut quiet = 0_u32;
        loop {
            let marks = self.enforcer.marks().map_err(|error| error.to_string())?;
            let mut is_left = false;
            for (pid, _) in marks.iter().filter(|(_, mark)| mark.session == session) {
                let pidfd = match peer::open_pidfd(*pid) {
                    Ok(pidfd) => pidfd,
                    Err(_gone) if peer::has_ended(*pid) => continue,
                    Err(error) => return Err(format!("process {pid} can't be held to be killed: {error}")),
                };
                // After the pidfd: the mark is none if the pid is another's by now.
                let is_marked = match self.enforcer.mark(*pid) {
                    Ok(mark) => mark.is_some_and(|mark| mark.session == session),
                    Err(_gone) if peer::has_ended(*pid) => false,
                    Err(error) => return Err(error.to_string()),
                };
                if is_marked && peer::is_alive(pidfd.as_fd()) {
                    is_left = true;
                    let _ended = pidfd_send_signal(&pidfd, Signal::KILL);
                }
            }
            // Who forks and ends while this looks is seen by one of the next looks.
            quiet = if is_left { 0 } else { quiet.saturating_add(1) };
            if quiet == QUIET_LOOKS {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("some live on after {DEATH:?}"));
            }
            std::thread::sleep(PAUSE);
        }
    }
}
