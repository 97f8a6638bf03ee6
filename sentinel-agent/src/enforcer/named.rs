//! The addresses that a session was told for names, and the doors that they are.
//!
//! Invariant: an address opens what the rules say that name the host, and no more: one that several hosts share opens what all of them may, and one
//! of a private network only what rules say that allow that. When an address's time is over nobody connects by it any more; who is connected
//! stays so, also under other rules that name the host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sentinel_ebpf_common::{Endpoint, NamedDoor};
use sentinel_engine::{Grant, NameTable, Protocol};
use sentinel_proto::HostName;

use super::EnforcerError;
use super::maps::Maps;

/// Addresses that are kept for a session; when there are more, those go whose time is over, the earliest first.
pub(super) const MOST_ADDRESSES: usize = 16_384;

/// What a policy says of hosts by name, as the kernel side tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct NameRules(NameTable);

/// Protocol and port; port 0 is any.
type Place = (u16, u16);

impl NameRules {
    pub(super) fn compile(grants: &[Grant]) -> Self {
        Self(NameTable::of(grants))
    }

    /// What an address opens that stands for this name.
    fn doors(&self, name: &HostName, is_private: bool) -> impl Iterator<Item = (Place, u64)> {
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

/// An address that was told for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldAddress {
    /// It.
    pub address: IpAddr,
    /// Whether only a rule that allows private networks opens it.
    pub is_private: bool,
    /// Until when, in nanoseconds of CLOCK_BOOTTIME.
    pub until: u64,
}

#[derive(Debug)]
struct Known {
    is_private: bool,
    /// The names that it stood for, and until when.
    names: BTreeMap<HostName, u64>,
}

/// All that a session was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    addresses: BTreeMap<IpAddr, Known>,
    /// What an earlier agent had told, of which only the doors are known that are open without any action.
    carried: BTreeMap<(u16, u16, [u8; 16]), NamedDoor>,
}

impl Told {
    /// What an earlier agent's resolver has opened for the baseline, under rules that still hold.
    pub(super) fn carry(&mut self, endpoint: &Endpoint, door: NamedDoor) {
        self.carried.insert((endpoint.protocol, endpoint.port, endpoint.address), door);
    }

    /// Notes an address for a name, and answers the addresses that had to make room.
    ///
    /// # Errors
    /// There is no room: it is not noted.
    fn note(&mut self, name: &HostName, told: ToldAddress, now: u64) -> Result<Vec<IpAddr>, EnforcerError> {
        let mut gone = Vec::new();
        if self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&told.address) {
            gone = self.make_room(now);
            if gone.is_empty() {
                return Err(EnforcerError::Missing(format!(
                    "the session has been told {MOST_ADDRESSES} addresses that still hold; `{name}` finds no room"
                )));
            }
        }
        let known = self
            .addresses
            .entry(told.address)
            .or_insert_with(|| Known { is_private: told.is_private, names: BTreeMap::new() });
        known.is_private |= told.is_private;
        let until = known.names.entry(name.clone()).or_default();
        *until = told.until.max(*until);
        Ok(gone)
    }

    /// Forgets a sixteenth of what has room, of what is over.
    fn make_room(&mut self, now: u64) -> Vec<IpAddr> {
        let last = |known: &Known| known.names.values().copied().max().unwrap_or(0);
        let mut over: Vec<(u64, IpAddr)> = self
            .addresses
            .iter()
            .map(|(address, known)| (last(known), *address))
            .filter(|(until, _)| *until <= now)
            .collect();
        over.sort_unstable();
        over.truncate(MOST_ADDRESSES / 16);
        for (_, address) in &over {
            self.addresses.remove(address);
        }
        over.into_iter().map(|(_, address)| address).collect()
    }

    /// The doors of an address at this time. Those of names whose time is over count only where no other's holds, for who is connected by them.
    fn doors(&self, rules: &NameRules, address: &IpAddr, now: u64) -> BTreeMap<Place, NamedDoor> {
        let mut doors: BTreeMap<Place, NamedDoor> = BTreeMap::new();
        let Some(known) = self.addresses.get(address) else { return doors };
        let any_holds = known.names.values().any(|until| *until > now);
        for (name, until) in known.names.iter().filter(|(_, until)| !any_holds || **until > now) {
            for (place, bits) in rules.doors(name, known.is_private) {
                let door = doors.entry(place).or_default();
                door.bits |= bits;
                door.expires_at = door.expires_at.max(*until);
            }
        }
        doors
    }

    /// The names that an address stood for, those that hold first.
    pub(super) fn names_of(&self, address: &IpAddr) -> Vec<HostName> {
        let Some(known) = self.addresses.get(address) else { return Vec::new() };
        let mut names: Vec<(&HostName, &u64)> = known.names.iter().collect();
        names.sort_by_key(|(_, until)| std::cmp::Reverse(**until));
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// The addresses that more than one name stands for, of which one is over by now and was not at `before`.
    fn shared_and_over(&self, before: u64, now: u64) -> Vec<IpAddr> {
        let is_over = |until: &u64| *until > before && *until <= now;
        let shared = self.addresses.iter().filter(|(_, known)| known.names.len() > 1);
        shared.filter(|(_, known)| known.names.values().any(is_over)).map(|(address, _)| *address).collect()
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

    /// Writes all that was told under another version of the rules.
    pub(super) fn write_all(&mut self, maps: &mut Maps, told: &Told, now: u64) -> Result<(), EnforcerError> {
        for address in told.addresses.keys() {
            self.write(maps, told, address, now)?;
        }
        for ((protocol, port, address), door) in &told.carried {
            let place = (*protocol, *port);
            if !self.written.contains(&(*address, self.generation, place)) {
                self.put(maps, *address, place, door)?;
            }
        }
        Ok(())
    }

    /// Opens the doors of addresses that stand for a name. When it returns, they are open.
    ///
    /// # Errors
    /// Not all are.
    pub(super) fn open(
        &mut self,
        maps: &mut Maps,
        told: &mut Told,
        name: &HostName,
        addresses: &[ToldAddress],
        now: u64,
    ) -> Result<(), EnforcerError> {
        for address in addresses {
            let gone = told.note(name, *address, now)?;
            gone.iter().try_for_each(|address| self.take_but(maps, address, &BTreeMap::new()))?;
            self.write(maps, told, &address.address, now)?;
        }
        Ok(())
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
        let doors = told.doors(&self.rules, address, now);
        let octets = octets(address);
        doors.iter().try_for_each(|(place, door)| self.put(maps, octets, *place, door))?;
        self.take_but(maps, address, &doors)
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
        for door in gone {
            maps.named.remove(&self.endpoint(&door))?;
            self.written.remove(&door);
        }
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
        // Noted first: what may be there is removed some day.
        self.written.insert(written);
        maps.named.put(&self.endpoint(&written), door, 0)
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
