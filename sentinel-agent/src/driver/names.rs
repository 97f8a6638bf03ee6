//! Which names a session may ask for, and the doors that their addresses become.
//!
//! Invariant: a name is asked upstream only where an entry of the session's policy lists it that is open to whoever asks, now; and an address is told
//! only after its door is open. What is refused is told like what the kernel side refuses.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use sentinel_authority::Log;
use sentinel_ebpf_common::AskerKey;
use sentinel_engine::{GrantSet, Mode, ScopeId};
use sentinel_proto::{HostName, SessionId};
use tokio::sync::oneshot;

use super::Driver;
use super::sessions::Session;
use crate::clock::{Clock, since_boot};
use crate::connection::Arrival;
use crate::denials::REPEATS_EVERY;
use crate::enforcer::refused_names::{self, NameRefused};
use crate::enforcer::{Askers, Enforcer, EnforcerError, ToldAddress};
use crate::intake::{Intake, Lane};
use crate::resolver::{
    About, Admission, Answer, Asker, Event, Gate, Question, Refusal, Ticket, Transport, is_private,
};

/// A door stays open at least so long after its address was told: programs try a name's addresses one after the other, and connect again.
const LEAST_OPEN: Duration = Duration::from_secs(60);

/// Who asks, as the kernel side noted it.
#[derive(Clone, Copy, Debug)]
pub struct AskingProcess {
    /// Its session.
    pub session: SessionId,
    /// Its pid.
    pub pid: u32,
    /// Its scopes, nearest first; 0 is none.
    pub scopes: [u64; 4],
}

impl AskingProcess {
    /// Who holds a ticket.
    const fn of(ticket: &Ticket) -> Self {
        Self { session: ticket.session, pid: ticket.pid, scopes: ticket.scopes }
    }
}

/// What the resolver has for the driver.
#[derive(Debug)]
pub enum NameArrival {
    /// May this be asked?
    Asked {
        /// By whom.
        by: AskingProcess,
        /// What.
        question: Question,
        /// Where the answer goes.
        reply: oneshot::Sender<Admission>,
    },
    /// Addresses came for a name: their doors are to be opened.
    Answered {
        /// Under which ticket.
        ticket: Ticket,
        /// For which name.
        name: HostName,
        /// Which.
        answers: Vec<Answer>,
        /// Where those go that may be told.
        reply: oneshot::Sender<Result<Vec<Answer>, Refusal>>,
    },
    /// Something was refused by the resolver itself.
    Told {
        /// To whom; none where only the session is known.
        by: AskingProcess,
        /// Which name, or what was sent instead of one.
        target: String,
        /// What.
        event: Event,
    },
}

impl NameArrival {
    const fn session(&self) -> SessionId {
        match self {
            Self::Asked { by, .. } | Self::Told { by, .. } => by.session,
            Self::Answered { ticket, .. } => ticket.session,
        }
    }
}

/// The resolver's way to the driver.
#[derive(Debug)]
pub struct NameGate {
    intake: Rc<Intake<Arrival>>,
    askers: Askers,
    failures: Cell<Failures>,
}

/// Names that no upstream server answered.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    /// When it was last told.
    told_at: Option<Duration>,
    /// How many have come since.
    untold: u64,
}

impl NameGate {
    /// To the driver that takes from this intake.
    #[must_use]
    pub fn new(intake: Rc<Intake<Arrival>>, askers: Askers) -> Self {
        Self { intake, askers, failures: Cell::default() }
    }

    /// Tells the operator that upstream servers fail: at once, and then as often as repeats of denials are told.
    fn tell_failure(&self, name: Option<&HostName>, cause: &str) {
        let (mut failures, now) = (self.failures.take(), since_boot());
        let is_due = failures.told_at.is_none_or(|at| now.saturating_sub(at) >= REPEATS_EVERY);
        if is_due {
            let name = name.map(HostName::as_str).unwrap_or_default();
            tracing::warn!(name, cause, others = failures.untold, "a name is not resolved");
            failures = Failures { told_at: Some(now), untold: 0 };
        } else {
            failures.untold = failures.untold.saturating_add(1);
        }
        self.failures.set(failures);
    }

    fn process(&self, asker: Asker) -> Result<Option<AskingProcess>, String> {
        let key = AskerKey {
            protocol: match asker.protocol {
                Transport::Udp => 17,
                Transport::Tcp => 6,
            },
            port: asker.source.port(),
            family: if asker.source.is_ipv4() { 4 } else { 6 },
        };
        let found = self.askers.find(&key).map_err(|error| error.to_string())?;
        Ok(found.map(|found| AskingProcess {
            session: SessionId(found.session),
            pid: found.tgid,
            scopes: found.scopes,
        }))
    }

    fn push(&self, session: SessionId, arrival: NameArrival) {
        self.intake.push(Lane::Session(session), Arrival::Name(Box::new(arrival)));
    }
}

impl Gate for NameGate {
    fn session_of(&self, asker: Asker) -> Option<SessionId> {
        // What can't be read is refused where it asks.
        self.process(asker).ok().flatten().map(|by| by.session)
    }

    async fn ask(&self, asker: Asker, question: &Question) -> Admission {
        let by = match self.process(asker) {
            Ok(Some(by)) => by,
            Ok(None) => return Admission::Refused(Refusal::NotInSession),
            Err(cause) => return Admission::Refused(Refusal::Unavailable(cause)),
        };
        let (reply, answer) = oneshot::channel();
        self.push(by.session, NameArrival::Asked { by, question: question.clone(), reply });
        answer.await.unwrap_or_else(|_gone| Admission::Refused(stopping()))
    }

    async fn open(
        &self,
        ticket: &Ticket,
        question: &Question,
        answers: Vec<Answer>,
    ) -> Result<Vec<Answer>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let name = question.name.clone();
        self.push(ticket.session, NameArrival::Answered { ticket: *ticket, name, answers, reply });
        answer.await.unwrap_or_else(|_gone| Err(stopping()))
    }

    fn tell(&self, about: About<'_>, event: Event) {
        if let Event::UpstreamFailed(cause) = &event {
            return self.tell_failure(about.name, cause);
        }
        let known = about.asker.and_then(|asker| self.process(asker).ok().flatten());
        let Some(by) = known.or_else(|| about.ticket.map(AskingProcess::of)) else { return };
        let target = match (&event, about.name) {
            (Event::NoHostName(text), _) => text.clone(),
            (_, name) => name.map(ToString::to_string).unwrap_or_default(),
        };
        self.push(by.session, NameArrival::Told { by, target, event });
    }
}

fn stopping() -> Refusal {
    Refusal::Unavailable("the agent is stopping".to_owned())
}

/// How a name stands for who asks, now.
#[derive(Debug)]
struct Standing {
    listed: Listed,
    /// Whether an entry that lists it is open.
    is_open: bool,
    /// Whether the session's policy only records.
    audits: bool,
}

impl Standing {
    /// Whether the name may stand for a private address.
    const fn allows_private(&self) -> bool {
        self.listed.allow_private || self.audits
    }
}

/// What a policy says of a name, of what is open.
#[derive(Debug, Default)]
struct Listed {
    /// The grants that list it.
    bits: u64,
    /// Whether one of those that are open allows private addresses.
    allow_private: bool,
    /// Whether one lists it by itself.
    by_itself: bool,
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    pub(super) fn on_name(&mut self, arrival: NameArrival) {
        let session = arrival.session();
        self.handle_name(arrival);
        if !self.sessions.contains_key(&session) {
            // It was over when this came, and its lane was made anew for it.
            self.intake.forget(Lane::Session(session));
        }
    }

    fn handle_name(&mut self, arrival: NameArrival) {
        match arrival {
            NameArrival::Asked { by, question, reply } => {
                // Who asked may be gone.
                let _gone = reply.send(self.admit(&by, &question.name));
            }
            NameArrival::Answered { ticket, name, answers, reply } => {
                let _gone = reply.send(self.open_doors(&ticket, &name, answers));
            }
            NameArrival::Told { by, target, event } => self.tell_name(&by, target, &event),
        }
    }

    /// Decides whether a process may ask for a name.
    fn admit(&mut self, by: &AskingProcess, name: &HostName) -> Admission {
        let Some(standing) = self.standing(by, name) else {
            return Admission::Refused(Refusal::NotInSession);
        };
        let ticket = Ticket {
            session: by.session,
            allow_private: standing.allows_private(),
            is_wildcard: !standing.listed.by_itself,
            pid: by.pid,
            scopes: by.scopes,
        };
        if standing.is_open {
            return Admission::Admitted(ticket);
        }
        let refusal = self.refuse_shut(by, name, &standing);
        if standing.audits { Admission::Admitted(ticket) } else { Admission::Refused(refusal) }
    }

    /// How a name stands for a process; none where that is in no session.
    fn standing(&self, by: &AskingProcess, name: &HostName) -> Option<Standing> {
        let session = self.sessions.get(&by.session).filter(|session| session.ending.is_none())?;
        let open = self.open_to(session, by);
        let listed = listed(session, name, open);
        let is_open = listed.bits & open.0 != 0;
        Some(Standing { listed, is_open, audits: session.rules.mode == Mode::Audit })
    }

    fn refuse_shut(&mut self, by: &AskingProcess, name: &HostName, standing: &Standing) -> Refusal {
        let bits = standing.listed.bits;
        let (refusal, verdict) =
            if bits == 0 { (Refusal::Unlisted, "no_rule") } else { (Refusal::Closed, "door_closed") };
        self.refuse_name(by, &NameRefused { target: name.as_str(), verdict, bits, private: false });
        refusal
    }

    /// What is open to a process: the baseline, and what actions of its scopes have opened.
    fn open_to(&self, session: &Session, by: &AskingProcess) -> GrantSet {
        let baseline = if session.baseline == Some(false) { GrantSet::EMPTY } else { GrantSet::BASELINE };
        let state = self.authority.state();
        let scopes = by.scopes.iter().take_while(|scope| **scope != 0);
        let actions = scopes.flat_map(|scope| state.actions_of_scope(ScopeId(*scope)));
        let of_session = actions.filter(|(_, action)| action.session == by.session);
        of_session.fold(baseline, |open, (_, action)| open.union(action.grants))
    }

    /// Opens the doors of a name's addresses, if it may still be asked: upstream has taken its time.
    fn open_doors(
        &mut self,
        ticket: &Ticket,
        name: &HostName,
        answers: Vec<Answer>,
    ) -> Result<Vec<Answer>, Refusal> {
        let by = AskingProcess::of(ticket);
        let standing = self.standing(&by, name).ok_or(Refusal::NotInSession)?;
        // What is only recorded was, when it was asked.
        if !standing.is_open && !standing.audits {
            self.refuse_shut(&by, name, &standing);
            // It was listed a moment ago: that it is no name would be kept in mind, and be wrong.
            return Err(Refusal::Closed);
        }
        let (answers, private): (Vec<Answer>, Vec<Answer>) =
            answers.into_iter().partition(|answer| standing.allows_private() || !is_private(answer.address));
        if answers.is_empty() {
            let addresses = private.iter().map(|answer| answer.address).collect();
            self.tell_name(&by, name.to_string(), &Event::Rebinding(addresses));
            return Err(Refusal::Closed);
        }
        let now = since_boot();
        let told: Vec<ToldAddress> = answers
            .iter()
            .map(|answer| {
                let open = Duration::from_secs(answer.seconds.into()).max(LEAST_OPEN);
                let until = now.saturating_add(open).as_nanos();
                ToldAddress {
                    address: answer.address,
                    is_private: is_private(answer.address),
                    until: u64::try_from(until).unwrap_or(u64::MAX),
                }
            })
            .collect();
        match self.enforcer.open_name(ticket.session, name, &told) {
            Ok(()) => Ok(answers),
            Err(EnforcerError::Share(cause)) => {
                let (target, verdict) = (name.as_str(), "no_room");
                self.refuse_name(&by, &NameRefused { target, verdict, bits: 0, private: false });
                tracing::debug!(session = %ticket.session, %name, cause, "a name is not answered");
                Err(Refusal::Unavailable(cause))
            }
            Err(error) => {
                tracing::error!(session = %ticket.session, %name, %error, "a name is not answered: its doors could not be opened");
                Err(Refusal::Unavailable(error.to_string()))
            }
        }
    }

    /// Tells of what the resolver refused.
    fn tell_name(&mut self, by: &AskingProcess, target: String, event: &Event) {
        let (target, verdict, private) = match event {
            Event::Rebinding(addresses) => {
                (format!("{target} as {}", shown(addresses)), "private_address", true)
            }
            Event::Limited(_) => (target, "limited", false),
            Event::NoHostName(_) => (target, "no_host_name", false),
            // Told where it came.
            Event::UpstreamFailed(_) => return,
        };
        self.refuse_name(by, &NameRefused { target: &target, verdict, bits: 0, private });
    }

    fn refuse_name(&mut self, by: &AskingProcess, refused: &NameRefused<'_>) {
        let Some(session) = self.sessions.get(&by.session) else { return };
        let around = self.circumstances(by.session, session, &by.scopes);
        let attempt = refused_names::describe(refused, by.pid, &around);
        self.count_attempt(by.session, by.pid, since_boot(), attempt);
    }
}

fn listed(session: &Session, name: &HostName, open: GrantSet) -> Listed {
    let mut listed = Listed::default();
    for entry in session.names.listing(name) {
        listed.bits |= entry.grant.0;
        listed.allow_private |= entry.allow_private && entry.grant.0 & open.0 != 0;
        listed.by_itself |= !entry.is_wildcard;
    }
    listed
}

fn shown(addresses: &[IpAddr]) -> String {
    const MOST: usize = 4;
    let mut shown: Vec<String> = addresses.iter().take(MOST).map(ToString::to_string).collect();
    if addresses.len() > MOST {
        shown.push("more".to_owned());
    }
    shown.join(", ")
}
