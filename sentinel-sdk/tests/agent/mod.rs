//! An agent for tests: a real unix socket and real messages. What it answers to a `begin` goes by the action's name.
//!
//! `denied…` is denied · `door…` is let start, and its end wants an answer, which `door-mute…` never gets · `silent…` gets no answer · `late…` gets it
//! after 20 ms · `garbage…` gets bytes that are no message · `hangup…` loses its connection · `nonsense…` is allowed
//! without an id · `pending…` waits for a human, of whom nothing more is told · `ask-yes…`, `ask-no…` and `ask-never…` wait for a human, who says that after 20 ms ·
//! `stranger…` is refused · all others are let start

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::allow_attributes, reason = "whether a part is used differs from program to program")]

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use sentinel_proto::app::{
    Answer, ApprovalAnswer, Begin, DenialList, End, Ended, KernelDenial, OfApproval, PendingApproval,
    RefusalCode, Refused, Reply, Request, Totals, Welcome,
};
use sentinel_proto::{
    ActionId, ApprovalId, Decision, Denial, FrameReader, Money, Reason, RulePlace, SessionId, VERSION,
    encode_frame,
};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(10);

/// One message, and who sent it on which connection.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) connection: u64,
    pub(crate) pid: i32,
    pub(crate) request: Request,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    actions: HashMap<ActionId, Begun>,
    streams: Vec<UnixStream>,
    /// Connections that were accepted, those of them that are over, and those that are not.
    accepted: u64,
    closed: u64,
    open: HashSet<u64>,
    /// What a human is asked, and what one has approved.
    asked: HashMap<ApprovalId, String>,
    approved: HashSet<String>,
}

#[derive(Debug)]
struct Begun {
    action: String,
    connection: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    version: u32,
    most_connections: u64,
}

/// A listening agent. When it is dropped it hangs up on everybody.
#[derive(Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    shared: Arc<Shared>,
}

/// A path for a socket that nothing else uses.
pub(crate) fn fresh_path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("sentinel-sdk-test-{}-{number}.sock", std::process::id()))
}

/// The agent of the client of this process: the one of guarded functions.
pub(crate) fn of_process() -> &'static Agent {
    static AGENT: LazyLock<Agent> = LazyLock::new(|| {
        let agent = Agent::start();
        sentinel_sdk::Client::new(agent.path()).use_for_process().unwrap();
        // SAFETY: what is registered takes nothing and panics never.
        unsafe { libc::atexit(remove_socket) };
        agent
    });
    /// A static is never dropped.
    extern "C" fn remove_socket() {
        drop(std::fs::remove_file(AGENT.path()));
    }
    &AGENT
}

/// Runs a future on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_at(fresh_path())
    }

    pub(crate) fn start_at(path: PathBuf) -> Self {
        Self::start_as(path, VERSION, u64::MAX)
    }

    pub(crate) fn start_as(path: PathBuf, version: u32, most_connections: u64) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let shared =
            Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), version, most_connections });
        std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Self { path, shared }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes all connections; new ones are still taken.
    pub(crate) fn hang_up(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.open.clear();
        for stream in state.streams.drain(..) {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.shared.state.lock().unwrap().accepted
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    /// The `begin`s of this action so far.
    pub(crate) fn begins(&self, action: &str) -> Vec<Begin> {
        let begins = self.seen().into_iter().filter_map(|seen| match seen.request {
            Request::Begin(begin) if begin.action.as_str() == action => Some(begin),
            _ => None,
        });
        begins.collect()
    }

    /// The `end`s of this action so far.
    pub(crate) fn ends(&self, action: &str) -> Vec<End> {
        ends_of(&self.shared.state.lock().unwrap(), action)
    }

    /// The one `end` of this action, when it has come.
    pub(crate) fn end(&self, action: &str) -> End {
        let state = self.wait_until(|state| !ends_of(state, action).is_empty());
        assert!(state, "no end of `{action}` came: {:#?}", self.seen());
        let ends = self.ends(action);
        assert_eq!(ends.len(), 1, "`{action}` has ended {} times: {ends:#?}", ends.len());
        ends.into_iter().next().unwrap()
    }

    pub(crate) fn wait_until_closed(&self, connections: u64) {
        assert!(
            self.wait_until(|state| state.closed >= connections),
            "fewer than {connections} connections were closed"
        );
    }

    pub(crate) fn wait_for_begin(&self, action: &str) {
        let is_it =
            |seen: &Seen| matches!(&seen.request, Request::Begin(begin) if begin.action.as_str() == action);
        assert!(self.wait_until(|state| state.seen.iter().any(is_it)), "no `begin` of `{action}` came");
    }

    fn wait_until(&self, mut is_so: impl FnMut(&State) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock().unwrap();
        while !is_so(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
        self.hang_up();
    }
}

fn ends_of(state: &State, action: &str) -> Vec<End> {
    let ends = state.seen.iter().filter_map(|seen| match &seen.request {
        Request::End(end)
            if state.actions.get(&end.action_id).is_some_and(|begun| begun.action == action) =>
        {
            Some(end.clone())
        }
        _ => None,
    });
    ends.collect()
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut state = self.state.lock().unwrap();
            state.accepted += 1;
            let connection = state.accepted;
            let is_welcome = state.accepted - state.closed <= self.most_connections;
            state.streams.push(stream.try_clone().unwrap());
            state.open.insert(connection);
            drop(state);
            let shared = Arc::clone(&self);
            std::thread::spawn(move || {
                shared.serve(stream, connection, is_welcome);
                let mut state = shared.state.lock().unwrap();
                state.open.remove(&connection);
                state.closed += 1;
                drop(state);
                shared.changed.notify_all();
            });
        }
    }

    fn serve(&self, mut stream: UnixStream, connection: u64, is_welcome: bool) {
        let pid = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid.as_raw_nonzero().get();
        let mut frames = FrameReader::new();
        let mut buffer = [0; 4096];
        loop {
            while let Some(request) = frames.next_message::<Request>().unwrap() {
                self.state.lock().unwrap().seen.push(Seen { connection, pid, request: request.clone() });
                self.changed.notify_all();
                let answers = self.answers(&request, connection, is_welcome);
                for bytes in answers {
                    let Some(bytes) = bytes else { return drop(stream.shutdown(std::net::Shutdown::Both)) };
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
            }
            match stream.read(&mut buffer) {
                Ok(read) if read > 0 => frames.push(&buffer[..read]),
                _ => return,
            }
        }
    }

    /// The bytes to answer with; none closes the connection.
    fn answers(&self, request: &Request, connection: u64, is_welcome: bool) -> Vec<Option<Vec<u8>>> {
        let reply = match request {
            Request::Hello(_) if !is_welcome => Reply::Refused(refused(None, RefusalCode::Busy)),
            Request::Hello(_) => Reply::Welcome(Welcome {
                version: self.version,
                session: SessionId(1),
                session_name: "test".to_owned(),
                tier: "kill".to_owned(),
            }),
            Request::Begin(begin) => return self.begin(begin, connection),
            Request::End(End { request: Some(request), action_id, .. }) => {
                let state = self.state.lock().unwrap();
                let begun = state.actions.get(action_id);
                if begun.is_some_and(|begun| begun.action.starts_with("door-mute")) {
                    return Vec::new();
                }
                let settled = begun.is_some_and(|begun| state.open.contains(&begun.connection));
                Reply::Ended(Ended { request: *request, settled })
            }
            Request::End(End { request: None, .. }) => return Vec::new(),
            Request::Denials(denials) => {
                Reply::Denials(DenialList { request: denials.request, denials: vec![kernel_denial(); 3] })
            }
            Request::AwaitApproval(of) => return self.await_approval(*of),
            Request::CancelApproval(of) => Reply::Approval(Box::new(ApprovalAnswer {
                request: of.request,
                approval: of.approval,
                approved: false,
                denial: None,
            })),
            Request::Totals(ask) => Reply::Totals(totals(ask.request, "0.25")),
            Request::ResetRun(ask) => Reply::Totals(totals(ask.request, "0")),
        };
        vec![Some(encode_frame(&reply).unwrap())]
    }

    /// A human speaks after a while.
    fn await_approval(&self, of: OfApproval) -> Vec<Option<Vec<u8>>> {
        std::thread::sleep(Duration::from_millis(20));
        let mut state = self.state.lock().unwrap();
        let Some(name) = state.asked.get(&of.approval).cloned() else {
            let unknown = Refused { request: Some(of.request), ..refused(None, RefusalCode::NotFound) };
            return vec![Some(encode_frame(&Reply::Refused(unknown)).unwrap())];
        };
        let mut answer =
            ApprovalAnswer { request: of.request, approval: of.approval, approved: true, denial: None };
        if name.starts_with("ask-never") {
            return Vec::new();
        } else if name.starts_with("ask-no") {
            answer.approved = false;
            let reason = Reason::ApprovalRejected { note: Some("not today".to_owned()) };
            answer.denial = Some(Denial { reason, rule: None });
        } else {
            state.approved.insert(name);
        }
        vec![Some(encode_frame(&Reply::Approval(Box::new(answer))).unwrap())]
    }

    fn begin(&self, begin: &Begin, connection: u64) -> Vec<Option<Vec<u8>>> {
        let action_id = ActionId(Uuid::new_v4());
        let name = begin.action.as_str();
        self.state.lock().unwrap().actions.insert(action_id, Begun { action: name.to_owned(), connection });
        let mut answer = Answer {
            request: begin.request,
            decision: Decision::Allow,
            action_id: Some(action_id),
            acknowledge_end: false,
            max_seconds: Some(600),
            denial: None,
            approval: None,
        };
        if name.starts_with("silent") {
            return Vec::new();
        } else if name.starts_with("garbage") {
            return vec![Some(vec![3, 0, 0, 0, b'{', 0xff, b'}'])];
        } else if name.starts_with("hangup") {
            return vec![None];
        } else if name.starts_with("stranger") {
            return vec![Some(
                encode_frame(&Reply::Refused(refused(Some(begin.request), RefusalCode::Identity))).unwrap(),
            )];
        } else if name.starts_with("denied") {
            let reason = Reason::BudgetExceeded {
                budget: sentinel_proto::BudgetScope::Session,
                spent: Money::from_decimal("1.5").unwrap(),
                limit: Money::from_decimal("1").unwrap(),
            };
            let rule = Some(RulePlace { rule: "budgets.session".to_owned(), line: 3 });
            (answer.decision, answer.action_id) = (Decision::Deny, None);
            answer.denial = Some(Denial { reason, rule });
        } else if name.starts_with("pending") {
            (answer.decision, answer.action_id) = (Decision::Pending, None);
        } else if name.starts_with("ask-") && !self.state.lock().unwrap().approved.remove(name) {
            let id = ApprovalId(Uuid::new_v4());
            self.state.lock().unwrap().asked.insert(id, name.to_owned());
            (answer.decision, answer.action_id) = (Decision::Pending, None);
            answer.approval = Some(PendingApproval { id, expires_in_ms: 60_000 });
        } else if name.starts_with("nonsense") {
            answer.action_id = None;
        } else if name.starts_with("door") {
            answer.acknowledge_end = true;
        } else if name.starts_with("late") {
            std::thread::sleep(Duration::from_millis(20));
        }
        vec![Some(encode_frame(&Reply::Decision(Box::new(answer))).unwrap())]
    }
}

fn refused(request: Option<u64>, code: RefusalCode) -> Refused {
    Refused { request, code, message: "not here".to_owned() }
}

fn totals(request: u64, run: &str) -> Totals {
    Totals {
        request,
        session_usd: Money::from_decimal("1.25").unwrap(),
        run_usd: Money::from_decimal(run).unwrap(),
        session_limit_usd: Some(Money::from_decimal("5").unwrap()),
        run_limit_usd: None,
    }
}

/// What the kernel has always just refused.
pub(crate) fn kernel_denial() -> KernelDenial {
    KernelDenial {
        id: "k1".to_owned(),
        attempt: "connect to 192.0.2.1:443 (tcp)".to_owned(),
        fate: "refused".to_owned(),
        would_allow: None,
    }
}
