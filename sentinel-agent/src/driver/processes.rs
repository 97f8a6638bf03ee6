//! The processes that have begun actions: each has a scope of its own, and is watched until it ends.

use std::io;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::Duration;

use sentinel_authority::Log;
use sentinel_engine::ScopeId;
use tokio::task::AbortHandle;

use super::Driver;
use super::identity::Identity;
use crate::clock::Clock;
use crate::connection::{Arrival, Connection};
use crate::enforcer::{Enforcer, EnforcerError};
use crate::intake::Lane;
use crate::{peer, watch};

/// How long the last words of a process that has ended may take from its socket to the driver.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// A process that has begun an action.
#[derive(Debug)]
pub(super) struct Process {
    /// With its pid, what tells it from all others.
    pub(super) marked_at: Duration,
    pub(super) scope: ScopeId,
    /// Whether its scope stands in front of its chain.
    is_placed: bool,
    /// Brings the news of its end.
    watcher: AbortHandle,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// The scope of a process; a new one at its first `begin`.
    ///
    /// # Errors
    /// Its end can't be watched for: then it may not begin anything.
    pub(super) fn scope_of(
        &mut self,
        connection: &Connection,
        identity: Identity,
    ) -> Result<ScopeId, String> {
        if let Some(process) = self.processes.get(&identity.pid) {
            if process.marked_at == identity.marked_at {
                return Ok(process.scope);
            }
            // An earlier process of that number, whose end is still to be told.
            self.on_process_gone(identity.pid, process.marked_at);
        }
        let watcher = self
            .watch_process(connection, identity)
            .map_err(|error| format!("process {} can't be watched: {error}", identity.pid))?;
        let scope = ScopeId(self.next_scope);
        self.next_scope = self.next_scope.saturating_add(1);
        let process = Process { marked_at: identity.marked_at, scope, is_placed: false, watcher };
        self.processes.insert(identity.pid, process);
        Ok(scope)
    }

    /// Puts the scope of a process in front of its chain, unless it is there: children that it forks from now on share
    /// its doors, earlier ones don't.
    ///
    /// # Errors
    /// The kernel side was not told.
    pub(super) fn place_scope(&mut self, identity: Identity, scope: ScopeId) -> Result<(), EnforcerError> {
        let unknown = || EnforcerError::Missing(format!("process {} is not known", identity.pid));
        let process = self.processes.get_mut(&identity.pid).ok_or_else(unknown)?;
        if !process.is_placed {
            self.enforcer.put_scope_in_front(identity.pid, scope)?;
            process.is_placed = true;
        }
        Ok(())
    }

    fn watch_process(&self, connection: &Connection, identity: Identity) -> io::Result<AbortHandle> {
        let Identity { pid, marked_at, .. } = identity;
        let pidfd = if pid == connection.opener.sender.pid {
            connection.opener.pidfd.try_clone()?
        } else {
            let pidfd = peer::open_pidfd(pid)?;
            // It may have ended since its message, and another have its pid.
            if self
                .enforcer
                .mark(pid)
                .map_err(io::Error::other)?
                .is_none_or(|mark| mark.marked_at != marked_at)
                || !peer::is_alive(pidfd.as_fd())
            {
                return Err(io::ErrorKind::NotFound.into());
            }
            pidfd
        };
        let watched = watch::readable(pidfd)?;
        let intake = Rc::clone(&self.intake);
        let task = tokio::task::spawn_local(async move {
            // An error of the watch is told as the end: its actions are abandoned rather than left open.
            drop(watched.readable().await);
            tokio::time::sleep(LAST_WORDS).await;
            intake.push(Lane::Host, Arrival::ProcessGone { pid, marked_at });
        });
        Ok(task.abort_handle())
    }
}
