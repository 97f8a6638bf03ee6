//! What a session was told of addresses, and for which names.
//!
//! Invariant: an address is remembered while any name holds that it stands for; and then for as long as there is room, for whoever is still
//! connected by it when the rules change.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sentinel_ebpf_common::{Endpoint, NamedDoor};
use sentinel_proto::HostName;

use super::named::{NameRules, Place};

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

impl Known {
    /// When the last of its names is over.
    fn until(&self) -> u64 {
        self.names.values().copied().max().unwrap_or(0)
    }
}

/// What was known of an address before it was told for a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) address: IpAddr,
    /// Whether it was private; none where it was not known.
    was_private: Option<bool>,
    /// Until when it stood for the name.
    until: Option<u64>,
}

/// All that a session was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    addresses: BTreeMap<IpAddr, Known>,
    /// What an earlier agent had told, of which only the doors are known that are open without any action.
    carried: BTreeMap<(u16, u16, [u8; 16]), NamedDoor>,
    /// When it was last looked for addresses to forget, and too few were found.
    pub(super) looked_in_vain_at: Option<u64>,
}

impl Told {
    /// What an earlier agent's resolver has opened for the baseline, under rules that still hold.
    pub(super) fn carry(&mut self, endpoint: &Endpoint, door: NamedDoor) {
        self.carried.insert((endpoint.protocol, endpoint.port, endpoint.address), door);
    }

    /// What was carried: place, address and door.
    pub(super) fn carried(&self) -> impl Iterator<Item = (Place, [u8; 16], &NamedDoor)> {
        self.carried.iter().map(|((protocol, port, address), door)| ((*protocol, *port), *address, door))
    }

    /// Forgets what was carried, whose time is over and that `is_unused`, and answers which doors these are that no address has that it was told.
    pub(super) fn forget_carried(
        &mut self,
        now: u64,
        is_unused: impl Fn(&[u8; 16]) -> bool,
    ) -> Vec<(Place, [u8; 16])> {
        let mut gone = Vec::new();
        self.carried.retain(|(protocol, port, address), door| {
            let is_kept = door.expires_at > now || !is_unused(address);
            if !is_kept {
                gone.push(((*protocol, *port), *address));
            }
            is_kept
        });
        gone.retain(|(_, address)| !self.addresses.contains_key(&IpAddr::from(*address).to_canonical()));
        gone
    }

    /// How many addresses it remembers.
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Notes an address for a name, and answers what [`Told::undo`] needs.
    pub(super) fn note(&mut self, name: &HostName, told: ToldAddress) -> Before {
        let was_private = self.addresses.get(&told.address).map(|known| known.is_private);
        let known = self
            .addresses
            .entry(told.address)
            .or_insert_with(|| Known { is_private: told.is_private, names: BTreeMap::new() });
        known.is_private |= told.is_private;
        let before = known.names.get(name).copied();
        known.names.insert(name.clone(), told.until.max(before.unwrap_or(0)));
        Before { address: told.address, was_private, until: before }
    }

    /// As if an address had not been told for a name.
    pub(super) fn undo(&mut self, name: &HostName, before: &Before) {
        let Some(was_private) = before.was_private else {
            self.addresses.remove(&before.address);
            return;
        };
        let Some(known) = self.addresses.get_mut(&before.address) else { return };
        known.is_private = was_private;
        match before.until {
            Some(until) => known.names.insert(name.clone(), until),
            None => known.names.remove(name),
        };
    }

    pub(super) fn forget(&mut self, address: &IpAddr) {
        self.addresses.remove(address);
    }

    /// The addresses whose time is over, the earliest first.
    pub(super) fn over(&self, now: u64) -> Vec<IpAddr> {
        let over = self.addresses.iter().map(|(address, known)| (known.until(), *address));
        let mut over: Vec<(u64, IpAddr)> = over.filter(|(until, _)| *until <= now).collect();
        over.sort_unstable();
        over.into_iter().map(|(_, address)| address).collect()
    }

    /// All addresses, those first that hold the longest.
    pub(super) fn longest_first(&self) -> Vec<IpAddr> {
        let mut all: Vec<(u64, IpAddr)> =
            self.addresses.iter().map(|(address, known)| (known.until(), *address)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.into_iter().map(|(_, address)| address).collect()
    }

    /// The doors of an address at this time. Those of names whose time is over count only where no other's holds, for who is connected by them.
    pub(super) fn doors(&self, rules: &NameRules, address: &IpAddr, now: u64) -> BTreeMap<Place, NamedDoor> {
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
    pub(super) fn shared_and_over(&self, before: u64, now: u64) -> Vec<IpAddr> {
        let is_over = |until: &u64| *until > before && *until <= now;
        let shared = self.addresses.iter().filter(|(_, known)| known.names.len() > 1);
        shared.filter(|(_, known)| known.names.values().any(is_over)).map(|(address, _)| *address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ToldAddress = ToldAddress {
        address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        is_private: false,
        until: 10,
    };

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn what_is_undone_is_as_it_was() {
        let mut told = Told::default();
        let first = told.note(&name("a.example"), FIRST);
        let again = told.note(&name("a.example"), ToldAddress { until: 20, is_private: true, ..FIRST });
        let other = told.note(&name("b.example"), ToldAddress { until: 30, ..FIRST });
        assert_eq!(told.names_of(&FIRST.address), [name("b.example"), name("a.example")]);
        told.undo(&name("b.example"), &other);
        assert_eq!(told.names_of(&FIRST.address), [name("a.example")]);
        assert_eq!((told.over(19), told.over(20)), (vec![], vec![FIRST.address]));
        told.undo(&name("a.example"), &again);
        assert_eq!((told.over(9), told.over(10)), (vec![], vec![FIRST.address]));
        assert!(!told.addresses[&FIRST.address].is_private);
        told.undo(&name("a.example"), &first);
        assert_eq!(told.len(), 0);
    }

    #[test]
    fn the_time_of_an_address_is_that_of_the_last_of_its_names() {
        let mut told = Told::default();
        let second = ToldAddress { address: "192.0.2.2".parse().unwrap(), until: 15, ..FIRST };
        for (text, address) in [("a.example", FIRST), ("b.example", second), ("c.example", FIRST)] {
            told.note(&name(text), address);
        }
        told.note(&name("c.example"), ToldAddress { until: 20, ..FIRST });
        assert_eq!(told.over(15), [second.address]);
        assert_eq!(told.over(20), [second.address, FIRST.address]);
        assert_eq!(told.longest_first(), [FIRST.address, second.address]);
    }
}
