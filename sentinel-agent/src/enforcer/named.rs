//! The doors that the addresses are which a session was told for names.
//!
//! Invariant: an address opens what the rules say that name the host, and no more: one that several hosts share opens what all of them may, and one
//! of a private network only what rules say that allow that. When an address's time is over nobody connects by it any more; who is connected
//! stays so, also under other rules that name the host. No session takes more than its share of the map, so that each finds room.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use sentinel_ebpf_common::{Endpoint, NAMED_DOORS, NamedDoor};
use sentinel_engine::{Grant, NameTable, Protocol};
use sentinel_proto::HostName;

use super::EnforcerError;
use super::maps::Maps;
use super::told::{Before, Told, ToldAddress};

/// Addresses that are remembered for a session, whether they open anything or not.
const MOST_ADDRESSES: usize = 16_384;
/// Doors that a session may have: those of a policy that lists ten thousand hosts, or of a thousand at a dozen addresses each.
const MOST_DOORS: usize = 16_384;
/// Doors of all sessions under the rules that hold. A reload writes each once more, under the rules that are to hold: that is the other half of
/// the map.
const ROOM: usize = NAMED_DOORS as usize / 2;
/// So many addresses are forgotten at once, where so many can be: looking for them takes its time.
const FORGOTTEN_AT_ONCE: usize = MOST_ADDRESSES / 16;
/// Where that was in vain it is not done again for so long: one second.
const IN_VAIN_FOR: u64 = 1_000_000_000;

/// How many doors a session may have that has `own` already, while all others have `others`. Whoever comes next finds as much as is left to
/// this one: no number of sessions takes all.
pub(super) fn share(own: usize, others: usize) -> usize {
    let half = ROOM.saturating_sub(others) / 2;
    half.min(MOST_DOORS).max(own)
}

/// What there is for the doors of a session.
pub(super) struct Room<'a> {
    /// How many it may have.
    pub(super) share: usize,
    /// The peers of TCP connections, whoever's; looked for where room has to be made.
    pub(super) peers: &'a mut dyn FnMut() -> HashSet<[u8; 16]>,
}

/// What a policy says of hosts by name, as the kernel side tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct NameRules(NameTable);

/// Protocol and port; port 0 is any.
pub(super) type Place = (u16, u16);

impl NameRules {
    pub(super) fn compile(grants: &[Grant]) -> Self {
        Self(NameTable::of(grants))
    }

    /// What an address opens that stands for this name.
    pub(super) fn doors(&self, name: &HostName, is_private: bool) -> impl Iterator<Item = (Place, u64)> {
        let entries = self.0.listing(name).filter(move |entry| entry.allow_private || !is_private);
        entries.map(|entry| ((number(entry.protocol), entry.port.unwrap_or(0)), entry.grant.0))
    }
}

/// The number of a protocol.
const fn number(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// A door that stands in the map: its address, generation and place. In this order, as all of an address are looked for.
type Written = ([u8; 16], u32, Place);

/// One version of a session's doors by name.
#[derive(Debug)]
pub(super) struct NamedDoors {
    session: u32,
    generation: u32,
    rules: NameRules,
    written: BTreeSet<Written>,
    /// When it was last looked at which names' time is over.
    swept_at: u64,
}

impl NamedDoors {
    pub(super) const fn new(session: u32, generation: u32, rules: NameRules) -> Self {
        Self { session, generation, rules, written: BTreeSet::new(), swept_at: 0 }
    }

    /// Those that an earlier agent wrote, which are to be removed.
    pub(super) fn of_earlier(session: u32, generation: u32, written: &[Endpoint]) -> Self {
        let written =
            written.iter().map(|door| (door.address, door.generation, (door.protocol, door.port))).collect();
        Self { written, ..Self::new(session, generation, NameRules::default()) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.written.len()
    }

    /// Writes what was told under another version of the rules: all that finds room in the session's share, what holds the longest first.
    ///
    /// # Errors
    /// The map can't be written.
    pub(super) fn write_all(
        &mut self,
        maps: &mut Maps,
        told: &Told,
        now: u64,
        share: usize,
    ) -> Result<(), EnforcerError> {
        let mut left_out = 0_u32;
        for address in told.longest_first() {
            let doors = told.doors(&self.rules, &address, now);
            if self.len().saturating_add(doors.len()) > share {
                left_out = left_out.saturating_add(1);
                continue;
            }
            self.put_all(maps, &address, &doors)?;
        }
        for (place, address, door) in told.carried() {
            if self.len() >= share {
                left_out = left_out.saturating_add(1);
            } else if !self.written.contains(&(address, self.generation, place)) {
                self.put(maps, address, place, door)?;
            }
        }
        if left_out > 0 {
            tracing::warn!(
                session = self.session,
                left_out,
                share,
                "the new rules make more doors of the addresses that the session was told for names than it may have: some are shut until their names are asked for again"
            );
        }
        Ok(())
    }

    /// Opens the doors of addresses that stand for a name. When it returns, they are open.
    ///
    /// # Errors
    /// Not all could be opened: none is that was not open before.
    pub(super) fn open(
        &mut self,
        maps: &mut Maps,
        told: &mut Told,
        name: &HostName,
        addresses: &[ToldAddress],
        now: u64,
        room: &mut Room<'_>,
    ) -> Result<(), EnforcerError> {
        let mut noted: Vec<Before> = Vec::with_capacity(addresses.len());
        let opened = addresses.iter().try_for_each(|address| {
            noted.push(told.note(name, *address));
            self.open_address(maps, told, &address.address, now, room)
        });
        if opened.is_err() {
            for before in noted.iter().rev() {
                told.undo(name, before);
                if let Err(error) = self.write(maps, told, &before.address, now) {
                    tracing::error!(session = self.session, %name, %error, "a door of an address that is not told is left open");
                }
            }
        }
        opened
    }

    fn open_address(
        &mut self,
        maps: &mut Maps,
        told: &mut Told,
        address: &IpAddr,
        now: u64,
        room: &mut Room<'_>,
    ) -> Result<(), EnforcerError> {
        let doors = told.doors(&self.rules, address, now);
        let octets = octets(address);
        let is_new = |place: &&Place| !self.written.contains(&(octets, self.generation, **place));
        let more = doors.keys().filter(is_new).count();
        if !self.has_room(told, more, room.share) {
            self.forget_over(maps, told, more, now, room)?;
        }
        self.put_all(maps, address, &doors)
    }

    fn has_room(&self, told: &Told, more: usize, share: usize) -> bool {
        // Where nothing is to be written, a share that has become smaller is no hindrance.
        (more == 0 || self.len().saturating_add(more) <= share) && told.len() <= MOST_ADDRESSES
    }

    /// Forgets addresses whose time is over and by which nobody is connected, the earliest first.
    fn forget_over(
        &mut self,
        maps: &mut Maps,
        told: &mut Told,
        more: usize,
        now: u64,
        room: &mut Room<'_>,
    ) -> Result<(), EnforcerError> {
        let full = || {
            EnforcerError::Share(format!(
                "the session has its share of {} doors by name, and none whose time is over and by which nobody is connected; ask again later, or let fewer names and addresses be asked for",
                room.share
            ))
        };
        if told.looked_in_vain_at.is_some_and(|at| now.saturating_sub(at) < IN_VAIN_FOR) {
            return Err(full());
        }
        let peers = (room.peers)();
        for (place, address) in told.forget_carried(now, |address| !peers.contains(address)) {
            self.take(maps, &(address, self.generation, place))?;
        }
        let unused = told.over(now).into_iter().filter(|address| !peers.contains(&octets(address)));
        for address in unused.take(FORGOTTEN_AT_ONCE) {
            self.take_but(maps, &address, &BTreeMap::new())?;
            told.forget(&address);
        }
        if self.has_room(told, more, room.share) {
            told.looked_in_vain_at = None;
            return Ok(());
        }
        told.looked_in_vain_at = Some(now);
        Err(full())
    }

    /// Takes from shared addresses what only names open whose time is over.
    pub(super) fn sweep(&mut self, maps: &mut Maps, told: &Told, now: u64) -> Result<(), EnforcerError> {
        let before = std::mem::replace(&mut self.swept_at, now);
        told.shared_and_over(before, now).iter().try_for_each(|address| self.write(maps, told, address, now))
    }

    /// Removes all of it. What can't be removed doesn't keep the rest.
    pub(super) fn remove(&self, maps: &mut Maps) -> Result<(), EnforcerError> {
        let results: Vec<_> =
            self.written.iter().map(|door| maps.named.remove(&self.endpoint(door))).collect();
        results.into_iter().collect()
    }

    /// Its part that is of this generation, which is no longer its.
    pub(super) fn split_off(&mut self, generation: u32) -> Self {
        let (of_it, rest) =
            std::mem::take(&mut self.written).into_iter().partition(|(_, of, _)| *of == generation);
        self.written = rest;
        Self { written: of_it, ..Self::new(self.session, generation, NameRules::default()) }
    }

    /// Writes what an address opens, and takes what it doesn't open any more.
    fn write(
        &mut self,
        maps: &mut Maps,
        told: &Told,
        address: &IpAddr,
        now: u64,
    ) -> Result<(), EnforcerError> {
        self.put_all(maps, address, &told.doors(&self.rules, address, now))
    }

    /// Lets an address open this and no more.
    fn put_all(
        &mut self,
        maps: &mut Maps,
        address: &IpAddr,
        doors: &BTreeMap<Place, NamedDoor>,
    ) -> Result<(), EnforcerError> {
        let octets = octets(address);
        doors.iter().try_for_each(|(place, door)| self.put(maps, octets, *place, door))?;
        self.take_but(maps, address, doors)
    }

    /// Takes the doors of an address but these.
    fn take_but(
        &mut self,
        maps: &mut Maps,
        address: &IpAddr,
        kept: &BTreeMap<Place, NamedDoor>,
    ) -> Result<(), EnforcerError> {
        let (octets, generation) = (octets(address), self.generation);
        let all = (octets, generation, (0, 0))..=(octets, generation, (u16::MAX, u16::MAX));
        let gone: Vec<Written> =
            self.written.range(all).filter(|(_, _, place)| !kept.contains_key(place)).copied().collect();
        gone.iter().try_for_each(|door| self.take(maps, door))
    }

    fn take(&mut self, maps: &mut Maps, door: &Written) -> Result<(), EnforcerError> {
        maps.named.remove(&self.endpoint(door))?;
        self.written.remove(door);
        Ok(())
    }

    fn put(
        &mut self,
        maps: &mut Maps,
        address: [u8; 16],
        place: Place,
        door: &NamedDoor,
    ) -> Result<(), EnforcerError> {
        let written = (address, self.generation, place);
        maps.named.put(&self.endpoint(&written), door, 0)?;
        self.written.insert(written);
        Ok(())
    }

    const fn endpoint(&self, (address, generation, (protocol, port)): &Written) -> Endpoint {
        Endpoint {
            session: self.session,
            generation: *generation,
            protocol: *protocol,
            port: *port,
            address: *address,
        }
    }
}

/// As the kernel side has it: IPv4 as IPv4-mapped.
fn octets(address: &IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_session_alone_has_its_most_and_no_more() {
        assert_eq!(share(0, 0), MOST_DOORS);
        assert_eq!(share(MOST_DOORS, 0), MOST_DOORS);
    }

    #[test]
    fn what_a_session_has_it_keeps_whatever_others_have() {
        assert_eq!(share(500, ROOM), 500);
        assert_eq!(share(0, ROOM), 0);
    }

    proptest! {
        #[test]
        fn sessions_that_take_all_they_can_never_take_more_than_there_is_and_leave_room(count in 1..100_usize) {
            let mut held = 0;
            for _ in 0..count.min(16) {
                held += share(0, held);
                prop_assert!(held < ROOM && share(0, held) > 0);
            }
        }

        #[test]
        fn no_order_of_growing_takes_more_than_there_is(turns in prop::collection::vec((0..8_usize, 0..40_000_usize), 0..64)) {
            let mut held = [0_usize; 8];
            for (session, wanted) in turns {
                let others: usize = held.iter().sum::<usize>() - held[session];
                held[session] = wanted.min(share(held[session], others));
                prop_assert!(held.iter().sum::<usize>() <= ROOM);
            }
        }
    }
}
