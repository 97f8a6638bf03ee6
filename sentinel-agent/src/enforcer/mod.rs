//! The port through which decisions reach the kernel.
//!
//! Only the driver calls an [`Enforcer`]. Each call either took effect in the kernel when it returns, or is an error;
//! the driver turns an error into a denial.

mod attach;
mod bound;
mod btf;
mod connections;
mod destroying;
mod ebpf;
mod executables;
mod hooks;
#[cfg(test)]
mod host;
mod identities;
pub mod images;
mod layout;
pub mod leftovers;
mod loaded;
mod lsm;
mod maps;
mod mountinfo;
mod named;
mod netns;
mod object;
mod places;
mod preconditions;
mod preemption;
mod probe;
mod puppet;
#[cfg(test)]
pub(crate) mod recording;
pub mod records;
pub mod refused_names;
mod rules;
mod server_names;
mod sockdiag;
mod suggestion;
mod syscall;
mod takeover;
#[cfg(test)]
mod testing;
mod told;
mod tracefs;
mod walk;

pub(crate) use places::cgroup2;

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use ebpf::EbpfEnforcer;
pub use maps::Askers;
pub use told::ToldAddress;
pub use walk::Writer;

use sentinel_engine::{GrantSet, Opening, Policy, ScopeId};
use sentinel_proto::examination::Examination;
use sentinel_proto::{HostName, SessionId};

/// What this host really enforces, as proven by live denials at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement {
    /// How much.
    pub tier: Tier,
    /// Whether every row was proven by a denial that really happened.
    pub proven: bool,
}

/// How much a host enforces.
/// Ordered: a later one enforces all that an earlier one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nothing.
    None,
    /// Network before the packet; a forbidden image is killed before its first instruction.
    Kill,
    /// Network before the packet, exec before it happens, scripts included; and the rest of the kernel's surface.
    Lsm,
}

impl Tier {
    /// Its name in the ledger and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Lsm => "lsm",
        }
    }
}

impl std::str::FromStr for Tier {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = [Self::Kill, Self::Lsm].into_iter().find(|tier| tier.as_str() == name);
        known.ok_or_else(|| format!("`{name}` is no tier; write `kill` or `lsm`"))
    }
}

/// The file that a process may execute once, before any rule: CMD's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstImage {
    /// The device as the kernel numbers it (`major << 20 | minor`).
    pub dev: u32,
    /// The inode.
    pub ino: u64,
    /// The inode's generation, where the file system tells it.
    pub generation: Option<u32>,
}

/// What the kernel side knows of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its session.
    pub session: SessionId,
    /// Its scopes, nearest first; empty before its first `begin`.
    pub scopes: [Option<ScopeId>; 4],
    /// When the mark was made, on CLOCK_BOOTTIME. One made before the process started is another's.
    pub marked_at: Duration,
}

/// Why the kernel could not be told.
#[derive(Debug, thiserror::Error)]
pub enum EnforcerError {
    /// This host can't enforce, or doesn't let us.
    #[error("{what}: {cause}; {way_out}")]
    Unavailable {
        /// What could not be done.
        what: String,
        /// What the system said.
        cause: String,
        /// What an operator can do.
        way_out: String,
    },
    /// A map could not be read or written; a full one among them.
    #[error("map `{map}`: {cause}")]
    Map {
        /// Which.
        map: &'static str,
        /// What the kernel said.
        cause: String,
    },
    /// A rule of the policy can't be compiled for this host.
    #[error("{rule} (line {line} of the policy): {cause}")]
    Rule {
        /// The rule's text.
        rule: String,
        /// Its line.
        line: u32,
        /// What is wrong, and the way out.
        cause: String,
    },
    /// There is no such process, session or mark.
    #[error("{0}")]
    Missing(String),
    /// A session has its share of what all of them share.
    #[error("{0}")]
    Share(String),
}

/// A denial, read off the ring buffer and decoded.
pub use sentinel_ebpf_common::record::Record as KernelRecord;

/// The kernel, as the driver sees it.
pub trait Enforcer {
    /// What this host enforces.
    fn enforcement(&self) -> &Enforcement;

    /// Loads a session's rules and lets its cgroup be known. `user` is the uid that its processes have: a listed
    /// executable that it can write is refused unless the policy accepts that.
    ///
    /// # Errors
    /// Nothing of it stays loaded.
    fn start_session(
        &mut self,
        session: SessionId,
        cgroup_id: u64,
        policy: &Policy,
        user: u32,
    ) -> Result<(), EnforcerError>;

    /// Attaches the network hooks to the cgroup of a session that did not make it, and lets the kernel side know at which level it stands. Those
    /// that an earlier agent attached for this session are taken over.
    ///
    /// # Errors
    /// Nothing is attached.
    fn bind_cgroup(&mut self, session: SessionId, cgroup: &Path) -> Result<(), EnforcerError>;

    /// All sessions that the kernel side knows.
    ///
    /// # Errors
    /// The map can't be read.
    fn sessions(&self) -> Result<Vec<SessionId>, EnforcerError>;

    /// The id of the cgroup in which the kernel side holds a session; none: it knows of none.
    ///
    /// # Errors
    /// The map can't be read.
    fn cgroup_of(&self, session: SessionId) -> Result<Option<u64>, EnforcerError>;

    /// Takes over a session that an earlier agent started. Its rules hold as they are, until others are committed. `is_same_policy` says that these
    /// will be of the policy that it had.
    ///
    /// # Errors
    /// The kernel side doesn't know it in this cgroup.
    fn adopt_session(
        &mut self,
        session: SessionId,
        cgroup_id: u64,
        is_same_policy: bool,
    ) -> Result<(), EnforcerError>;

    /// Marks a process as the session's, with the image that it may execute once.
    ///
    /// # Errors
    /// The process is not marked.
    fn enrol(&mut self, session: SessionId, tgid: u32, first: FirstImage) -> Result<(), EnforcerError>;

    /// Marks a process that runs already as the session's: whatever it executes from now on has to be in the rules.
    ///
    /// # Errors
    /// The process is not marked.
    fn enrol_running(&mut self, session: SessionId, tgid: u32) -> Result<(), EnforcerError>;

    /// All marks, with the tgids of the processes that bear them; those of dead processes may be among them.
    ///
    /// # Errors
    /// The map can't be read.
    fn marks(&self) -> Result<Vec<(u32, Mark)>, EnforcerError>;

    /// What the kernel side knows of a process; none: it is in no session.
    ///
    /// # Errors
    /// The map can't be read: treat the process as unknown.
    fn mark(&self, tgid: u32) -> Result<Option<Mark>, EnforcerError>;

    /// Removes the mark of a process that has ended, should the kernel side not have heard of that.
    ///
    /// # Errors
    /// It stays, and is valid for nobody.
    fn forget_ended(&mut self, tgid: u32) -> Result<(), EnforcerError>;

    /// Puts a new scope in front of a process's chain; the farthest of five falls off.
    ///
    /// # Errors
    /// The chain is as before.
    fn put_scope_in_front(&mut self, tgid: u32, scope: ScopeId) -> Result<(), EnforcerError>;

    /// A scope's open doors are exactly `open`, until `until` on CLOCK_BOOTTIME. Empty removes the entry. `openings` says since when each is:
    /// sockets of it that are older send nothing any more, and those with a peer are destroyed.
    ///
    /// # Errors
    /// What was open before may still be: the caller closes or kills.
    fn set_doors(
        &mut self,
        session: SessionId,
        scope: ScopeId,
        open: GrantSet,
        until: Duration,
        openings: &[Opening],
    ) -> Result<(), EnforcerError>;

    /// Opens or closes a session's baseline network.
    ///
    /// # Errors
    /// The state is as before.
    fn set_baseline_network(&mut self, session: SessionId, open: bool) -> Result<(), EnforcerError>;

    /// Writes another version of a session's rules beside those that hold. Nothing changes yet.
    ///
    /// # Errors
    /// Nothing of it stays.
    fn prepare_rules(&mut self, session: SessionId, policy: &Policy, user: u32) -> Result<(), EnforcerError>;

    /// Lets the prepared rules hold, by one write, and removes the old ones. Doors that actions had opened are shut by it; the baseline network
    /// stays as it is.
    ///
    /// # Errors
    /// It is unknown which rules hold: the caller kills.
    fn commit_rules(&mut self, session: SessionId) -> Result<(), EnforcerError>;

    /// Removes prepared rules.
    ///
    /// # Errors
    /// Some are left, which hold for nobody.
    fn discard_rules(&mut self, session: SessionId) -> Result<(), EnforcerError>;

    /// Leads what sessions whose rules name hosts send to port 53 to this port of the host's own addresses; none: it goes nowhere.
    ///
    /// # Errors
    /// It goes where it went before.
    fn let_resolve(&mut self, port: Option<NonZeroU16>) -> Result<(), EnforcerError>;

    /// Opens the doors of addresses that stand for a name, by what the session's rules say of that. When it returns, they are open.
    ///
    /// # Errors
    /// Not all are: none must be told.
    fn open_name(
        &mut self,
        session: SessionId,
        name: &HostName,
        addresses: &[ToldAddress],
    ) -> Result<(), EnforcerError>;

    /// Takes from addresses that several names stand for what only those open whose time is over.
    ///
    /// # Errors
    /// Something may be open longer than it should.
    fn sweep_names(&mut self) -> Result<(), EnforcerError>;

    /// The names that a session has been told this address for, those that hold first.
    fn names_of(&self, session: SessionId, address: IpAddr) -> Vec<HostName>;

    /// Forgets a session whose processes are all gone: rules, scopes, marks, cgroup.
    ///
    /// # Errors
    /// What is left denies.
    fn stop_session(&mut self, session: SessionId) -> Result<(), EnforcerError>;

    /// Writes the heartbeat. Without it, leased doors close within five seconds.
    ///
    /// # Errors
    /// The heartbeat is as before.
    fn beat(&mut self, now: Duration) -> Result<(), EnforcerError>;

    /// Tries out what this host enforces: by denials that really happen, in scratch sessions.
    ///
    /// # Errors
    /// It could not be tried: as bad as a failure.
    fn examine(&mut self) -> Result<Examination, EnforcerError>;

    /// Moves what the hooks have reported since the last call into `records`, up to `limit` records.
    fn drain_records(&mut self, records: &mut Vec<KernelRecord>, limit: usize);

    /// Records lost since start: to a full ring buffer, or to a session's throttle.
    ///
    /// # Errors
    /// The counters can't be read.
    fn dropped_records(&self) -> Result<u64, EnforcerError>;
}

/// Where an instance of the agent keeps what outlives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The folder in a bpffs where links and maps are pinned; root only.
    pub pins: PathBuf,
    /// The cgroup below which the sessions' cgroups are made; hooks are attached to it.
    pub cgroup: PathBuf,
}
