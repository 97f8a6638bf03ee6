//! The connections that doors let out, and their end when those shut.
//!
//! Invariant: nothing leaves by a connection whose door is shut, whatever happens here: that is the kernel side's. This only sees to it that
//! applications are told, and don't wait for an answer that never comes. It costs as much as was opened under the scope, and nothing where
//! nothing was.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::Ipv4Addr;

use sentinel_ebpf_common::record::OPERATION_EGRESS;
use sentinel_ebpf_common::verdict::{is_in_flight, network_baseline};
use sentinel_ebpf_common::{BASELINE, Connection, ConnectionKey, Endpoint, GRANTS, Scope, Session};
use sentinel_proto::SessionId;

use super::destroying::Destroying;
use super::maps::Maps;
use super::sockdiag::Found;
use super::{EnforcerError, KernelRecord};
use crate::peer;

/// So many slots behind a scope's count are looked at: two CPUs may have counted over each other.
const BEHIND_COUNT: u64 = 16;
const TCP: u32 = 6;

/// What is known of each scope that has doors, or connections that live on.
#[derive(Debug)]
pub(super) struct Connections {
    destroying: Option<Destroying>,
    scopes: BTreeMap<u64, Known>,
    is_failure_told: bool,
}

#[derive(Debug)]
struct Known {
    doors: Box<Scope>,
    /// Slots of connections that were there when last looked.
    kept: Vec<u64>,
    /// The first slot that was not looked at.
    next: u64,
}

impl Connections {
    pub(super) fn new() -> Self {
        let destroying = Destroying::open();
        let destroying = destroying.inspect_err(|error| {
            tracing::warn!(%error, "connections of actions that end can't be destroyed; applications may wait for answers in vain");
        });
        Self { destroying: destroying.ok(), scopes: BTreeMap::new(), is_failure_told: false }
    }

    /// A scope's doors are these now; `keep_alive` are the grants whose connections outlive their actions.
    pub(super) fn doors_changed(
        &mut self,
        maps: &mut Maps,
        id: u64,
        doors: Scope,
        keep_alive: u64,
    ) -> Result<(), EnforcerError> {
        let known = self.scopes.remove(&id);
        let Some(mut known) = known else {
            if doors.open != 0 {
                self.scopes.insert(id, Known { doors: Box::new(doors), kept: Vec::new(), next: 0 });
            }
            return Ok(());
        };
        let is_narrower = is_narrower(&known.doors, &doors);
        *known.doors = doors;
        if is_narrower {
            self.end(maps, id, &mut known, keep_alive)?;
        }
        if known.doors.open == 0 && known.kept.is_empty() {
            return maps.connection_counts.remove(&id);
        }
        self.scopes.insert(id, known);
        Ok(())
    }

    /// Destroys the connections of a scope that its doors no longer let send.
    fn end(
        &mut self,
        maps: &mut Maps,
        id: u64,
        known: &mut Known,
        keep_alive: u64,
    ) -> Result<(), EnforcerError> {
        let Some(count) = maps.connection_counts.find(&id)? else { return Ok(()) };
        let behind = count.saturating_add(BEHIND_COUNT);
        let slots: Vec<u64> = std::mem::take(&mut known.kept).into_iter().chain(known.next..behind).collect();
        known.next = known.next.max(count);
        for slot in slots {
            let key = ConnectionKey { scope: id, slot };
            let Some(connection) = maps.connections.find(&key)? else { continue };
            known.next = known.next.max(slot.saturating_add(1));
            let bits = bits_of(maps, &known.doors, &connection)?;
            if bits & keep_alive != 0 || is_in_flight(&known.doors, bits, connection.opened_at) {
                known.kept.push(slot);
                continue;
            }
            self.destroy(SessionId(known.doors.session), &found(&connection));
            maps.connections.remove(&key)?;
        }
        Ok(())
    }

    /// Destroys every connection that an earlier agent's actions have left.
    pub(super) fn sweep(&mut self, maps: &mut Maps) -> Result<(), EnforcerError> {
        for key in maps.connections.keys(|_| true)? {
            if let Some(connection) = maps.connections.find(&key)? {
                self.try_to(|destroying| destroying.destroy_of_any(&found(&connection)));
            }
            maps.connections.remove(&key)?;
        }
        for id in maps.connection_counts.keys(|_| true)? {
            maps.connection_counts.remove(&id)?;
        }
        Ok(())
    }

    /// A session has a process: its connections are looked for in that one's network namespace too.
    pub(super) fn note_process(&mut self, session: SessionId, pid: u32) {
        let Some(destroying) = &mut self.destroying else { return };
        if let Err(error) = destroying.note(session, pid)
            && !peer::has_ended(pid)
        {
            tracing::warn!(%session, pid, %error, "connections in a network namespace can't be destroyed; applications may wait for answers in vain");
        }
    }

    /// Forgets what a session had, whose processes are all gone.
    pub(super) fn forget(&mut self, maps: &mut Maps, session: SessionId) -> Result<(), EnforcerError> {
        if let Some(destroying) = &mut self.destroying {
            destroying.forget(session);
        }
        let of_session = |known: &Known| known.doors.session == session.0;
        let ids: Vec<u64> =
            self.scopes.iter().filter(|(_, known)| of_session(known)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(known) = self.scopes.remove(&id) else { continue };
            let Some(count) = maps.connection_counts.find(&id)? else { continue };
            let behind = count.saturating_add(BEHIND_COUNT);
            for slot in known.kept.into_iter().chain(known.next..behind) {
                maps.connections.remove(&ConnectionKey { scope: id, slot })?;
            }
            maps.connection_counts.remove(&id)?;
        }
        Ok(())
    }

    /// Destroys those TCP connections in a session's cgroup that no rule lets send any more, or only the baseline's while that is shut. Those
    /// that an action's grant may let send are that action's.
    pub(super) fn end_unruled(
        &mut self,
        maps: &Maps,
        session: SessionId,
        of_session: &Session,
        cgroup: u64,
    ) -> Result<(), EnforcerError> {
        let all = self.list(|destroying| destroying.connections_of(session, cgroup));
        let open = network_baseline(of_session) | !BASELINE;
        for found in all {
            if bits_of_either(maps, session.0, of_session.generation, &found)? & open == 0 {
                self.destroy(session, &found);
            }
        }
        Ok(())
    }

    /// The peers of all TCP connections in the agent's network namespace and in those of sessions, as far as that can be known.
    pub(super) fn peers(&mut self) -> HashSet<[u8; 16]> {
        let all = self.list(Destroying::connections);
        all.into_iter().map(|found| found.destination).collect()
    }

    /// A connection of which something was refused: whatever shut it, its application hears of it now.
    pub(super) fn refused(&mut self, record: &KernelRecord) {
        let is_packet = record.operation == OPERATION_EGRESS && record.audited == 0 && record.cookie != 0;
        // A datagram that is refused is an error of its own; and what was not read has no addresses.
        if !is_packet || record.protocol != TCP {
            return;
        }
        let (Ok(source_port), Ok(destination_port)) =
            (u16::try_from(record.source_port), u16::try_from(record.port))
        else {
            return;
        };
        let found = Found {
            cookie: record.cookie,
            protocol: 6,
            source: record.source,
            source_port,
            destination: record.address,
            destination_port,
        };
        self.destroy(SessionId(record.session), &found);
    }

    /// How many other network namespaces are held.
    #[cfg(test)]
    pub(super) fn elsewhere(&self) -> usize {
        self.destroying.as_ref().map_or(0, Destroying::elsewhere)
    }

    #[cfg(test)]
    pub(super) fn leave(&mut self) {
        self.destroying = None;
    }

    fn destroy(&mut self, session: SessionId, found: &Found) {
        self.try_to(|destroying| destroying.destroy(session, found));
    }

    /// What fails is told once. Nothing is done where nothing of the kind can be done, which was told at the start.
    fn try_to(&mut self, work: impl FnOnce(&mut Destroying) -> io::Result<()>) {
        let done = self.destroying.as_mut().map_or(Ok(()), work);
        if let Err(error) = done {
            self.tell_failure(&error);
        }
    }

    fn list(&mut self, work: impl FnOnce(&mut Destroying) -> (Vec<Found>, io::Result<()>)) -> Vec<Found> {
        let mut found = Vec::new();
        self.try_to(|destroying| {
            let (all, listed) = work(destroying);
            found = all;
            listed
        });
        found
    }

    fn tell_failure(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failure_told, true) {
            tracing::warn!(%error, "a connection whose door is shut could not be destroyed; its application may wait for an answer in vain");
        }
    }
}

/// Whether something that could send under the old doors may not under the new ones.
fn is_narrower(old: &Scope, new: &Scope) -> bool {
    if old.generation != new.generation || old.open & !new.open != 0 {
        return true;
    }
    (0..GRANTS).zip(old.since.iter().zip(&new.since)).any(|(index, (old_since, new_since))| {
        let is_open = u32::try_from(index).is_ok_and(|index| old.open.wrapping_shr(index) & 1 == 1);
        is_open && new_since > old_since
    })
}

/// The grants that let a connection send: those by which it was opened, or, where these are another policy's, those that its peer's address has now.
fn bits_of(maps: &Maps, doors: &Scope, connection: &Connection) -> Result<u64, EnforcerError> {
    if connection.generation == doors.generation {
        return Ok(connection.opened_by);
    }
    let Ok(protocol) = u16::try_from(connection.protocol) else { return Ok(0) };
    maps.bits_of(
        doors.session,
        doors.generation,
        protocol,
        connection.destination,
        connection.destination_port,
    )
}

/// The grants that name the peer of a session's connection, or its own address, where a listener of that may have accepted it.
fn bits_of_either(maps: &Maps, session: u32, generation: u32, found: &Found) -> Result<u64, EnforcerError> {
    let (protocol, port) = (u16::from(found.protocol), found.source_port);
    let mut bits = maps.bits_of(session, generation, protocol, found.destination, found.destination_port)?;
    for own in [found.source, Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(), [0; 16]] {
        bits |= maps.bits_of(session, generation, protocol | Endpoint::LISTEN, own, port)?;
    }
    Ok(bits)
}

fn found(connection: &Connection) -> Found {
    Found {
        cookie: connection.cookie,
        protocol: u8::try_from(connection.protocol).unwrap_or(0),
        source: connection.source,
        source_port: connection.source_port,
        destination: connection.destination,
        destination_port: connection.destination_port,
    }
}
