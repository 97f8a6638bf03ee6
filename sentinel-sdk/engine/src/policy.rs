//! A policy, checked and ready to decide with.
//!
//! Made by `sentinel-policy` from YAML, or by a program. An absent list and an empty one differ: empty means
//! *nothing*.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use sentinel_proto::{ActionName, Money, RiskLevel, Tag};

use crate::calendar::{Hours, TimeZone};
use crate::name_pattern::NamePattern;

/// The most grants besides the baseline: a grant is one bit of 64, and bit 0 is the baseline's.
pub const MAX_GRANTS: usize = 63;

/// What an action's doors are open at most, where the policy doesn't say: ten minutes.
pub(crate) const DEFAULT_MAX_SECONDS: u64 = 600;

/// The operator's rules for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What may be spent.
    pub budgets: Budgets,
    /// Actions that never run, with their lines.
    pub denied: BTreeMap<ActionName, u32>,
    /// The only actions that run; none: any.
    pub allowed: Option<Allowlist>,
    /// How often an action may start.
    pub rates: BTreeMap<ActionName, RateLimit>,
    /// How many starts there may be, whatever the action.
    pub limits: CountLimits,
    /// When actions may start; none: always.
    pub hours: Option<Hours>,
    /// Whether a broken rule stops the action. Where not, it is recorded as `warned` and the action goes on; but `denied_actions`, approvals
    /// and the agent's own quotas always stop it.
    pub strict: bool,
    /// Which actions need a human's word; none: no action does.
    pub approvals: Option<Approvals>,
    /// What is said of single actions.
    pub actions: BTreeMap<ActionName, ActionRule>,
    /// Grants by index; index 0, the baseline, is always there.
    pub grants: Vec<Grant>,
    /// Whether the kernel refuses or only records.
    pub mode: Mode,
    /// What a spent budget does to the baseline network.
    pub on_exhausted: OnExhausted,
    /// Whether connections to hosts by name are TLS that asks for just these.
    pub tls_names: TlsNames,
    /// Unix sockets that the application may connect to.
    pub unix_allow: Vec<PathBuf>,
    /// Trees whose files may be mapped executable, besides root-owned ones (tier `lsm`).
    pub exec_libraries: Vec<PathBuf>,
}

/// Spending limits. A missing one limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// For the session as a whole.
    pub session: Option<Limit>,
    /// For each of its runs.
    pub run: Option<Limit>,
    /// For all sessions under this policy together, each day.
    pub day: Option<DayLimit>,
    /// For single actions, over all runs.
    pub actions: BTreeMap<ActionName, Limit>,
}

/// A limit and the line that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The most that may be spent.
    pub amount: Money,
    /// The policy's line, from 1.
    pub line: u32,
}

/// What may be spent in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayLimit {
    /// The limit.
    pub limit: Limit,
    /// Where the day begins and ends.
    pub timezone: TimeZone,
}

/// The most of something that is counted, and the line that says so. 0 refuses all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountLimit {
    /// The most.
    pub most: u64,
    /// The policy's line, from 1.
    pub line: u32,
}

/// How many starts there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountLimits {
    /// In all, over all runs of the session.
    pub calls: Option<CountLimit>,
    /// In flight at once.
    pub concurrent: Option<CountLimit>,
}

/// Which actions need a human's word before they start. One that any criterion fits does; without any criterion, all do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// Actions, with their lines.
    pub actions: BTreeMap<ActionName, u32>,
    /// Tags, with their lines.
    pub tags: BTreeMap<Tag, u32>,
    /// Risk levels, with their lines.
    pub risk_levels: Vec<(RiskLevel, u32)>,
    /// From this cost on.
    pub from_cost: Option<Limit>,
    /// Who may approve; none: whoever may operate the agent; empty: nobody.
    pub approvers: Option<Vec<Approver>>,
    /// After this time it expires, and the action is denied.
    pub timeout: Duration,
    /// The policy's line, from 1.
    pub line: u32,
}

/// Who may approve, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approver {
    /// This user.
    User(String),
    /// The members of this group.
    Group(String),
}

/// The only actions that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowlist {
    /// Their names, with their lines. Empty: none.
    pub names: BTreeMap<ActionName, u32>,
    /// The line of the list itself.
    pub line: u32,
}

/// At most `max_count` starts in any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The most starts; 0 refuses all.
    pub max_count: u64,
    /// The window that slides along.
    pub window: Duration,
    /// The policy's line, from 1.
    pub line: u32,
}

/// What the policy says of one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionRule {
    /// The least it is charged, at begin and at end.
    pub cost_floor: Money,
    /// Tags that it carries whatever the application says.
    pub tags: Vec<Tag>,
    /// The index in [`Policy::grants`] of what it opens; none: nothing beyond the baseline.
    pub grant: Option<usize>,
    /// After so many seconds it counts as expired and its doors close.
    pub max_seconds: u64,
    /// How many starts of it there may be.
    pub limits: CountLimits,
    /// When it may start, besides what [`Policy::hours`] says; none: always.
    pub hours: Option<Hours>,
    /// How risky it is, whatever the application says.
    pub risk: Option<RiskLevel>,
    /// The policy's line, from 1.
    pub line: u32,
}

/// A set of doors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Where to.
    pub network: Vec<NetworkRule>,
    /// Where to, by name.
    pub names: Vec<NameRule>,
    /// What may be executed.
    pub exec: Vec<ExecRule>,
    /// To which own addresses a socket may be bound for others to come to.
    pub listen: Vec<NetworkRule>,
    /// Whether connections outlive the action, for the next one with this grant in the same scope to use.
    pub keep_alive: bool,
}

/// Transport protocols that a rule can name. All others are always refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Addresses that share their first bits. A single address has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The first address: all bits behind the prefix are 0. Never an IPv4-mapped IPv6 address.
    pub address: IpAddr,
    /// How many bits count: 0 to 32, or to 128 for IPv6.
    pub prefix: u8,
}

/// An endpoint, or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Which addresses.
    pub cidr: Cidr,
    /// Which port; none: any.
    pub port: Option<u16>,
    /// The policy's line, from 1.
    pub line: u32,
}

/// Hosts that are known by their names, and their port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Which names.
    pub name: NamePattern,
    /// Which port; none: any.
    pub port: Option<u16>,
    /// Whether the name may stand for an address of a private network or of this machine.
    pub allow_private: bool,
    /// The policy's line, from 1.
    pub line: u32,
}

/// A file that may be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRule {
    /// Its path, absolute and without `.` or `..`.
    pub path: PathBuf,
    /// Whether the operator accepts that the session's user can write it.
    pub writable_accepted: bool,
    /// The policy's line, from 1.
    pub line: u32,
}

/// Whether the kernel refuses or only records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It refuses.
    #[default]
    Enforce,
    /// It lets pass, and records what it would have refused.
    Audit,
}

/// What a spent session or run budget does to the baseline network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExhausted {
    /// It closes too.
    #[default]
    Close,
    /// It stays open.
    Keep,
}

/// Whether what a connection to a host by name sends first is looked into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsNames {
    /// It isn't.
    #[default]
    Off,
    /// It has to be a TLS ClientHello that asks for a server of the rules.
    Enforce,
}

impl Policy {
    /// The policy that says nothing: any action may run, and opens nothing; nothing is open.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            budgets: Budgets::default(),
            denied: BTreeMap::new(),
            allowed: None,
            rates: BTreeMap::new(),
            limits: CountLimits::default(),
            hours: None,
            strict: true,
            approvals: None,
            actions: BTreeMap::new(),
            grants: vec![Grant::default()],
            mode: Mode::default(),
            on_exhausted: OnExhausted::default(),
            tls_names: TlsNames::default(),
            unix_allow: Vec::new(),
            exec_libraries: Vec::new(),
        }
    }

    /// Whether any of its grants names a host.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.grants.iter().any(|grant| !grant.names.is_empty())
    }
}

impl Default for ActionRule {
    fn default() -> Self {
        Self {
            cost_floor: Money::ZERO,
            tags: Vec::new(),
            grant: None,
            max_seconds: DEFAULT_MAX_SECONDS,
            limits: CountLimits::default(),
            hours: None,
            risk: None,
            line: 0,
        }
    }
}
