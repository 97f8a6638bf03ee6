//! Finds and destroys sessions' sockets, in every network namespace that a session's process was in when it was marked.
//!
//! Invariant: what of a namespace is held here is held for a session that has a process in it, and let go with that session: a socket keeps its
//! whole namespace alive. Where sockets can't be destroyed, the kernel side still lets nothing out of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use sentinel_proto::SessionId;

use super::netns::{self, NetworkNamespace};
use super::sockdiag::{Found, SockDiag};

/// What lists and destroys sockets, by where they are.
#[derive(Debug)]
pub(super) struct Destroying {
    own: SockDiag,
    own_namespace: NetworkNamespace,
    elsewhere: BTreeMap<NetworkNamespace, Elsewhere>,
}

/// Another network namespace, and the sessions that have been seen in it.
#[derive(Debug)]
struct Elsewhere {
    diag: SockDiag,
    sessions: BTreeSet<SessionId>,
}

impl Destroying {
    /// In the agent's own network namespace.
    ///
    /// # Errors
    /// There is no such thing on this kernel, or it can't tell of TCP sockets.
    pub(super) fn open() -> io::Result<Self> {
        let (own_namespace, _file) = NetworkNamespace::of(std::process::id())?;
        Ok(Self { own: SockDiag::open()?, own_namespace, elsewhere: BTreeMap::new() })
    }

    /// A session has a process: what it opens is in that one's network namespace.
    ///
    /// # Errors
    /// The namespace can't be entered, or its sockets can't be listed.
    pub(super) fn note(&mut self, session: SessionId, pid: u32) -> io::Result<()> {
        let (namespace, file) = NetworkNamespace::of(pid)?;
        if namespace == self.own_namespace {
            return Ok(());
        }
        if let Some(known) = self.elsewhere.get_mut(&namespace) {
            known.sessions.insert(session);
            return Ok(());
        }
        let diag = netns::inside(&file, SockDiag::open)?;
        self.elsewhere.insert(namespace, Elsewhere { diag, sessions: BTreeSet::from([session]) });
        Ok(())
    }

    /// A session's processes are all gone.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.elsewhere.retain(|_, known| {
            known.sessions.remove(&session);
            !known.sessions.is_empty()
        });
    }

    /// A session's TCP connections that were made in a cgroup, not below it; and what kept those of a namespace from being listed.
    pub(super) fn connections_of(&mut self, session: SessionId, cgroup: u64) -> (Vec<Found>, io::Result<()>) {
        all(self.of(session).collect(), |diag| diag.connections_of(cgroup))
    }

    /// All TCP connections of every namespace; and what kept those of one from being listed.
    pub(super) fn connections(&mut self) -> (Vec<Found>, io::Result<()>) {
        let elsewhere = self.elsewhere.values_mut().map(|known| &mut known.diag);
        all(std::iter::once(&mut self.own).chain(elsewhere).collect(), SockDiag::connections)
    }

    /// Destroys a session's socket, wherever it is. One that has gone, or has another peer now, is left alone.
    ///
    /// # Errors
    /// It may be there still.
    pub(super) fn destroy(&mut self, session: SessionId, found: &Found) -> io::Result<()> {
        // By its own number, which no socket of any other namespace has.
        let destroyed = self.of(session).map(|diag| diag.destroy(found));
        destroyed.fold(Ok(()), io::Result::and)
    }

    /// As [`Self::destroy`], of whichever session it is.
    ///
    /// # Errors
    /// It may be there still.
    pub(super) fn destroy_of_any(&mut self, found: &Found) -> io::Result<()> {
        let destroyed = self.elsewhere.values_mut().map(|known| known.diag.destroy(found));
        destroyed.fold(self.own.destroy(found), io::Result::and)
    }

    /// How many other network namespaces are held.
    #[cfg(test)]
    pub(super) fn elsewhere(&self) -> usize {
        self.elsewhere.len()
    }

    /// What is responsible for a session's sockets.
    fn of(&mut self, session: SessionId) -> impl Iterator<Item = &mut SockDiag> {
        let is_its = move |known: &&mut Elsewhere| known.sessions.contains(&session);
        let elsewhere = self.elsewhere.values_mut().filter(is_its).map(|known| &mut known.diag);
        std::iter::once(&mut self.own).chain(elsewhere)
    }
}

/// What each of these lists; and the last failure. One namespace's keeps no other's from being listed.
fn all(
    diags: Vec<&mut SockDiag>,
    mut list: impl FnMut(&mut SockDiag) -> io::Result<Vec<Found>>,
) -> (Vec<Found>, io::Result<()>) {
    let (mut found, mut listed) = (Vec::new(), Ok(()));
    for diag in diags {
        match list(diag) {
            Ok(some) => found.extend(some),
            Err(error) => listed = Err(error),
        }
    }
    (found, listed)
}

#[cfg(test)]
mod tests {
    use super::super::puppet::{Argument, Deed, Puppet};
    use super::*;

    #[test]
    fn a_namespace_is_held_while_a_session_is_in_it_and_the_agents_own_is_not_counted() {
        let unshared = || {
            let puppet = Puppet::start().unwrap();
            let namespace = [Argument::Number(libc::CLONE_NEWNET.into())];
            assert_eq!(puppet.order(Deed::Call(libc::SYS_unshare, &namespace)).unwrap(), 0);
            puppet
        };
        let (one, other, beside) = (unshared(), unshared(), Puppet::start().unwrap());
        let mut destroying = Destroying::open().unwrap();
        let (first, second) = (SessionId(1), SessionId(2));
        for (session, process) in
            [(first, &one), (second, &one), (second, &other), (second, &other), (first, &beside)]
        {
            destroying.note(session, process.pid()).unwrap();
        }
        let counts =
            |destroying: &mut Destroying| [first, second].map(|session| destroying.of(session).count());
        assert_eq!(counts(&mut destroying), [2, 3]);
        destroying.forget(second);
        assert_eq!((counts(&mut destroying), destroying.elsewhere()), ([2, 1], 1));
        destroying.forget(first);
        assert_eq!((counts(&mut destroying), destroying.elsewhere()), ([1, 1], 0));
    }

    #[test]
    fn what_fails_in_one_namespace_is_told_and_keeps_no_other_from_being_listed() {
        let (mut one, mut other) = (SockDiag::open().unwrap(), SockDiag::open().unwrap());
        let found = Found {
            cookie: 1,
            protocol: 6,
            source: [0; 16],
            source_port: 1,
            destination: [0; 16],
            destination_port: 2,
        };
        let mut lists = [Err(io::Error::other("refused")), Ok(vec![found])].into_iter();
        let (listed, failure) = all(vec![&mut one, &mut other], |_| lists.next().unwrap());
        assert_eq!(listed, [found]);
        assert_eq!(failure.unwrap_err().to_string(), "refused");
    }
}
