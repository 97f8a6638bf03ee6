//! The driver with a recording enforcer, a ledger in memory and a clock that stands still: fail any call, and the
//! invariants must hold.

mod bound;
mod decisions;
mod denials;
mod endings;
mod identity;
mod memory;
mod names;
mod sessions;
mod sockets;

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::Duration;

use sentinel_engine::{ActionRule, Fact, Grant, GrantSet, Limit, Policy, ScopeId};
use sentinel_proto::admin::{self, SessionStarted, StartSession};
use sentinel_proto::app::{self, Answer, Begin, End, Refused};
use sentinel_proto::{
    ActionId, ActionName, FrameReader, Money, Outcome, Payload, Reason, SessionId, SessionName,
};
use serde::de::DeserializeOwned;
use tokio::task::LocalSet;

use super::{Driver, Setting};
use crate::clock::{ManualClock, since_boot};
use crate::connection::{Arrival, Connection, Door, Message};
use crate::daemon::LoadedPolicy;
use crate::enforcer::Mark;
use crate::enforcer::recording::RecordingEnforcer;
use crate::intake::Intake;
use crate::peer::{Sender, open_pidfd};
use memory::MemoryLedger;

/// When the tests' clock starts.
const START: Duration = Duration::from_secs(1_000);

/// A driver with its surroundings, and a process that a session can be started for.
struct World {
    driver: Driver<MemoryLedger, RecordingEnforcer, ManualClock>,
    enforcer: RecordingEnforcer,
    ledger: MemoryLedger,
    clock: ManualClock,
    intake: Rc<Intake<Arrival>>,
    folder: PathBuf,
    next_id: u64,
    children: Vec<Child>,
}

/// A connection, seen from both ends.
struct Peer {
    ours: Rc<Connection>,
    theirs: UnixStream,
    reader: FrameReader,
    /// Who writes on it.
    sender: Sender,
}

/// Runs a test in a runtime, as the driver wants it.
fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { test(World::new()).await });
}

/// A policy with one action, `fetch`, that costs 0.1 of 0.3 dollars, opens a door, and expires after 60 s; any other
/// opens none.
fn policy() -> Policy {
    let limit = |text| Some(Limit { amount: Money::from_decimal(text).unwrap(), line: 1 });
    let mut policy = Policy::empty();
    policy.budgets.session = limit("0.3");
    policy.grants.push(Grant::default());
    let rule = ActionRule { grant: Some(1), max_seconds: 60, ..ActionRule::default() };
    policy.actions.insert(ActionName::new("fetch").unwrap(), rule);
    policy.denied.insert(ActionName::new("drop").unwrap(), 2);
    policy
}

const FETCHES: GrantSet = GrantSet(2);

impl World {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("sentinel-driver-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // Just enough of a cgroup for a session's to be made in.
        fs::write(folder.join("cgroup.controllers"), "").unwrap();
        let (enforcer, ledger) = (RecordingEnforcer::default(), MemoryLedger::default());
        let (clock, intake) = (ManualClock::at(START), Rc::new(Intake::default()));
        let loaded = LoadedPolicy { policy: policy(), sha256: "0".repeat(64) };
        let setting = Setting {
            policies_source: crate::daemon::PoliciesSource::Fixed,
            policies: [("test".to_owned(), loaded)].into(),
            cgroups: folder.clone(),
            bindings: Vec::new(),
            governed: "/sentinel".to_owned(),
            operators: Some(rustix::process::getegid().as_raw()),
            keep_sessions: false,
            agent_socket: folder.join("agent.sock"),
            ledger: folder.join("ledger.jsonl"),
            mask: Vec::new(),
        };
        let driver = Driver::new(
            memory::authority(&ledger),
            enforcer.clone(),
            clock.clone(),
            setting,
            Rc::clone(&intake),
        );
        Self { driver, enforcer, ledger, clock, intake, folder, next_id: 1_000_000, children: Vec::new() }
    }

    /// Its driver alone.
    fn into_driver(mut self) -> Driver<MemoryLedger, RecordingEnforcer, ManualClock> {
        let ledger = MemoryLedger::default();
        let (enforcer, clock) = (RecordingEnforcer::default(), ManualClock::at(START));
        let (setting, intake) = (self.driver.setting.clone(), Rc::default());
        std::mem::replace(
            &mut self.driver,
            Driver::new(memory::authority(&ledger), enforcer, clock, setting, intake),
        )
    }

    fn connect(&mut self, door: Door) -> Peer {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let ours = Connection::new(self.next_id, door, OwnedFd::from(ours)).unwrap();
        self.next_id += 1;
        let sender = ours.opener.sender;
        Peer { ours, theirs, reader: FrameReader::new(), sender }
    }

    fn child(&mut self) -> u32 {
        let child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }

    fn start(&mut self, name: Option<&str>) -> (Peer, Result<SessionStarted, Refused>) {
        let child = self.child();
        let mut launcher = self.connect(Door::Operator);
        let request = admin::Request::StartSession(Box::new(StartSession {
            request: 1,
            policy: "test".to_owned(),
            name: name.map(|name| SessionName::new(name).unwrap()),
            command: vec!["sleep".to_owned()],
            program: "/bin/sleep".into(),
            uid: None,
        }));
        let pidfd = Some(open_pidfd(child).unwrap());
        self.deliver(&launcher, Message::Operator(request, pidfd));
        let answer = match launcher.receive() {
            Some(admin::Reply::SessionStarted(started)) => Ok(*started),
            Some(admin::Reply::Refused(refused)) => Err(refused),
            other => panic!("no answer to a session's start: {other:?}"),
        };
        (launcher, answer)
    }

    /// A session with a connection of an application of it, which is this process.
    fn session(&mut self) -> (SessionId, Peer, Peer) {
        let (launcher, started) = self.start(None);
        let session = started.unwrap().session;
        self.enforcer
            .set_mark(std::process::id(), Mark { session, scopes: [None; 4], marked_at: since_boot() });
        let mut application = self.connect(Door::Application);
        let hello = app::Hello { version: sentinel_proto::VERSION, client: "test".to_owned() };
        self.deliver(&application, Message::Application(app::Request::Hello(hello)));
        assert!(matches!(application.receive(), Some(app::Reply::Welcome(_))));
        (session, launcher, application)
    }

    fn deliver(&mut self, peer: &Peer, message: Message) {
        let (connection, sender) = (Rc::clone(&peer.ours), peer.sender);
        self.driver.handle(Arrival::Message { connection, sender, since: since_boot(), message });
    }

    fn ask(&mut self, peer: &mut Peer, request: app::Request) -> Option<app::Reply> {
        self.deliver(peer, Message::Application(request));
        peer.receive()
    }

    fn begin(&mut self, peer: &mut Peer, action: &str) -> Answer {
        let begin = Begin {
            risk_level: None,
            needs_approval: false,
            request: 7,
            action: ActionName::new(action).unwrap(),
            cost_usd: Money::from_decimal("0.1").unwrap(),
            tags: Vec::new(),
            inputs: Payload::null(),
            annotations: None,
        };
        match self.ask(peer, app::Request::Begin(begin)) {
            Some(app::Reply::Decision(answer)) => *answer,
            other => panic!("no decision: {other:?}"),
        }
    }

    fn end(&mut self, peer: &mut Peer, action_id: ActionId, request: Option<u64>) -> Option<app::Reply> {
        let end = End {
            request,
            action_id,
            outcome: Outcome::Success,
            cost_usd: None,
            outputs: Payload::null(),
            annotations: None,
        };
        self.ask(peer, app::Request::End(end))
    }

    fn spent(&self, session: SessionId) -> Money {
        self.driver.authority.state().totals(session).map_or(Money::ZERO, |totals| totals.session)
    }

    /// The one scope that a begin of this process has used.
    fn scope(&self) -> ScopeId {
        self.driver.processes.get(&std::process::id()).map_or(ScopeId(0), |process| process.scope)
    }

    fn facts(&self) -> Vec<Fact> {
        self.ledger.facts()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

impl Peer {
    fn receive<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.reader.next_message().unwrap() {
                return Some(message);
            }
            match self.theirs.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.reader.push(&buffer[..count]),
            }
        }
    }
}

fn reason(answer: Answer) -> Option<Reason> {
    answer.denial.map(|denial| denial.reason)
}

fn outcomes(facts: &[Fact]) -> Vec<Outcome> {
    facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::ActionStarted { .. } => Some(Outcome::Started),
            Fact::ActionEnded { outcome, .. } => Some(*outcome),
            Fact::ActionDenied { .. } => Some(Outcome::Blocked),
            _ => None,
        })
        .collect()
}
