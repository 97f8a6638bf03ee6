//! What the kernel side and the agent share: integers only, laid out alike on both sides.
//!
//! Invariant: no type here has implicit padding, and each one's size and offsets are asserted at compile time, for
//! the kernel compares map keys byte by byte. Times are nanoseconds of CLOCK_BOOTTIME.

#![no_std]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

pub mod client_hello;
pub mod record;
pub mod verdict;

use core::mem::{offset_of, size_of};

/// Scopes in a task's chain, nearest first; one more drops the farthest.
pub const SCOPE_CHAIN: usize = 4;
/// A heartbeat older than this closes every leased door: 5 s.
pub const HEARTBEAT_MAX_AGE_NS: u64 = 5_000_000_000;
/// The deepest level of the cgroup hierarchy, its root being 0, at which a session's cgroup can stand.
pub const DEEPEST_SESSION: u32 = 15;
/// The grant bit that is open without any action.
pub const BASELINE: u64 = 1;
/// How many grants there can be: as many as bits.
pub const GRANTS: usize = 64;

/// Map `TASKS`: who a process is. Key: its tgid (u32).
///
/// A mark counts only while `marked_at` is not before the process's own start (its leader's `start_boottime`): a
/// reused pid started later than the mark of its predecessor was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TaskMark {
    /// Its session; never 0.
    pub session: u32,
    /// The flags below, or nothing.
    pub flags: u32,
    /// When the mark was made.
    pub marked_at: u64,
    /// Its scopes, nearest first; 0 is none.
    pub scopes: [u64; SCOPE_CHAIN],
    /// With [`TaskMark::FIRST_EXEC`]: the image that may be executed once, as the kernel numbers its device.
    pub first_dev: u32,
    /// Its inode generation.
    pub first_generation: u32,
    /// Its inode.
    pub first_ino: u64,
}

impl TaskMark {
    /// The process has not executed its first image yet; never copied at fork, and cleared by the exec.
    pub const FIRST_EXEC: u32 = 1;
    /// `first_generation` is known and must match.
    pub const FIRST_GENERATION_KNOWN: u32 = 2;
    /// Tier `lsm`: the process is executing its first file, whose interpreters may follow; cleared when the exec can fail no more.
    pub const FIRST_RUNS: u32 = 4;
}

/// Map `SESSIONS`: what holds for a session as a whole. Key: the session (u32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Session {
    /// Which generation of its rules holds.
    pub generation: u32,
    /// The flags below.
    pub flags: u32,
}

impl Session {
    /// The baseline network is open.
    pub const BASELINE_NETWORK: u32 = 1;
    /// What would be refused is let pass and recorded.
    pub const AUDIT: u32 = 2;
    /// Its rules name hosts: what it sends to port 53 goes to the agent's resolver, and `NAMED` is asked.
    pub const NAMES: u32 = 4;
    /// What goes out by a door of `NAMED` is TLS, and asks for a server that `SERVER_NAMES` has.
    pub const TLS_NAMES: u32 = 8;
}

/// Map `SCOPES`: what is open for a scope. Key: the scope (u64). A missing entry: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Scope {
    /// Its session: an entry counts for no other.
    pub session: u32,
    /// The generation whose bits `open` has.
    pub generation: u32,
    /// The grants that are open.
    pub open: u64,
    /// When they close by themselves.
    pub expires_at: u64,
    /// Of each open grant: when the earliest of its actions in flight began. A socket that was opened before that belongs to an action that is
    /// over. 0 for a grant that lets connections live on from action to action.
    pub since: [u64; GRANTS],
}

impl Default for Scope {
    fn default() -> Self {
        Self { session: 0, generation: 0, open: 0, expires_at: 0, since: [0; GRANTS] }
    }
}

/// Key of map `NETWORK`, and behind a prefix length the key of `NETWORK_PREFIXES`. Value: the grant bits (u64) that
/// open it. An IPv4 address stands in it as its IPv4-mapped IPv6 one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Endpoint {
    /// The session whose rule it is.
    pub session: u32,
    /// The generation of the rule.
    pub generation: u32,
    /// The protocol's number: 6 (TCP) or 17 (UDP); with [`Endpoint::LISTEN`] the rule is one for an own address.
    pub protocol: u16,
    /// The port in host byte order; 0 is any.
    pub port: u16,
    /// The address in network byte order.
    pub address: [u8; 16],
}

impl Endpoint {
    /// How many bits of the key stand before the address: an LPM prefix length is this and the address's own.
    pub const BITS_BEFORE_ADDRESS: u32 = 96;
    /// In `protocol`: the address is one to be bound to, for others to come to.
    pub const LISTEN: u16 = 0x100;
}

/// Value of map `NAMED`: an address that the agent's resolver has told a session. Its key is that of `NETWORK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NamedDoor {
    /// The grant bits of the rules that name the host.
    pub bits: u64,
    /// When it was told for the last time that it holds. Until then one may connect; who is connected stays so.
    pub expires_at: u64,
}

/// How many entries `NAMED` has room for.
pub const NAMED_DOORS: u32 = 262_144;

/// Map `RESOLVER`: where the agent's resolver listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Resolver {
    /// The kernel's own number of the network namespace that it listens in.
    pub netns: u64,
    /// At which port of 127.0.0.1 and ::1 of that; 0: at none.
    pub port: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The bytes of a server name in a key, and zeros behind them.
pub const SERVER_NAME_BYTES: usize = 256;

/// Key of map `SERVER_NAMES`: a name that TLS may ask for. Value: the grant bits (u64) of the rules that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct ServerNameKey {
    /// The session whose rule it is.
    pub session: u32,
    /// The generation of the rule.
    pub generation: u32,
    /// The port in host byte order; 0 is any.
    pub port: u16,
    /// 1: all names of one label more in front of this one; 0: this name.
    pub one_below: u16,
    /// How many bytes it has.
    pub length: u32,
    /// It, in lower case.
    pub name: [u8; SERVER_NAME_BYTES],
}

/// Socket storage `HELLOS`: what is worked with while a connection's first packet is looked into. It is the socket's, as its lock is held then; what
/// belongs to a CPU another socket's packet could write over, which comes in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Hello {
    /// What is looked up.
    pub key: ServerNameKey,
    /// Where the name stands.
    pub place: client_hello::Place,
    /// The bytes of its first label and the dot behind that.
    pub first_label: u32,
    /// A number of [`verdict::Verdict`]: why it isn't to be believed; 0: it is.
    pub verdict: u32,
    /// The grant bits of the rules that list it.
    pub listed_by: u64,
}

/// The port of a DNS server.
pub const DNS_PORT: u16 = 53;

/// Key of map `ASKERS`: a socket that sends to the agent's resolver, by its own end. The address is the host's own, of one family or the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AskerKey {
    /// The protocol's number.
    pub protocol: u16,
    /// The port in host byte order.
    pub port: u16,
    /// 4 or 6.
    pub family: u32,
}

/// Value of map `ASKERS`, and of socket storage `ASKS`: for whom a socket asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Asker {
    /// The session whose socket it is.
    pub session: u32,
    /// The tgid of the process that asked last.
    pub tgid: u32,
    /// The scopes of the process that asked last, nearest first; 0 is none.
    pub scopes: [u64; SCOPE_CHAIN],
}

/// Key of map `EXEC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Image {
    /// The session whose rule it is.
    pub session: u32,
    /// The generation of the rule.
    pub generation: u32,
    /// The inode.
    pub ino: u64,
    /// The device as the kernel numbers it (`major << 20 | minor`).
    pub dev: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Value of map `EXEC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ImageRule {
    /// The grant bits that open it.
    pub bits: u64,
    /// The inode's generation.
    pub inode_generation: u32,
    /// 1 where `inode_generation` is known and must match; 0 where the file system doesn't tell.
    pub generation_known: u32,
}

/// Key of map `PROTECTED`: a file or folder that no session may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Protected {
    /// The inode.
    pub ino: u64,
    /// The device as the kernel numbers it.
    pub dev: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Owner in socket storage `OWNERS` of a socket that every session may connect to: the agent's own.
pub const OWNED_BY_AGENT: u32 = u32::MAX;

/// Socket storage `SOCKETS`: whose a socket is, and what lets its packets leave. An accepted socket has its listener's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketMark {
    /// The session that created it.
    pub session: u32,
    /// The generation by which it was last let connect, send or bind.
    pub generation: u32,
    /// The grant bits by which it was.
    pub opened_by: u64,
    /// The scope that had them open; 0: the baseline alone.
    pub scope: u64,
    /// When.
    pub opened_at: u64,
    /// Its slot in `CONNECTIONS` and one; 0: it is not there.
    pub slot: u64,
    /// Where to; with [`SocketMark::LISTENS`]: to which own address it is bound.
    pub address: [u8; 16],
    /// The flags below.
    pub flags: u32,
    /// The address's port in host byte order.
    pub port: u16,
    /// With [`SocketMark::ASKS`]: its own port in host byte order, once something was sent.
    pub own_port: u16,
}

impl SocketMark {
    /// Payload of it was refused: none leaves ever again, or TCP would send what was held back once a door is open.
    pub const POISONED: u32 = 1;
    /// It is bound to an address that a `listen` rule names, or was accepted by such a one.
    pub const LISTENS: u32 = 2;
    /// That its packets are refused, or are only recorded, was told already.
    pub const TOLD: u32 = 4;
    /// It has a peer: what is destroyed when its door shuts.
    pub const CONNECTED: u32 = 8;
    /// It sends to the agent's resolver, and not to the DNS server whose address stands in `address` and `port`.
    pub const ASKS: u32 = 16;
    /// It was let go by a door of `NAMED` and has sent nothing yet: what it sends first must be TLS that asks for a listed server.
    pub const TLS_DUE: u32 = 32;
}

/// Key of map `CONNECTIONS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ConnectionKey {
    /// The scope under which it was opened.
    pub scope: u64,
    /// Which of its connections, counted from 0.
    pub slot: u64,
}

/// Value of map `CONNECTIONS`: a socket that an action's door let out, as the kernel finds it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Connection {
    /// The socket's own number.
    pub cookie: u64,
    /// The grant bits by which it was opened.
    pub opened_by: u64,
    /// When.
    pub opened_at: u64,
    /// Its own address.
    pub source: [u8; 16],
    /// Its peer's.
    pub destination: [u8; 16],
    /// The generation of the bits.
    pub generation: u32,
    /// The protocol's number.
    pub protocol: u32,
    /// The port of its own address in host byte order.
    pub source_port: u16,
    /// That of its peer's.
    pub destination_port: u16,
    /// Always 0.
    pub reserved: u32,
}

const _: () = {
    assert!(
        size_of::<TaskMark>() == 64
            && offset_of!(TaskMark, scopes) == 16
            && offset_of!(TaskMark, first_ino) == 56
    );
    assert!(size_of::<Session>() == 8);
    assert!(size_of::<Scope>() == 24 + 8 * GRANTS && offset_of!(Scope, since) == 24);
    assert!(size_of::<Endpoint>() == 28 && offset_of!(Endpoint, address) == 12);
    assert!(size_of::<NamedDoor>() == 16);
    assert!(size_of::<Resolver>() == 16 && offset_of!(Resolver, port) == 8);
    assert!(size_of::<ServerNameKey>() == 16 + SERVER_NAME_BYTES && offset_of!(ServerNameKey, name) == 16);
    assert!(
        size_of::<Hello>() == 40 + SERVER_NAME_BYTES && offset_of!(Hello, place) == 16 + SERVER_NAME_BYTES
    );
    assert!(size_of::<AskerKey>() == 8);
    assert!(size_of::<Asker>() == 8 + 8 * SCOPE_CHAIN && offset_of!(Asker, scopes) == 8);
    assert!(size_of::<Image>() == 24 && offset_of!(Image, dev) == 16);
    assert!(size_of::<ImageRule>() == 16);
    assert!(size_of::<Protected>() == 16);
    assert!(size_of::<SocketMark>() == 64 && offset_of!(SocketMark, flags) == 56);
    assert!(size_of::<ConnectionKey>() == 16);
    assert!(size_of::<Connection>() == 72 && offset_of!(Connection, generation) == 56);
};

#[cfg(feature = "user")]
mod pod {
    use super::{
        Asker, AskerKey, Connection, ConnectionKey, Endpoint, Image, ImageRule, NamedDoor, Protected,
        Resolver, Scope, ServerNameKey, Session, SocketMark, TaskMark,
    };

    macro_rules! pod {
        ($($name:ident),*) => {
            $(
                // SAFETY: repr(C), integers only, without padding (asserted above): any bytes are a value.
                unsafe impl aya::Pod for $name {}
            )*
        };
    }

    pod!(
        Asker,
        AskerKey,
        Connection,
        ConnectionKey,
        Endpoint,
        Image,
        ImageRule,
        NamedDoor,
        Protected,
        Resolver,
        Scope,
        ServerNameKey,
        Session,
        SocketMark,
        TaskMark
    );
}
