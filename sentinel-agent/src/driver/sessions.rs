//! Sessions: how they come to be, and how they end.
//!
//! Invariant: a session's process runs CMD only after cgroup, rules and mark are all there; one that could not be
//! started leaves nothing behind; one that ends takes every process of it along.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_authority::Log;
use sentinel_engine::{Event, Mode, NameTable, Policy, SessionEnding};
use sentinel_proto::admin::{Reply, SessionStarted, StartSession};
use sentinel_proto::app::RefusalCode;
use sentinel_proto::{SessionId, SessionName};

use super::Driver;
use crate::clock::Clock;
use crate::connection::{Arrival, Connection};
use crate::enforcer::{Enforcer, FirstImage, Writer, images};
use crate::intake::Lane;
use crate::peer::{self, Sender};
use crate::session::cgroup::SessionCgroup;

/// The uids of sessions without a user of their own: this one and the next 65,535.
const FIRST_UID: u32 = 1_990_000_000;

/// How long to wait before asking again whether the processes of a killed session are gone.
const EMPTY_PAUSE: Duration = Duration::from_millis(5);

/// A living session.
#[derive(Debug)]
pub(super) struct Session {
    /// Its name, given or made.
    pub(super) shown: String,
    /// Its policy's name, and the policy.
    pub(super) policy: String,
    pub(super) rules: Arc<Policy>,
    /// The rules of that policy that name hosts.
    pub(super) names: NameTable,
    pub(super) cgroup: SessionCgroup,
    /// The connection that it lives and dies with; none after it was taken over, until its launcher is back.
    pub(super) launcher: Option<Rc<Connection>>,
    /// The process that was to become CMD; none in a session that was taken over, which ends with its last process.
    root: Option<OwnedFd>,
    /// Connections of its applications.
    pub(super) connections: usize,
    /// Whether the kernel side holds its baseline network open, once it was told.
    pub(super) baseline: Option<bool>,
    /// Why it is on its way out, if it is.
    pub(super) ending: Option<SessionEnding>,
    /// Its user, once looked up; none inside where that failed.
    user: OnceCell<Option<Writer>>,
}

impl Session {
    /// The user of its processes, who has this uid; none where the system's lists can't be read.
    pub(super) fn user(&self, uid: u32) -> Option<&Writer> {
        self.user.get_or_init(|| Writer::with_uid(uid).ok()).as_ref()
    }

    /// From now on it is under another version of its policy.
    pub(super) fn change_rules(&mut self, rules: Arc<Policy>) {
        self.names = NameTable::of(&rules.grants);
        self.rules = rules;
    }

    /// One without a launcher: bound, or started by an earlier agent.
    pub(super) fn unlaunched(
        shown: String,
        policy: String,
        rules: Arc<Policy>,
        cgroup: SessionCgroup,
    ) -> Self {
        Self {
            shown,
            policy,
            names: NameTable::of(&rules.grants),
            rules,
            cgroup,
            launcher: None,
            root: None,
            connections: 0,
            baseline: None,
            ending: None,
            user: OnceCell::new(),
        }
    }

    fn is_launched_by(&self, connection: &Connection) -> bool {
        self.launcher.as_ref().is_some_and(|launcher| launcher.id == connection.id)
    }

    /// Whether CMD has ended.
    fn has_no_root(&self) -> bool {
        self.root.as_ref().is_none_or(|root| !peer::is_alive(root.as_fd()))
    }
}

/// Why a session was not started.
struct NotStarted(RefusalCode, String);

impl NotStarted {
    fn failed(cause: impl std::fmt::Display) -> Self {
        Self(RefusalCode::Failed, cause.to_string())
    }
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Starts a session for the process that came with the message, and answers.
    pub(super) fn start_session(
        &mut self,
        connection: &Rc<Connection>,
        sender: Sender,
        start: StartSession,
        pidfd: Option<OwnedFd>,
    ) {
        let request = start.request;
        match self.try_start(connection, sender, start, pidfd) {
            Ok(started) => connection.send(&Reply::SessionStarted(Box::new(started))),
            Err(NotStarted(code, cause)) => {
                tracing::warn!(pid = sender.pid, cause = %cause.escape_debug(), "a session is not started");
                connection.refuse(Some(request), code, cause);
            }
        }
    }

    fn try_start(
        &mut self,
        connection: &Rc<Connection>,
        sender: Sender,
        start: StartSession,
        pidfd: Option<OwnedFd>,
    ) -> Result<SessionStarted, NotStarted> {
        let Some(loaded) = self.setting.policies.get(&start.policy).cloned() else {
            return Err(NotStarted(
                RefusalCode::NotFound,
                unknown_policy(&start.policy, &self.setting.policies),
            ));
        };
        if self.sessions.values().any(|session| session.is_launched_by(connection)) {
            return Err(NotStarted::failed("this connection has a session already; open another"));
        }
        if self.is_stopping {
            return Err(NotStarted::failed("the agent is stopping; start it again"));
        }
        if let Some(cause) = self.examinations.failure() {
            return Err(NotStarted::failed(format!(
                "this host does not enforce what it is told ({cause}); see `sentinel doctor`"
            )));
        }
        let state = self.authority.state();
        let known = start.name.as_ref().and_then(|name| state.session_named(name));
        let session = known.unwrap_or_else(|| state.next_session());
        if self.sessions.contains_key(&session) {
            let name = start.name.as_ref().map_or("", SessionName::as_str);
            return Err(NotStarted::failed(format!(
                "session `{name}` is running; choose another name, or end it"
            )));
        }
        let pidfd = pidfd.ok_or_else(|| NotStarted::failed("no pidfd came with the message"))?;
        let root = self.vouched(sender, &pidfd).map_err(NotStarted::failed)?;
        let tier = self.enforcer.enforcement().tier;
        let first = images::command_image(&start.program, tier).map_err(NotStarted::failed)?;
        let uid = start.uid.unwrap_or_else(|| FIRST_UID.saturating_add(session.0 % 65_536));
        let shown = start.name.as_ref().map_or_else(|| format!("s{session}"), ToString::to_string);
        let rules = Arc::new(loaded.policy);

        self.authority.bind(session, Arc::clone(&rules));
        let begun = self.step(Event::SessionStart {
            session,
            name: start.name.clone(),
            policy: start.policy.clone(),
            policy_sha256: loaded.sha256,
            command: start.command,
            uid,
            tier: self.enforcer.enforcement().tier.as_str().to_owned(),
        });
        let begun = begun.map_err(NotStarted::failed)?;
        if begun.facts.is_empty() {
            return Err(NotStarted::failed(format!("session {session} has not ended; try again")));
        }
        let held = self.hold(session, &rules, uid, root, first).and_then(|cgroup| {
            let entry = Session {
                shown: shown.clone(),
                policy: start.policy,
                names: NameTable::of(&rules.grants),
                rules: Arc::clone(&rules),
                cgroup,
                launcher: Some(Rc::clone(connection)),
                root: Some(pidfd),
                connections: 0,
                baseline: None,
                ending: None,
                user: OnceCell::new(),
            };
            self.sessions.insert(session, entry);
            self.perform(&begun.effects).map_err(|error| error.to_string())
        });
        if let Err(cause) = held {
            self.undo_start(session, &cause);
            return Err(NotStarted::failed(cause));
        }
        tracing::info!(%session, name = %shown, pid = root, uid, "session started");
        let cgroup =
            self.sessions.get(&session).map(|entry| entry.cgroup.path().to_owned()).unwrap_or_default();
        Ok(SessionStarted {
            request: start.request,
            session,
            name: shown,
            cgroup,
            uid,
            agent_socket: self.setting.agent_socket.clone(),
            mask: self.setting.mask.clone(),
            tier: self.enforcer.enforcement().tier.as_str().to_owned(),
            ledger: self.setting.ledger.clone(),
            audit: rules.mode == Mode::Audit,
            unix_allow: rules.unix_allow.clone(),
        })
    }

    /// The pid that a pidfd stands for, if the sender may speak for that process and it is in no session.
    fn vouched(&self, sender: Sender, pidfd: &OwnedFd) -> Result<u32, String> {
        let gone = || "the process that was to become the command is gone".to_owned();
        let pid = peer::pid_of(pidfd.as_fd()).ok_or_else(gone)?;
        let is_child = peer::parent_of(pid).map_err(|_gone| gone())? == sender.pid;
        let is_own = std::fs::metadata(format!("/proc/{pid}")).map_err(|_gone| gone())?.uid() == sender.uid;
        if !is_child && !is_own {
            return Err(format!(
                "process {pid} is neither a child of {} nor of its uid {}",
                sender.pid, sender.uid
            ));
        }
        if pid == std::process::id() {
            return Err("the agent itself can't be in a session".to_owned());
        }
        if self.enforcer.mark(pid).map_err(|error| error.to_string())?.is_some() {
            return Err(format!("process {pid} is in a session already"));
        }
        if !peer::is_alive(pidfd.as_fd()) {
            return Err(gone());
        }
        Ok(pid)
    }

    /// Puts a process under a session's rules. On failure nothing of it stays, except what [`Self::undo_start`] ends.
    fn hold(
        &mut self,
        session: SessionId,
        rules: &Policy,
        uid: u32,
        root: u32,
        first: FirstImage,
    ) -> Result<SessionCgroup, String> {
        let cgroup =
            SessionCgroup::create(&self.setting.cgroups, session).map_err(|error| error.to_string())?;
        let held = self
            .enforcer
            .start_session(session, cgroup.id(), rules, uid)
            .and_then(|()| self.enforcer.enrol(session, root, first))
            .map_err(|error| error.to_string())
            .and_then(|()| cgroup.add(root).map_err(|error| error.to_string()));
        match held {
            Ok(()) => Ok(cgroup),
            Err(cause) => {
                self.clear(session, &cgroup);
                Err(cause)
            }
        }
    }

    pub(super) fn undo_start(&mut self, session: SessionId, cause: &str) {
        if let Some(entry) = self.sessions.remove(&session) {
            self.clear(session, &entry.cgroup);
        }
        let ending = SessionEnding::StartFailed { message: cause.to_owned() };
        // A ledger that can't be written has been reported, and the session is none either way.
        drop(self.step(Event::SessionEnd { session, ending }));
        self.authority.release(session);
    }

    /// Kills what is left of a session, and removes its cgroup and rules. Failures are told; what stays denies.
    pub(super) fn clear(&mut self, session: SessionId, cgroup: &SessionCgroup) {
        if let Err(error) = cgroup.kill_all(Instant::now() + Duration::from_secs(1)) {
            // Its rules stay, and so do the hooks on a bound cgroup: who is left is held by them.
            return tracing::error!(%session, %error, "processes of the session may be left; they stay held");
        }
        if let Err(error) = self.enforcer.stop_session(session) {
            tracing::error!(%session, %error, "rules of the session are left");
        }
        if let Err(error) = cgroup.remove() {
            tracing::error!(%session, %error, "the session's cgroup is left");
        }
    }

    /// A launcher is back at the session that it had started: that lives and dies with its connection again.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn attach(
        &mut self,
        connection: &Rc<Connection>,
        session: SessionId,
    ) -> Result<String, (RefusalCode, String)> {
        if self.sessions.values().any(|session| session.is_launched_by(connection)) {
            return Err((RefusalCode::Failed, "this connection has a session already".to_owned()));
        }
        let entry = self.sessions.get_mut(&session).filter(|entry| entry.ending.is_none());
        let Some(entry) = entry else {
            return Err((RefusalCode::NotFound, format!("session {session} is over")));
        };
        if entry.launcher.is_some() {
            return Err((RefusalCode::Failed, format!("session {session} has its launcher")));
        }
        entry.launcher = Some(Rc::clone(connection));
        Ok(format!("session `{}` is this connection's again", entry.shown))
    }

    /// A launcher's connection is over, and its session with it.
    pub(super) fn on_launcher_gone(&mut self, connection: &Connection) {
        let session = self.sessions.iter().find(|(_, session)| session.is_launched_by(connection));
        let Some((id, session)) = session else { return };
        let is_done = session.has_no_root() && !session.cgroup.is_populated().unwrap_or(true);
        let ending = if is_done { SessionEnding::Exited } else { SessionEnding::LauncherGone };
        self.end_session(*id, ending);
    }

    /// Ends the sessions whose command and all processes are gone.
    pub(super) fn end_exited(&mut self) {
        let exited: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.ending.is_none() && session.has_no_root())
            // What comes into a bound one later is held as well.
            .filter(|(_, session)| !session.cgroup.is_bound())
            .filter(|(_, session)| matches!(session.cgroup.is_populated(), Ok(false)))
            .map(|(id, _)| *id)
            .collect();
        for session in exited {
            self.end_session(session, SessionEnding::Exited);
        }
    }

    /// Freezes a session's processes, or lets them go on.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn freeze(&self, session: SessionId, frozen: bool) -> Result<(), String> {
        let entry = self.sessions.get(&session).ok_or_else(|| format!("session {session} is over"))?;
        entry.cgroup.freeze(frozen).map_err(|error| error.to_string())
    }

    /// Kills what is left of a session, and ends it as soon as nothing is.
    pub(super) fn end_session(&mut self, id: SessionId, ending: SessionEnding) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.ending.is_some() {
            return;
        }
        session.ending = Some(ending);
        if let Err(error) = session.cgroup.kill() {
            tracing::error!(session = %id, %error, "a session could not be killed; it stays under its rules");
        }
        if matches!(session.cgroup.is_populated(), Ok(false)) {
            return self.finish_session(id);
        }
        let intake = Rc::clone(&self.intake);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(EMPTY_PAUSE).await;
            intake.push(Lane::Host, Arrival::SessionKilled(id));
        });
    }

    /// Looks again whether a killed session is empty.
    pub(super) fn on_session_killed(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if matches!(session.cgroup.is_populated(), Ok(false)) {
            return self.finish_session(id);
        }
        // Killed again each time: a task that was being moved in may have come late.
        if let Err(error) = session.cgroup.kill() {
            tracing::error!(session = %id, %error, "a session could not be killed; it stays under its rules");
        }
        let intake = Rc::clone(&self.intake);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(EMPTY_PAUSE * 4).await;
            intake.push(Lane::Host, Arrival::SessionKilled(id));
        });
    }

    /// Ends a session that has no process any more.
    fn finish_session(&mut self, id: SessionId) {
        self.drain_records();
        self.tell_last_repeats(id);
        let Some(session) = self.sessions.remove(&id) else { return };
        self.actions.retain(|_, action| action.session != id);
        if let Err(error) = self.enforcer.stop_session(id) {
            tracing::error!(session = %id, %error, "rules of the session are left");
        }
        if let Err(error) = session.cgroup.remove() {
            tracing::error!(session = %id, %error, "the session's cgroup is left");
        }
        let ending = session.ending.unwrap_or(SessionEnding::Exited);
        tracing::info!(session = %id, name = %session.shown, ?ending, "session ended");
        // The session is over whether or not that can be written; a failure has been reported.
        drop(self.step(Event::SessionEnd { session: id, ending }));
        self.authority.release(id);
        self.intake.forget(Lane::Session(id));
        if let Some(launcher) = session.launcher {
            launcher.close();
        }
    }
}

fn unknown_policy<T>(name: &str, policies: &BTreeMap<String, T>) -> String {
    let names: Vec<&str> = policies.keys().map(String::as_str).collect();
    format!("no policy is named `{name}`; there are: {}", names.join(", "))
}
