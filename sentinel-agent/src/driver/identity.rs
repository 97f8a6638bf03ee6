//! Who an application or an operator is.
//!
//! Invariant: a session comes from the kernel-side mark of the process that the kernel says wrote the message, and
//! from nothing else; the process is seen alive after its pid was used for the last time.

use std::os::fd::AsFd as _;
use std::time::Duration;

use sentinel_authority::Log;
use sentinel_proto::SessionId;

use super::Driver;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::enforcer::{Enforcer, Mark};
use crate::peer::{self, Sender};

/// A process of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: u32,
    pub(super) session: SessionId,
    /// When its mark was made: with the pid, what tells it from all others.
    pub(super) marked_at: Duration,
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// The sender of an application's message that was written after `since`.
    ///
    /// # Errors
    /// Why the message speaks for no session.
    pub(super) fn application(
        &self,
        connection: &Connection,
        sender: Sender,
        since: Duration,
    ) -> Result<Identity, String> {
        let pid = sender.pid;
        let gone = || format!("process {pid}, which sent this, is gone");
        let is_opener = pid == connection.opener.sender.pid;
        let opened;
        let pidfd = if is_opener {
            connection.opener.pidfd.as_fd()
        } else {
            opened = peer::open_pidfd(pid).map_err(|_gone| gone())?;
            opened.as_fd()
        };
        let known = connection.opener_mark().filter(|_| is_opener);
        let mark = known.map_or_else(|| self.current_mark(pid), Ok)?;
        let Mark { session, marked_at, .. } = mark;
        // A message can be older than whoever has its sender's pid by now.
        if !is_opener && marked_at > since {
            return Err(format!("process {pid} is too young for this connection; connect anew after a fork"));
        }
        if !peer::is_alive(pidfd) {
            return Err(gone());
        }
        if is_opener {
            connection.know_opener(mark);
        }
        if self.sessions.get(&session).is_none_or(|session| session.ending.is_some()) {
            return Err(format!("session {session} has ended; start a new one with `sentinel run`"));
        }
        Ok(Identity { pid, session, marked_at })
    }

    /// The mark of the process that has this pid now.
    fn current_mark(&self, pid: u32) -> Result<Mark, String> {
        let unknown = |error: &dyn std::fmt::Display| format!("who process {pid} is can't be read: {error}");
        let Some(mark) = self.enforcer.mark(pid).map_err(|error| unknown(&error))? else {
            return Err(format!("process {pid} is in no session; start it with `sentinel run`"));
        };
        if peer::started_at(pid).map_err(|error| unknown(&error))? > mark.marked_at {
            return Err(format!("process {pid} is in no session; an earlier one of that number was"));
        }
        Ok(mark)
    }

    /// Whether the sender of an operator's message may operate.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn operator(&self, connection: &Connection, sender: Sender) -> Result<(), String> {
        let pid = sender.pid;
        let is_opener = pid == connection.opener.sender.pid;
        let opened;
        let unknown = |error: &dyn std::fmt::Display| format!("who process {pid} is can't be read: {error}");
        let pidfd = if is_opener {
            connection.opener.pidfd.as_fd()
        } else {
            opened = peer::open_pidfd(pid).map_err(|error| unknown(&error))?;
            opened.as_fd()
        };
        let inside = || format!("process {pid} is in a session; operate from outside");
        if self.enforcer.mark(pid).map_err(|error| unknown(&error))?.is_some() {
            return Err(inside());
        }
        let cgroup = peer::cgroup_of(pid).map_err(|error| unknown(&error))?;
        let bound = self.setting.bindings.iter().map(|bound| bound.shown.as_str());
        if bound.chain([self.setting.governed.as_str()]).any(|governed| is_below(&cgroup, governed)) {
            return Err(inside());
        }
        if !peer::is_alive(pidfd) {
            return Err(format!("process {pid}, which sent this, is gone"));
        }
        let groups = if is_opener { connection.opener.groups.as_slice() } else { &[] };
        let in_group = |group| sender.gid == group || groups.contains(&group);
        if sender.uid == 0 || self.setting.operators.is_some_and(in_group) {
            return Ok(());
        }
        Err(format!("uid {} may not operate this agent; be root or in the group `sentinel`", sender.uid))
    }
}

/// Whether a cgroup's path is this one or below it.
fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::is_below;

    #[test]
    fn a_cgroup_is_below_another_by_whole_names() {
        assert!(is_below("/sentinel", "/sentinel") && is_below("/sentinel/host/1", "/sentinel"));
        assert!(!is_below("/sentinels/host", "/sentinel") && !is_below("/", "/sentinel"));
    }
}
