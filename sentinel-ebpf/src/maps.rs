//! Every map: its key and value, who writes it, who reads it, what "full" means. None is an LRU: what is in a map stays until it is deleted.
//!
//! Invariant: who doesn't write a map can't. Those of the agent alone are read-only for programs, and the agent freezes those that programs alone
//! write (`enforcer/maps.rs`). An agent whose maps are defined otherwise, here or in `storage.rs` or in `common`, ends the sessions that it finds.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use sentinel_ebpf_common::{
    Asker, AskerKey, Connection, ConnectionKey, Endpoint, Hello, Image, ImageRule, NAMED_DOORS, NamedDoor,
    Protected, Resolver, Scope, ServerNameKey, Session, TaskMark,
};

use crate::storage::SocketStorage;

/// Session → what holds for it. Written by the agent, read by every hook. Full: no further session starts.
#[map]
pub(crate) static SESSIONS: HashMap<u32, Session> = HashMap::with_max_entries(4_096, BPF_F_RDONLY_PROG);

/// Cgroup id → session. Written by the agent, read where a socket is made and where an image is executed. Full: no further session starts.
#[map]
pub(crate) static CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(4_096, BPF_F_RDONLY_PROG);

/// One slot: the levels below the root at which sessions' cgroups stand, a bit a level. Written by the agent; 0 until then, and nobody is governed.
#[map]
pub(crate) static SESSION_LEVELS: Array<u32> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// Tgid → mark. Written by the agent at enrolment and at a process's first `begin`, by the fork hook for children, cleared by the exec hook;
/// deleted when the process is freed. Read by every hook. Full: whoever forks is killed.
#[map]
pub(crate) static TASKS: HashMap<u32, TaskMark> = HashMap::with_max_entries(65_536, 0);

/// Tier `lsm`: a process's first `task_struct` → the mark that it was born with, for where `task_newtask` was left out. Written where it is
/// allocated, deleted where it is freed. Full: the fork is refused.
#[map]
pub(crate) static CHILDREN: HashMap<u64, TaskMark> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Scope → what is open for it now. Written by the agent alone. Full: the action that would open something is denied. Its entries are large and
/// few: each has its memory while it is there.
#[map]
pub(crate) static SCOPES: HashMap<u64, Scope> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

/// Endpoint → the grants that open it. Written by the agent at a session's start. Full: the session doesn't start.
#[map]
pub(crate) static NETWORK: HashMap<Endpoint, u64> = HashMap::with_max_entries(65_536, BPF_F_RDONLY_PROG);

/// As `NETWORK`, for address prefixes: the longest answers, and has the grants of those that cover it.
#[map]
pub(crate) static NETWORK_PREFIXES: LpmTrie<Endpoint, u64> =
    LpmTrie::with_max_entries(16_384, BPF_F_RDONLY_PROG);

/// As `NETWORK`, for addresses that the agent's resolver has told a session whose rules name hosts. Written by the agent before it answers; it
/// gives each session its share. Full: the name is not answered.
#[map]
pub(crate) static NAMED: HashMap<Endpoint, NamedDoor> =
    HashMap::with_max_entries(NAMED_DOORS, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

/// Server name → the grants whose rules name it, of sessions whose policy has TLS looked into. Written by the agent at a session's start. Full: the
/// session doesn't start.
#[map]
pub(crate) static SERVER_NAMES: HashMap<ServerNameKey, u64> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

/// What is worked with while a connection's first packet is looked into. Written there, deleted where it passes. It can't be stored: the packet
/// doesn't leave.
#[btf_map]
pub(crate) static HELLOS: SkStorage<Hello> = SkStorage::new();

/// One slot: where the agent's resolver listens. Written by the agent; port 0 while there is none, and nothing goes to port 53 of a session whose
/// rules name hosts.
#[map]
pub(crate) static RESOLVER: Array<Resolver> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// A socket's own end → for whom it asks the agent's resolver. Written where a packet leaves to it, deleted where the application closes the
/// socket. Full: the packet doesn't leave.
#[map]
pub(crate) static ASKERS: HashMap<AskerKey, Asker> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// For whom a socket asks. Written where it connects or sends to port 53. It can't be stored: that is refused.
#[btf_map]
pub(crate) static ASKS: SkStorage<Asker> = SkStorage::new();

/// Image → the grants that open it. Written by the agent at a session's start. Full: the session doesn't start.
#[map]
pub(crate) static EXEC: HashMap<Image, ImageRule> = HashMap::with_max_entries(16_384, BPF_F_RDONLY_PROG);

/// Tier `lsm`: socket file → the grants that open it. Written by the agent at a session's start. Full: the session doesn't start.
#[map]
pub(crate) static UNIX: HashMap<Image, u64> = HashMap::with_max_entries(16_384, BPF_F_RDONLY_PROG);

/// Tier `lsm`: folder below which files may be mapped as code → 1. Written by the agent at a session's start. Full: the session doesn't start.
#[map]
pub(crate) static LIBRARIES: HashMap<Image, u64> = HashMap::with_max_entries(16_384, BPF_F_RDONLY_PROG);

/// Tier `lsm`: file or folder that no session may change → 1. Written by the agent at its start. Full: the agent doesn't start.
#[map]
pub(crate) static PROTECTED: HashMap<Protected, u32> = HashMap::with_max_entries(256, BPF_F_RDONLY_PROG);

/// Tier `lsm`: which session has made or accepted a socket. Written where that happens, and by the agent for its own. It can't be stored: the
/// socket is not made, or is nobody's.
#[btf_map]
pub(crate) static OWNERS: SkStorage<u32> = SkStorage::new();

/// One slot: when the agent's driver was last alive. Written by the agent each second; 0 until then, which is stale.
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// A socket's own storage. Written where it is made, binds, connects, sends and is refused. It can't be stored: the socket is not made, or not
/// accepted.
#[btf_map]
pub(crate) static SOCKETS: SocketStorage = SocketStorage::new();

/// Scope and slot → a connection that was opened under it, for the agent to destroy when its door shuts. Written where the first packet leaves,
/// deleted where the application closes the socket; the agent deletes what is left. Full: the packet doesn't leave.
#[map]
pub(crate) static CONNECTIONS: HashMap<ConnectionKey, Connection> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Scope → how many slots of `CONNECTIONS` were given out under it. Written where the first packet leaves; read and deleted by the agent when doors
/// shut. Full: the packet doesn't leave.
#[map]
pub(crate) static CONNECTION_COUNTS: HashMap<u64, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Records for the agent. Full: the record is lost and counted, the refusal stands.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);

/// Slots of `THROTTLE` for calls, by session modulo this, and as many behind them for packets: as many as sessions can be at once, and reused by
/// later ones, so that it never fills.
pub(crate) const WINDOWS: u32 = 4_096;

/// Value of `THROTTLE`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Window {
    pub(crate) started: u64,
    pub(crate) count: u64,
}

/// Session modulo `WINDOWS`, and behind these the same for packets → how many records it has made in the current second. Written and read by the hooks alone. It has room for each slot.
#[map]
pub(crate) static THROTTLE: HashMap<u32, Window> = HashMap::with_max_entries(WINDOWS * 2, 0);

/// Session → until when its datagrams to the resolver take up its time, on CLOCK_BOOTTIME. Written and read by the hooks alone. Full: who hasn't asked
/// for longest has its burst anew.
#[map]
pub(crate) static QUESTIONS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(WINDOWS, 0);

/// Lost records: 0 for a full ring buffer, 1 for a throttled session. Written by the hooks, read by the agent.
#[map]
pub(crate) static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);
