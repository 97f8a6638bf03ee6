//! THE loop: takes what arrives, steps the authority, carries out the effects, replies.
//!
//! Invariants (names as in ARCHITECTURE.md): *one owner*: only this task touches the authority and the enforcer.
//! *Grants end by themselves*: the heartbeat is written here and nowhere else, so that a driver that hangs, or waits,
//! shuts every door.

mod actions;
mod adoption;
mod approvals;
mod bound;
mod effects;
mod examination;
mod identity;
mod kernel;
mod names;
mod operators;
mod policies;
mod processes;
mod sessions;
mod strays;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sentinel_authority::{Authority, Log, Step};
use sentinel_engine::{Event, Fact, SessionEnding};
use sentinel_proto::{ActionId, SessionId};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::connection::{Arrival, Message};
use crate::daemon::{LoadedPolicy, PoliciesSource};
use crate::denials::Denials;
use crate::enforcer::{Enforcer, KernelRecord};
use crate::ids::Ids;
use crate::intake::{Intake, Lane};
use actions::InFlight;
use approvals::Waiting;
use bound::Bound;
pub use bound::BoundCgroup;
use examination::Examinations;
pub use names::{NameArrival, NameGate};
pub(crate) use operators::budgets_back;
use processes::Process;
use sessions::Session;
use strays::Strays;

/// After so many messages the loop looks at everything else.
const MOST_AT_ONCE: usize = 64;
/// What was written to the ledger is on the disk after this time, and the time that the disk takes.
const SYNC_AFTER: Duration = Duration::from_millis(50);
/// So long the processes of killed sessions are waited for at the end.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Brings what was written to the ledger to the disk; called on a thread of its own.
pub type ToDisk = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// What the driver is told once.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The policies that sessions can be started with.
    pub policies: BTreeMap<String, LoadedPolicy>,
    /// Where they are read from.
    pub policies_source: PoliciesSource,
    /// The cgroup below which the sessions' cgroups are made.
    pub cgroups: PathBuf,
    /// The cgroup, as in /proc/PID/cgroup, below which all agents' sessions are.
    pub governed: String,
    /// Cgroups that are governed with all that is in them.
    pub bindings: Vec<BoundCgroup>,
    /// The group whose members may operate.
    pub operators: Option<u32>,
    /// Whether sessions go on when the agent stops, for the next one to take over.
    pub keep_sessions: bool,
    /// The socket for applications.
    pub agent_socket: PathBuf,
    /// The ledger's file.
    pub ledger: PathBuf,
    /// Folders that sessions must not see.
    pub mask: Vec<PathBuf>,
}

/// Why the driver gave up.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// SIGHUP can't be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// What the ledger's file holds is unknown now.
    #[error(
        "the ledger could not be brought to the disk: {0}; what it holds is read again at the next start"
    )]
    Sync(#[source] io::Error),
}

/// The loop and everything it owns.
pub struct Driver<L: Log, E: Enforcer, C: Clock> {
    authority: Authority<L>,
    enforcer: E,
    clock: C,
    setting: Setting,
    intake: Rc<Intake<Arrival>>,
    sessions: BTreeMap<SessionId, Session>,
    bindings: Vec<Bound>,
    strays: Strays,
    examinations: Examinations,
    processes: HashMap<u32, Process>,
    actions: HashMap<ActionId, InFlight>,
    waiting: Waiting,
    denials: Denials,
    records: Vec<KernelRecord>,
    /// Lost records that have been told.
    dropped: u64,
    next_scope: u64,
    ids: Ids,
    /// When the next heartbeat is due.
    beats_at: Duration,
    /// When the next action expires, or earlier.
    expires_at: Option<Duration>,
    /// When the oldest fact was written that may not be on the disk.
    unsynced_since: Option<Instant>,
    is_stopping: bool,
}

impl<L: Log, E: Enforcer, C: Clock> std::fmt::Debug for Driver<L, E, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("sessions", &self.sessions.keys())
            .field("processes", &self.processes.len())
            .field("actions", &self.actions.len())
            .finish_non_exhaustive()
    }
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// A driver that handles what comes into this intake.
    pub fn new(
        authority: Authority<L>,
        enforcer: E,
        clock: C,
        setting: Setting,
        intake: Rc<Intake<Arrival>>,
    ) -> Self {
        // Scopes are never used again, by a later agent either: its clock is later.
        let now = clock.now();
        let next_scope = now.wall_micros.max(1);
        let bindings = setting.bindings.iter().cloned().map(Bound::new).collect();
        Self {
            authority,
            enforcer,
            clock,
            setting,
            intake,
            sessions: BTreeMap::new(),
            bindings,
            strays: Strays::default(),
            examinations: Examinations::default(),
            processes: HashMap::new(),
            actions: HashMap::new(),
            waiting: Waiting::default(),
            denials: Denials::new(now.elapsed),
            records: Vec::new(),
            dropped: 0,
            next_scope,
            ids: Ids::default(),
            beats_at: Duration::ZERO,
            expires_at: None,
            unsynced_since: None,
            is_stopping: false,
        }
    }

    /// Runs until `stop` is done and all sessions have ended. `reports` becomes readable when hooks have reported.
    /// To be called on a `LocalSet`.
    ///
    /// # Errors
    /// What can't be gone on after. Sessions are killed then, but nothing more is written.
    pub async fn run(
        &mut self,
        stop: impl Future<Output = ()>,
        reports: Option<AsyncFd<OwnedFd>>,
        to_disk: ToDisk,
    ) -> Result<(), DriverError> {
        let mut stop = pin!(stop);
        let mut hangup = signal(SignalKind::hangup()).map_err(DriverError::Signals)?;
        let mut stops_by = None;
        let mut syncing: Option<JoinHandle<io::Result<()>>> = None;
        let intake = Rc::clone(&self.intake);
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let mut wakes_at = timer.deadline();
        loop {
            let is_idle = self.handle_some();
            self.tick();
            if stops_by.is_some_and(|by| self.sessions.is_empty() || by <= Instant::now()) {
                break;
            }
            if syncing.is_none() && self.unsynced_since.is_some_and(|since| since.elapsed() >= SYNC_AFTER) {
                self.unsynced_since = None;
                let to_disk = Arc::clone(&to_disk);
                syncing = Some(tokio::task::spawn_blocking(move || to_disk()));
            }
            let next = self.next_wake(syncing.is_some());
            if next < wakes_at || timer.is_elapsed() {
                wakes_at = next;
                timer.as_mut().reset(next);
            }
            // In no fixed order: none of these, however often it is ready, keeps another from being seen.
            tokio::select! {
                () = &mut stop, if stops_by.is_none() => {
                    if self.setting.keep_sessions {
                        tracing::info!(sessions = self.sessions.len(), "leaving; sessions go on, doors of actions close");
                        break;
                    }
                    tracing::info!(sessions = self.sessions.len(), "stopping");
                    stops_by = Some(Instant::now() + STOP_TIME);
                    self.is_stopping = true;
                    let all: Vec<SessionId> = self.sessions.keys().copied().collect();
                    for session in all {
                        self.end_session(session, SessionEnding::AgentStopped);
                    }
                }
                synced = finished(syncing.as_mut()), if syncing.is_some() => {
                    syncing = None;
                    if let Err(error) = synced {
                        self.kill_all();
                        return Err(DriverError::Sync(error));
                    }
                }
                () = readable(reports.as_ref()), if reports.is_some() => self.drain_records(),
                Some(()) = hangup.recv() => self.reload(None),
                () = intake.filled(), if is_idle => {}
                () = tokio::task::yield_now(), if !is_idle => {}
                () = timer.as_mut() => {}
            }
        }
        // What is written last is synced here; the sessions have ended, so nobody waits.
        if !self.setting.keep_sessions {
            drop(self.step(Event::AgentStopped));
        }
        if syncing.is_some() {
            finished(syncing.as_mut()).await.map_err(DriverError::Sync)?;
        }
        to_disk().map_err(DriverError::Sync)
    }

    /// Gives back what the driver owns, for the end.
    #[must_use]
    pub fn into_enforcer(self) -> E {
        self.enforcer
    }

    /// Handles some of what has come. Whether there is nothing more for now.
    fn handle_some(&mut self) -> bool {
        for _ in 0..MOST_AT_ONCE {
            let Some(arrival) = self.intake.pop() else { return true };
            self.handle(arrival);
        }
        false
    }

    fn handle(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Message { connection, sender, since, message } => {
                match message {
                    Message::Application(request) => self.on_application(&connection, sender, since, request),
                    Message::Operator(request, descriptor) => {
                        self.on_operator(&connection, sender, request, descriptor);
                    }
                }
                connection.handled();
            }
            Arrival::Closed(connection) => {
                self.on_closed(&connection);
                self.waiting.forget(connection.id);
                if let Some(Lane::Session(session)) = connection.lane()
                    && let Some(session) = self.sessions.get_mut(&session)
                {
                    session.connections = session.connections.saturating_sub(1);
                }
                self.on_launcher_gone(&connection);
            }
            Arrival::ProcessGone { pid, marked_at } => self.on_process_gone(pid, marked_at),
            Arrival::Name(arrival) => self.on_name(*arrival),
            Arrival::SessionKilled(session) => self.on_session_killed(session),
            Arrival::PoliciesRead { read, asked } => self.on_policies_read(read, asked),
        }
    }

    /// Steps the authority: what comes back has been written.
    ///
    /// # Errors
    /// The ledger's: nothing has happened.
    fn step(&mut self, event: Event) -> Result<Step, L::Error> {
        let now = self.clock.now();
        let step = self.authority.step(event, now).inspect_err(|error| {
            tracing::error!(%error, "the ledger can't be written; nothing may start");
        })?;
        self.note(&step, now);
        Ok(step)
    }

    /// Takes note of what has happened.
    fn note(&mut self, step: &Step, now: sentinel_engine::Now) {
        if !step.facts.is_empty() {
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        for fact in &step.facts {
            match fact {
                Fact::ActionStarted { max_seconds, .. } => {
                    let at = now.elapsed.saturating_add(Duration::from_secs(*max_seconds));
                    self.expires_at = Some(self.expires_at.map_or(at, |earlier| earlier.min(at)));
                }
                Fact::ActionEnded { action_id, .. } => {
                    self.actions.remove(action_id);
                }
                _ => self.waiting.tell(fact),
            }
        }
        if step
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::ApprovalRequested { .. } | Fact::ApprovalGiven { .. }))
        {
            self.expires_at = self.authority.state().next_deadline();
        }
    }

    /// When the loop has to look again although nothing has come.
    fn next_wake(&self, is_syncing: bool) -> Instant {
        let now = self.clock.now().elapsed;
        let due = self.expires_at.map_or(self.beats_at, |expires_at| expires_at.min(self.beats_at));
        let due = Instant::now() + due.saturating_sub(now);
        match self.unsynced_since {
            Some(since) if !is_syncing => due.min(since + SYNC_AFTER),
            _ => due,
        }
    }

    /// Kills all sessions at once, without a word in the ledger.
    fn kill_all(&mut self) {
        for (id, session) in &self.sessions {
            if let Err(error) = session.cgroup.kill() {
                tracing::error!(session = %id, %error, "a session could not be killed; its doors shut within seconds");
            }
        }
    }
}

/// Waits until a sync is done.
async fn finished(syncing: Option<&mut JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let Some(task) = syncing else { return std::future::pending().await };
    task.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

/// Waits until hooks have reported, and takes note of it.
async fn readable(reports: Option<&AsyncFd<OwnedFd>>) {
    let Some(reports) = reports else { return std::future::pending().await };
    match reports.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        // The runtime is going down; each second the records are taken anyway.
        Err(_gone) => std::future::pending().await,
    }
}
