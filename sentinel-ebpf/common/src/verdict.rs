//! The matching that the hooks call, kept here so that it can be tested on the host.
//!
//! Invariant: a door opens only for a bit that is both in the rule and open now; everything else is a named refusal.

use crate::{BASELINE, HEARTBEAT_MAX_AGE_NS, Scope, Session, TaskMark};

/// Why something was let pass or refused. The numbers stand in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// A rule names it and is open.
    Allowed = 0,
    /// No rule of the policy names it.
    NoRule = 1,
    /// A rule names it, but only for actions that are not in flight here.
    DoorClosed = 2,
    /// As `DoorClosed`, and the agent's heartbeat is stale: every leased door is shut.
    HeartbeatStale = 3,
    /// The socket was not created in the session, or before it.
    NoStorage = 4,
    /// The session is unknown to the kernel side.
    NoSession = 5,
    /// The family, type or protocol is never allowed.
    Surface = 6,
    /// Something could not be read or stored.
    Failed = 7,
    /// The caller's session is not the socket's.
    ForeignTask = 8,
    /// The packet has IP options, an extension header or is a fragment: where it goes can't be judged.
    Header = 16,
    /// Payload of the socket was refused before: none leaves any more.
    Poisoned = 17,
    /// What was sent to port 53 would go to the agent's resolver, which isn't there.
    NoResolver = 18,
    /// Under `tls_names: enforce`: what a connection to a host sends first is no TLS ClientHello.
    NotTls = 19,
    /// It is one, but not whole in the first record and packet.
    CutHello = 20,
    /// It names no server, or several.
    NoServerName = 21,
    /// It hides which server it asks for.
    EncryptedHello = 22,
    /// The server that it asks for is in no rule by which the connection was let go.
    ServerName = 23,
    /// What would arrive may be other than what was looked at: urgent data, or memory that the application can still write.
    UnsteadyHello = 24,
}

impl Verdict {
    /// The verdict with this number; none for one that this build doesn't know.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Allowed,
            1 => Self::NoRule,
            2 => Self::DoorClosed,
            3 => Self::HeartbeatStale,
            4 => Self::NoStorage,
            5 => Self::NoSession,
            6 => Self::Surface,
            7 => Self::Failed,
            8 => Self::ForeignTask,
            16 => Self::Header,
            17 => Self::Poisoned,
            18 => Self::NoResolver,
            19 => Self::NotTls,
            20 => Self::CutHello,
            21 => Self::NoServerName,
            22 => Self::EncryptedHello,
            23 => Self::ServerName,
            24 => Self::UnsteadyHello,
            _ => return None,
        })
    }

    /// Its name in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NoRule => "no_rule",
            Self::DoorClosed => "door_closed",
            Self::HeartbeatStale => "heartbeat_stale",
            Self::NoStorage => "no_storage",
            Self::NoSession => "no_session",
            Self::Surface => "surface",
            Self::Failed => "failed",
            Self::ForeignTask => "foreign_task",
            Self::Header => "header",
            Self::Poisoned => "poisoned",
            Self::NoResolver => "no_resolver",
            Self::NotTls => "not_tls",
            Self::CutHello => "cut_client_hello",
            Self::NoServerName => "no_server_name",
            Self::EncryptedHello => "encrypted_client_hello",
            Self::ServerName => "server_name",
            Self::UnsteadyHello => "unsteady_client_hello",
        }
    }
}

/// Whether leased doors may be open at all.
#[must_use]
#[inline]
pub const fn heartbeat_is_fresh(heartbeat: u64, now: u64) -> bool {
    // A heartbeat of 0 was never written; one from the future can only be a broken clock.
    heartbeat != 0 && heartbeat <= now && now.saturating_sub(heartbeat) < HEARTBEAT_MAX_AGE_NS
}

/// Whether a mark is this process's own, and not that of a dead one with the same pid.
#[must_use]
#[inline]
pub const fn mark_is_current(mark: &TaskMark, process_started: u64) -> bool {
    mark.session != 0 && process_started != 0 && mark.marked_at >= process_started
}

/// What a scope holds open for a session now.
#[must_use]
#[inline]
pub const fn open_in_scope(scope: &Scope, session: u32, generation: u32, now: u64) -> u64 {
    if scope.session == session && scope.generation == generation && scope.expires_at > now {
        scope.open
    } else {
        0
    }
}

/// Whether one of these grants is open and has an action in flight that began no later than a socket was opened. So a socket outlives its
/// action only while another of the same grant, that overlapped it, goes on in the same scope.
#[must_use]
#[inline]
pub fn is_in_flight(scope: &Scope, bits: u64, opened_at: u64) -> bool {
    let mut left = bits & scope.open & !BASELINE;
    // As far as the highest of them, and mostly there are few grants. Bit by bit: the kernel's verifier follows every branch of what would jump.
    for began in &scope.since {
        if left == 0 {
            return false;
        }
        if left & 1 == 1 && *began <= opened_at {
            return true;
        }
        left >>= 1;
    }
    false
}

/// The baseline of a session's network.
#[must_use]
#[inline]
pub const fn network_baseline(session: &Session) -> u64 {
    if session.flags & Session::BASELINE_NETWORK != 0 { BASELINE } else { 0 }
}

/// The verdict on a rule whose bits are these, while those are open.
#[must_use]
#[inline]
pub const fn judge(rule_bits: u64, open: u64, heartbeat_fresh: bool) -> Verdict {
    if rule_bits & open != 0 {
        Verdict::Allowed
    } else if rule_bits == 0 {
        Verdict::NoRule
    } else if heartbeat_fresh {
        Verdict::DoorClosed
    } else {
        Verdict::HeartbeatStale
    }
}
