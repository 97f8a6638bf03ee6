//! The agent's own DNS resolver: what the kernel side brings it of the sessions' questions, it answers, and it asks upstream for them.
//!
//! What a session may ask, and which doors its answers open, is the [`Gate`]'s to say. Invariants:
//! - no question leaves the host that the gate hasn't admitted, and none of a kind other than addresses and service bindings;
//! - an application learns an address only after the gate has opened its door;
//! - a session that floods, an upstream that hangs and bytes that mean nothing delay nobody else, and the memory they take is bounded.

mod addresses;
mod answering;
mod bindings;
mod host_servers;
mod limits;
mod listen;
mod message;
mod serving;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use sentinel_proto::{HostName, SessionId};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use answering::Answering;
use serving::Serving;

pub use listen::{ListenError, Listeners};
pub use upstream::{Upstream, UpstreamError};

/// Whether a name's rule has to allow private addresses for this one to be told.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    !addresses::is_allowed(address, false)
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A connection.
    Tcp,
}

/// Who asks: the kernel side noted the session under the protocol, family and source port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asker {
    /// How the question came.
    pub protocol: Transport,
    /// The sender's address, on 127.0.0.1 or ::1.
    pub source: SocketAddr,
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// How to reach an HTTPS service.
    Https,
    /// How to reach another service.
    Svcb,
    /// Any other record type. It is never asked upstream: an admitted question gets an empty answer.
    Other(u16),
}

/// A question that the gate decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name.
    pub name: HostName,
    /// The kind of record.
    pub kind: Kind,
}

/// What an admitted question is answered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The asker's session.
    pub session: SessionId,
    /// Whether the name's rule says that its addresses may be private.
    pub allow_private: bool,
    /// Whether only a wildcard lists the name, so that the session chose a part of it.
    pub is_wildcard: bool,
    /// The process that asks. The gate's own business.
    pub pid: u32,
    /// Its scopes, nearest first; 0 is none. The gate's own business.
    pub scopes: [u64; 4],
}

/// Whether a question may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Admitted(Ticket),
    /// It may not.
    Refused(Refusal),
}

/// Why a question isn't answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No entry of the policy lists the name: told as NXDOMAIN, so that search lists go on at once.
    Unlisted,
    /// An entry lists it, and no action in flight holds its grant: told as REFUSED.
    Closed,
    /// The asker is in no session: told as REFUSED.
    NotInSession,
    /// The session asks too much: told as SERVFAIL.
    Limited,
    /// The gate can't say or can't open, and why: told as SERVFAIL. Telling the operator is the gate's business.
    Unavailable(String),
}

/// An address that upstream gave for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    /// The address.
    pub address: IpAddr,
    /// For how long it may be used, within [`SHORTEST_SECONDS`] and [`LONGEST_SECONDS`].
    pub seconds: u32,
}

/// What an event is about. What isn't known is absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// Who asked.
    pub asker: Option<Asker>,
    /// For which name.
    pub name: Option<&'a HostName>,
    /// Under which ticket.
    pub ticket: Option<&'a Ticket>,
}

/// Something that the operator should see. The gate is told each time, except of limits: one that writes it down counts what repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What was asked for is no host name; the text is made visible and cut.
    NoHostName(String),
    /// No upstream answered, or none is known, and why.
    UpstreamFailed(String),
    /// Every address that upstream gave is one that the name's rule doesn't allow.
    Rebinding(Vec<IpAddr>),
    /// A limit was hit. Told once in a window.
    Limited(Limit),
}

/// What there can be too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// A session's questions that wait for an upstream.
    InFlight,
    /// A session's questions in a second.
    Rate,
    /// Names that only a wildcard lists and that the session hadn't asked for before, in a minute.
    NewNames,
    /// The questions, or sessions, or connections, of everybody.
    Total,
}

/// The shortest time that an answer is given for: an application that connects at once has to find the door open.
pub const SHORTEST_SECONDS: u32 = 5;

/// The longest: past it, the doors of addresses that a name has left behind should be shut.
pub const LONGEST_SECONDS: u32 = 300;

/// Decides what may be asked, and opens the doors of what was answered. Used on one thread.
pub trait Gate {
    /// The session of whoever asks; none where that is nobody's, which [`Gate::ask`] refuses. It must not wait.
    fn session_of(&self, asker: Asker) -> Option<SessionId>;

    /// Whether the question may be asked.
    fn ask(&self, asker: Asker, question: &Question) -> impl Future<Output = Admission>;

    /// Opens the doors of these addresses, if the question may still be asked. Only what it returns is told to the application.
    ///
    /// # Errors
    /// No door was opened, and the application gets no address.
    fn open(
        &self,
        ticket: &Ticket,
        question: &Question,
        answers: Vec<Answer>,
    ) -> impl Future<Output = Result<Vec<Answer>, Refusal>>;

    /// Tells what the operator should see. It must not wait.
    fn tell(&self, about: About<'_>, event: Event);
}

/// Answers the sessions' questions until the task is aborted. Call it on a [`LocalSet`](tokio::task::LocalSet); every question is a
/// local task of its own.
///
/// # Errors
/// The runtime can't watch the sockets.
pub fn start<G: Gate + 'static>(
    listeners: Listeners,
    upstream: Upstream,
    gate: Rc<G>,
) -> std::io::Result<JoinHandle<()>> {
    let watched = |pair: listen::Pair| {
        Ok((UdpSocket::from_std(pair.datagrams)?, TcpListener::from_std(pair.connections)?))
    };
    let sockets = listeners.into_pairs().map(watched).collect::<std::io::Result<Vec<_>>>()?;
    let serving = Serving::new(Answering::new(gate, upstream));
    Ok(tokio::task::spawn_local(serving.run(sockets)))
}
