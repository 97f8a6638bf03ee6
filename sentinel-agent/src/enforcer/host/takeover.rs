//! An agent of another build takes over what runs.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use aya::maps::{HashMap, Map, MapData, MapInfo};
use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, PinnedLink};

use super::*;
use crate::enforcer::object::FORMAT;

/// `BPF_F_RDONLY_PROG`, in `include/uapi/linux/bpf.h`.
const READ_ONLY_FOR_PROGRAMS: u32 = 1 << 7;

impl Host {
    /// As if the agent had been killed, and had been of a build with that note.
    fn leave_as(&mut self, note: &str) {
        self.places.note_build(note).unwrap();
        drop(self.enforcer.take());
    }

    fn pins_of(&self, kind: &str) -> Vec<PathBuf> {
        let pins = std::fs::read_dir(&self.places.pins).unwrap().map(|entry| entry.unwrap().path());
        pins.filter(|pin| pin.file_name().unwrap().to_str().unwrap().starts_with(kind)).collect()
    }

    fn program_ids(&self) -> BTreeSet<u32> {
        let pins = self.pins_of("program_").into_iter();
        pins.map(|pin| ProgramInfo::from_pin(pin).unwrap().id()).collect()
    }
}

#[test]
fn an_agent_of_another_build_replaces_hook_by_hook_what_runs_and_nothing_gets_through_meanwhile() {
    let mut host = Host::new();
    let ((listener, named), (_never, never)) = (listener(Ipv4Addr::LOCALHOST), listener(Ipv4Addr::LOCALHOST));
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let mut baseline = network(&[(Protocol::Tcp, named)]);
    baseline.exec = programs(&[TRUE]).exec;
    let session = host.session(1, &policy(vec![baseline]));
    // As if it were somebody else's cgroup, with links of its own.
    host.enforcer().bind_cgroup(session.id, session.cgroup.path()).unwrap();
    let (one, two, connecting) = (host.command(&session), host.command(&session), host.command(&session));
    let old = host.program_ids();
    let links = host.pins_of("link_").len();
    // What a takeover left that died in the middle.
    let leftover = MapData::from_pin(host.places.pins.join("THROTTLE")).unwrap();
    leftover.pin(host.places.pins.join("new_program_egress")).unwrap();
    host.leave_as(&format!("another {FORMAT}"));

    let places = host.places.clone();
    let adoption = std::thread::spawn(move || EbpfEnforcer::adopt(&places));
    let mut rounds = 0;
    while !adoption.is_finished() {
        assert_eq!((connect(&connecting, never), connect(&connecting, named)), (EPERM, 0), "round {rounds}");
        rounds += 1;
    }
    assert!(rounds > 0);
    let adopted = adoption.join().unwrap().unwrap().expect("it means the same by the maps");

    assert_eq!(adopted.enforcement().tier, host.tier);
    host.enforcer = Some(adopted);
    host.enforcer().adopt_session(session.id, session.cgroup.id(), true).unwrap();
    host.enforcer().bind_cgroup(session.id, session.cgroup.path()).unwrap();
    let new = host.program_ids();
    assert!(new.is_disjoint(&old));
    // Puppets, which were forked with all descriptors, keep the old ones loaded: so it is asked which are behind the pins.
    for pin in host.pins_of("link_") {
        let link = FdLink::from(PinnedLink::from_pin(&pin).unwrap());
        assert!(new.contains(&link.info().unwrap().program_id()), "{}", pin.display());
    }
    assert_eq!((host.pins_of("link_").len(), host.pins_of("new_").len()), (links, 0));
    assert_eq!((connect(&connecting, never), connect(&connecting, named)), (EPERM, 0));
    assert!(host.is_denied(&one, FALSE));
    assert!(host.comes_through(&two, TRUE));
}

#[test]
fn what_a_build_left_that_means_something_else_by_its_maps_is_not_taken_over() {
    let mut host = Host::new();
    host.leave_as("another of-another-format");
    assert!(EbpfEnforcer::adopt(&host.places).unwrap().is_none());
}

#[test]
fn who_does_not_write_a_map_can_not() {
    let host = Host::new();
    let pin = |name: &str| host.places.pins.join(name);
    for name in ["SESSIONS", "CGROUPS", "SESSION_LEVELS", "SCOPES", "NETWORK", "NETWORK_PREFIXES", "EXEC"]
        .into_iter()
        .chain(["UNIX", "LIBRARIES", "PROTECTED", "HEARTBEAT"])
    {
        let flags = MapInfo::from_pin(pin(name)).unwrap().map_flags();
        assert_ne!(flags & READ_ONLY_FOR_PROGRAMS, 0, "{name}");
    }
    let map = Map::HashMap(MapData::from_pin(pin("THROTTLE")).unwrap());
    let mut throttle: HashMap<MapData, u32, [u64; 2]> = HashMap::try_from(map).unwrap();
    let refused = throttle.insert(7, [0, 0], 0).unwrap_err();
    assert!(crate::enforcer::maps::with_causes(&refused).contains("not permitted"), "{refused:?}");
    let map = Map::HashMap(MapData::from_pin(pin("TASKS")).unwrap());
    let mut tasks: HashMap<MapData, u32, sentinel_ebpf_common::TaskMark> = HashMap::try_from(map).unwrap();
    tasks.insert(u32::MAX, sentinel_ebpf_common::TaskMark::default(), 0).expect("both write this one");
}
