//! The kernel side's maps, each with the types of its keys and values.
//!
//! Invariant: a write that didn't happen is an error that names the map; a full one among them.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, SkStorage};
use aya::{Ebpf, EbpfLoader, Pod};
use sentinel_ebpf_common::{
    Asker, AskerKey, Connection, ConnectionKey, Endpoint, Image, ImageRule, NamedDoor, Protected, Resolver,
    Scope, ServerNameKey, Session, TaskMark,
};

use super::{EnforcerError, syscall};

/// All that are pinned. The agent reads and writes those of [`Maps`].
const PINNED: &[&str] = &[
    "SESSIONS",
    "CGROUPS",
    "SESSION_LEVELS",
    "TASKS",
    "CHILDREN",
    "SCOPES",
    "NETWORK",
    "NETWORK_PREFIXES",
    "NAMED",
    "SERVER_NAMES",
    "HELLOS",
    "RESOLVER",
    "ASKERS",
    "ASKS",
    "EXEC",
    "UNIX",
    "LIBRARIES",
    "PROTECTED",
    "OWNERS",
    "HEARTBEAT",
    "SOCKETS",
    "CONNECTIONS",
    "CONNECTION_COUNTS",
    "RECORDS",
    "QUESTIONS",
    "THROTTLE",
    "DROPS",
];

/// Those that no process may write. The ring buffer, whose reader writes how far it has read, can't be one.
const WRITTEN_BY_PROGRAMS_ALONE: &[&str] =
    &["CHILDREN", "SOCKETS", "HELLOS", "ASKERS", "ASKS", "QUESTIONS", "THROTTLE", "DROPS"];

/// Lets an object that is loaded use the maps that an earlier agent has pinned in `pins`.
pub(super) fn share(loader: &mut EbpfLoader<'_>, pins: &Path) {
    for name in PINNED {
        loader.map_pin_path(name, pins.join(name));
    }
}

/// A map and its name.
pub(super) struct Named<M> {
    name: &'static str,
    pub(super) map: M,
}

/// A hash map and its name.
pub(super) type Table<K, V> = Named<HashMap<MapData, K, V>>;

/// The maps that the agent reads and writes.
pub(super) struct Maps {
    pub(super) sessions: Table<u32, Session>,
    pub(super) cgroups: Table<u64, u32>,
    pub(super) session_levels: Named<Array<MapData, u32>>,
    pub(super) tasks: Table<u32, TaskMark>,
    pub(super) scopes: Table<u64, Scope>,
    pub(super) network: Table<Endpoint, u64>,
    pub(super) prefixes: Named<LpmTrie<MapData, Endpoint, u64>>,
    pub(super) named: Table<Endpoint, NamedDoor>,
    pub(super) server_names: Table<ServerNameKey, u64>,
    pub(super) resolver: Named<Array<MapData, Resolver>>,
    pub(super) exec: Table<Image, ImageRule>,
    pub(super) unix: Table<Image, u64>,
    pub(super) libraries: Table<Image, u64>,
    pub(super) protected: Table<Protected, u32>,
    pub(super) owners: Named<SkStorage<MapData, u32>>,
    pub(super) heartbeat: Named<Array<MapData, u64>>,
    pub(super) connections: Table<ConnectionKey, Connection>,
    pub(super) connection_counts: Table<u64, u64>,
    pub(super) drops: Named<PerCpuArray<MapData, u64>>,
}

/// The ring buffer of records.
pub(super) type Records = RingBuf<MapData>;

impl Maps {
    /// Pins all maps in `pins`, freezes those that only programs write, and takes those that the agent uses out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, pins: &Path) -> Result<(Self, Records), EnforcerError> {
        for name in PINNED {
            let failed = |cause: String| EnforcerError::Map { map: name, cause };
            let map = ebpf.map(name).ok_or_else(|| failed("the object has none".to_owned()))?;
            let pin = pins.join(name);
            map.pin(&pin).map_err(|cause| failed(with_causes(&cause)))?;
            if WRITTEN_BY_PROGRAMS_ALONE.contains(name) {
                let frozen = syscall::pinned(&pin).and_then(syscall::freeze_map);
                frozen.map_err(|cause| failed(format!("it can't be frozen: {cause}")))?;
            }
        }
        Self::from(|name| ebpf.take_map(name).ok_or(MapError::ElementNotFound))
    }

    /// Takes those that an earlier agent has pinned in `pins`.
    pub(super) fn adopt(pins: &Path) -> Result<(Self, Records), EnforcerError> {
        Self::from(|name| {
            let map = MapData::from_pin(pins.join(name))?;
            Ok(match name {
                "NETWORK_PREFIXES" => Map::LpmTrie(map),
                "HEARTBEAT" | "SESSION_LEVELS" | "RESOLVER" => Map::Array(map),
                "DROPS" => Map::PerCpuArray(map),
                "OWNERS" => Map::SkStorage(map),
                "RECORDS" => Map::RingBuf(map),
                _ => Map::HashMap(map),
            })
        })
    }

    fn from(
        mut find: impl FnMut(&'static str) -> Result<Map, MapError>,
    ) -> Result<(Self, Records), EnforcerError> {
        let mut take = |name| find(name).map_err(refused(name));
        let maps = Self {
            sessions: named("SESSIONS", take("SESSIONS")?)?,
            cgroups: named("CGROUPS", take("CGROUPS")?)?,
            session_levels: named("SESSION_LEVELS", take("SESSION_LEVELS")?)?,
            tasks: named("TASKS", take("TASKS")?)?,
            scopes: named("SCOPES", take("SCOPES")?)?,
            network: named("NETWORK", take("NETWORK")?)?,
            prefixes: named("NETWORK_PREFIXES", take("NETWORK_PREFIXES")?)?,
            named: named("NAMED", take("NAMED")?)?,
            server_names: named("SERVER_NAMES", take("SERVER_NAMES")?)?,
            resolver: named("RESOLVER", take("RESOLVER")?)?,
            exec: named("EXEC", take("EXEC")?)?,
            unix: named("UNIX", take("UNIX")?)?,
            libraries: named("LIBRARIES", take("LIBRARIES")?)?,
            protected: named("PROTECTED", take("PROTECTED")?)?,
            owners: named("OWNERS", take("OWNERS")?)?,
            heartbeat: named("HEARTBEAT", take("HEARTBEAT")?)?,
            connections: named("CONNECTIONS", take("CONNECTIONS")?)?,
            connection_counts: named("CONNECTION_COUNTS", take("CONNECTION_COUNTS")?)?,
            drops: named("DROPS", take("DROPS")?)?,
        };
        let records: Named<Records> = named("RECORDS", take("RECORDS")?)?;
        Ok((maps, records.map))
    }

    /// The grants of a session whose rules name an address, looked up as the kernel side does for a connection that is there. `protocol` is with [`Endpoint::LISTEN`] for an own one.
    pub(super) fn bits_of(
        &self,
        session: u32,
        generation: u32,
        protocol: u16,
        address: [u8; 16],
        port: u16,
    ) -> Result<u64, EnforcerError> {
        let mut bits = 0;
        for port in [port, 0] {
            let endpoint = Endpoint { session, generation, protocol, port, address };
            bits |= self.network.find(&endpoint)?.unwrap_or(0);
            bits |= self.named.find(&endpoint)?.map_or(0, |door| door.bits);
            let length = Endpoint::BITS_BEFORE_ADDRESS.saturating_add(128);
            match self.prefixes.map.get(&Key::new(length, endpoint), 0) {
                Ok(more) => bits |= more,
                Err(MapError::KeyNotFound) => {}
                Err(cause) => return Err(self.prefixes.refused()(cause)),
            }
        }
        Ok(bits)
    }
}

/// Those who ask the agent's resolver, as the kernel side notes them. A view of its own: whoever takes questions reads it, and nothing writes it.
pub struct Askers(Table<AskerKey, Asker>);

impl std::fmt::Debug for Askers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Askers")
    }
}

impl Askers {
    /// Opens the one that is pinned in `pins`.
    pub(super) fn open(pins: &Path) -> Result<Self, EnforcerError> {
        let opened = MapData::from_pin(pins.join("ASKERS")).map(Map::HashMap).map_err(refused("ASKERS"))?;
        Ok(Self(named("ASKERS", opened)?))
    }

    /// Who asks from this own end; none: nobody in a session.
    pub(crate) fn find(&self, key: &AskerKey) -> Result<Option<Asker>, EnforcerError> {
        self.0.find(key)
    }
}

fn named<M: TryFrom<Map, Error = MapError>>(name: &'static str, map: Map) -> Result<Named<M>, EnforcerError> {
    Ok(Named { name, map: M::try_from(map).map_err(refused(name))? })
}

impl<M> Named<M> {
    /// What this map refuses, as an error that names it.
    pub(super) fn refused(&self) -> impl Fn(MapError) -> EnforcerError + use<M> {
        refused(self.name)
    }
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Writes an entry. `flags` is 0, or one of the constants below.
    pub(super) fn put(&mut self, key: &K, value: &V, flags: u64) -> Result<(), EnforcerError> {
        self.map.insert(key, value, flags).map_err(self.refused())
    }

    /// The entry, if there is one.
    pub(super) fn find(&self, key: &K) -> Result<Option<V>, EnforcerError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(cause) => Err(self.refused()(cause)),
        }
    }

    /// Sees to it that there is no such entry.
    pub(super) fn remove(&mut self, key: &K) -> Result<(), EnforcerError> {
        done_or_gone(self.map.remove(key)).map_err(self.refused())
    }

    /// The keys that `wanted` picks, whatever their entries are. As [`Table::keys_where`].
    pub(super) fn keys(&self, wanted: impl Fn(&K) -> bool) -> Result<Vec<K>, EnforcerError> {
        let keys = self.map.keys().take(1 << 18).collect::<Result<Vec<K>, MapError>>();
        Ok(keys.map_err(self.refused())?.into_iter().filter(wanted).collect())
    }

    /// The keys whose entries `wanted` picks. Entries that come or go meanwhile may be among them or not.
    pub(super) fn keys_where(&self, wanted: impl Fn(&V) -> bool) -> Result<Vec<K>, EnforcerError> {
        let mut keys = Vec::new();
        // A key that goes while it is stood on starts the listing over: a bound, so that it ends.
        for key in self.map.keys().take(1 << 18) {
            let key = key.map_err(self.refused())?;
            if self.find(&key)?.is_some_and(|value| wanted(&value)) {
                keys.push(key);
            }
        }
        Ok(keys)
    }
}

/// Only where there is no such entry.
pub(super) const NEW: u64 = 1;
/// Only where there is such an entry.
pub(super) const EXISTING: u64 = 2;

/// A removal, for which an entry that is not there is as good as removed.
pub(super) fn done_or_gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(cause)) if cause.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        removed => removed,
    }
}

fn refused(map: &'static str) -> impl Fn(MapError) -> EnforcerError {
    move |cause| {
        let is_full = matches!(&cause, MapError::SyscallError(cause)
            if matches!(cause.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)));
        let cause = if is_full { "it is full".to_owned() } else { with_causes(&cause) };
        EnforcerError::Map { map, cause }
    }
}

/// An error and what it came from, in one line.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Transparent errors repeat what they wrap. Writing to a string can't fail.
        let told = error.to_string();
        if !text.ends_with(&told) {
            let _written = write!(text, ": {told}");
        }
        cause = error.source();
    }
    text
}
