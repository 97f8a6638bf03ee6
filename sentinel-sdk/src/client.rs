//! How a program reaches the agent.
//!
//! Invariant: whatever keeps an answer from coming is an error; none of them is taken for an *allow*.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sentinel_proto::app::{Ask, Denials, KernelDenial, Reply, Request, RequestId};
use sentinel_proto::{Money, Reason};

use crate::action::Action;
use crate::error::Error;
use crate::pool::{Connection, Deadline, LinkError, PerProcess, Pool, Waiting, finish};

/// Where the agent listens when `AGENT_SENTINEL_SOCKET` doesn't say.
pub const DEFAULT_SOCKET: &str = "/run/agent-sentinel/agent.sock";
/// How long a request waits for its answer unless [`Client::with_deadline`] says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// What a request went by; none in embedded mode.
pub(crate) type Link = Option<Arc<Connection>>;

/// Whether a human has spoken is looked up so often in embedded mode.
#[cfg(feature = "embedded")]
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

static OF_PROCESS: PerProcess<Client> = PerProcess::new();

/// A way to the agent. Cheap to clone; all clones share at most eight connections, made when they are first needed.
///
/// Most programs never make one: `#[guarded_action]` and the functions of this crate use the one of the process.
/// Any number of threads, tasks and runtimes may use a client at once. After a fork the child has connections of its
/// own: to the agent it is another process, whose actions are its own.
///
/// A lost connection is dialled anew by the next request. A `begin` that has no answer within the deadline costs its
/// connection, and with it the actions that were begun on it: the agent takes them for abandoned and shuts their
/// doors.
#[derive(Clone, Debug)]
pub struct Client {
    place: Arc<Place>,
    deadline: Duration,
}

/// Where the answers come from.
#[derive(Debug)]
enum Place {
    /// The host agent.
    Host { socket: PathBuf, pool: PerProcess<Pool> },
    /// This process itself.
    #[cfg(feature = "embedded")]
    Embedded(crate::embedded::Embedded),
}

/// What was spent, reservations of actions in flight included, and what may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Spent by the session.
    pub session_usd: Money,
    /// Spent by its run.
    pub run_usd: Money,
    /// The session's limit; none where it has none.
    pub session_limit_usd: Option<Money>,
    /// The run's limit; none where it has none.
    pub run_limit_usd: Option<Money>,
}

impl Client {
    /// The client of this process, at `$AGENT_SENTINEL_SOCKET` or else [`DEFAULT_SOCKET`]. Nothing is dialled yet.
    ///
    /// With the feature `embedded`, and no socket named, `AGENT_SENTINEL_MODE=embedded` makes the process decide for itself, by the policy that
    /// `AGENT_SENTINEL_POLICY` names.
    #[must_use]
    pub fn of_process() -> Self {
        let make = |parents: Option<&Self>| match parents {
            Some(parents) => parents.clone(),
            None => {
                let socket = std::env::var_os("AGENT_SENTINEL_SOCKET").filter(|path| !path.is_empty());
                #[cfg(feature = "embedded")]
                if socket.is_none()
                    && std::env::var_os("AGENT_SENTINEL_MODE").is_some_and(|mode| mode == "embedded")
                {
                    return Self::embedded(crate::embedded::Embedded::of_environment());
                }
                Self::new(socket.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from))
            }
        };
        OF_PROCESS.get_or_make(make).clone()
    }

    /// Makes this the client of this process, which `#[guarded_action]` and the functions of this crate use, and of the children that it forks.
    ///
    /// # Errors
    /// The process has another one already: the first use of one settles that.
    ///
    /// # Examples
    /// ```
    /// let client = sentinel_sdk::Client::new("/run/my-agent/agent.sock");
    /// client.use_for_process()?; // at the beginning of `main`
    /// # Ok::<(), sentinel_sdk::Error>(())
    /// ```
    pub fn use_for_process(&self) -> Result<(), Error> {
        let used = OF_PROCESS.get_or_make(|parents| parents.unwrap_or(self).clone());
        if Arc::ptr_eq(&used.place, &self.place) && used.deadline == self.deadline {
            return Ok(());
        }
        let cause = "it has one already; say which before anything is asked".to_owned();
        Err(Error::invalid("client of the process", Reason::InvalidRequest { cause }, self.clone()))
    }

    /// A client of the agent that listens there. Nothing is dialled yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::at(Place::Host { socket: socket.into(), pool: PerProcess::new() })
    }

    /// A client that decides in this process, by the authority of a folder. What it says is advisory: see [`crate::embedded`].
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn embedded(embedded: crate::embedded::Embedded) -> Self {
        Self::at(Place::Embedded(embedded))
    }

    fn at(place: Place) -> Self {
        Self { place: Arc::new(place), deadline: DEFAULT_DEADLINE }
    }

    /// The authority in this process; none where a host agent decides.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn as_embedded(&self) -> Option<&crate::embedded::Embedded> {
        match &*self.place {
            Place::Embedded(embedded) => Some(embedded),
            Place::Host { .. } => None,
        }
    }

    /// The same client, whose requests wait for their answers at most so long.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The agent's socket; in embedded mode, which has none, the ledger.
    #[must_use]
    pub fn socket(&self) -> &Path {
        match &*self.place {
            Place::Host { socket, .. } => socket,
            #[cfg(feature = "embedded")]
            Place::Embedded(embedded) => embedded.ledger(),
        }
    }

    /// An action of this name, to be begun.
    pub fn action(&self, name: impl Into<String>) -> Action {
        Action::new(self.clone(), name.into())
    }

    /// What the session has spent.
    ///
    /// # Errors
    /// The agent doesn't answer.
    pub async fn totals(&self) -> Result<Totals, Error> {
        self.ask_totals("totals", Request::Totals, Waiting::of_caller()).await
    }

    /// [`Client::totals`] for code that isn't async.
    ///
    /// # Errors
    /// As there.
    pub fn totals_blocking(&self) -> Result<Totals, Error> {
        finish(self.ask_totals("totals", Request::Totals, Waiting::InThread))
    }

    /// Begins a new run of the session, with a fresh run budget.
    ///
    /// # Errors
    /// The agent doesn't answer, or can't record it: the run goes on.
    pub async fn reset_run(&self) -> Result<Totals, Error> {
        self.ask_totals("reset of the run", Request::ResetRun, Waiting::of_caller()).await
    }

    /// [`Client::reset_run`] for code that isn't async.
    ///
    /// # Errors
    /// As there.
    pub fn reset_run_blocking(&self) -> Result<Totals, Error> {
        finish(self.ask_totals("reset of the run", Request::ResetRun, Waiting::InThread))
    }

    /// What the kernel refused to this process lately, newest last; repeats in a row stand once.
    ///
    /// # Errors
    /// The agent doesn't answer.
    pub async fn kernel_denials(&self, within: Duration) -> Result<Vec<KernelDenial>, Error> {
        self.ask_denials(within, Waiting::of_caller()).await
    }

    /// [`Client::kernel_denials`] for code that isn't async.
    ///
    /// # Errors
    /// As there.
    pub fn kernel_denials_blocking(&self, within: Duration) -> Result<Vec<KernelDenial>, Error> {
        finish(self.ask_denials(within, Waiting::InThread))
    }

    /// How long a request may take.
    pub(crate) fn patience(&self) -> Duration {
        self.deadline
    }

    /// Sends a request within this client's deadline; see [`Pool::ask`].
    pub(crate) async fn ask(
        &self,
        request: impl FnOnce(RequestId) -> Request,
        preferred: Option<&Arc<Connection>>,
        waiting: Waiting,
    ) -> Result<(Reply, Link), LinkError> {
        self.ask_until(request, preferred, waiting, Deadline::after(self.deadline)).await
    }

    /// As [`Client::ask`], until another deadline.
    pub(crate) async fn ask_until(
        &self,
        request: impl FnOnce(RequestId) -> Request,
        preferred: Option<&Arc<Connection>>,
        waiting: Waiting,
        deadline: Deadline,
    ) -> Result<(Reply, Link), LinkError> {
        match self.pool() {
            Ok(pool) => {
                let (reply, connection) = pool.ask(request, preferred, waiting, deadline).await?;
                Ok((reply, Some(connection)))
            }
            #[cfg(feature = "embedded")]
            Err(embedded) => Ok((embedded.answer(request(0)), None)),
        }
    }

    /// As [`Client::ask`], for an answer that may take so long.
    pub(crate) async fn ask_apart(
        &self,
        request: impl FnOnce(RequestId) -> Request,
        waiting: Waiting,
        deadline: Deadline,
    ) -> Result<Reply, LinkError> {
        match self.pool() {
            Ok(pool) => pool.ask_apart(request, waiting, Deadline::after(self.deadline), deadline).await,
            #[cfg(feature = "embedded")]
            Err(embedded) => {
                let request = request(0);
                loop {
                    match embedded.answer(request.clone()) {
                        Reply::Refused(refused) if refused.code == sentinel_proto::app::RefusalCode::Busy => {
                            waiting
                                .pause(LOOK_AGAIN_AFTER, deadline)
                                .await
                                .map_err(|_late| LinkError::TimedOut(deadline.patience))?;
                        }
                        reply => return Ok(reply),
                    }
                }
            }
        }
    }

    /// The connections to the host agent; in embedded mode there are none, but an authority.
    #[cfg(feature = "embedded")]
    pub(crate) fn pool(&self) -> Result<&Pool, &crate::embedded::Embedded> {
        match &*self.place {
            Place::Host { socket, pool } => Ok(pool_of_process(socket, pool)),
            Place::Embedded(embedded) => Err(embedded),
        }
    }

    /// The connections to the host agent.
    #[cfg(not(feature = "embedded"))]
    pub(crate) fn pool(&self) -> Result<&Pool, std::convert::Infallible> {
        let Place::Host { socket, pool } = &*self.place;
        Ok(pool_of_process(socket, pool))
    }

    async fn ask_totals(
        &self,
        asked: &'static str,
        request: fn(Ask) -> Request,
        waiting: Waiting,
    ) -> Result<Totals, Error> {
        let reply = self.ask(|number| request(Ask { request: number }), None, waiting).await;
        match answered(reply) {
            Ok(Reply::Totals(totals)) => Ok(Totals {
                session_usd: totals.session_usd,
                run_usd: totals.run_usd,
                session_limit_usd: totals.session_limit_usd,
                run_limit_usd: totals.run_limit_usd,
            }),
            Ok(_) => Err(Error::unanswered(asked, &LinkError::Unexpected, self.clone())),
            Err(error) => Err(Error::unanswered(asked, &error, self.clone())),
        }
    }

    async fn ask_denials(&self, within: Duration, waiting: Waiting) -> Result<Vec<KernelDenial>, Error> {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let reply = self.ask(|request| Request::Denials(Denials { request, within_ms }), None, waiting).await;
        match answered(reply) {
            Ok(Reply::Denials(mut list)) => {
                list.denials.dedup();
                Ok(list.denials)
            }
            Ok(_) => Err(Error::unanswered("kernel denials", &LinkError::Unexpected, self.clone())),
            Err(error) => Err(Error::unanswered("kernel denials", &error, self.clone())),
        }
    }
}

fn pool_of_process<'pool>(socket: &Path, pool: &'pool PerProcess<Pool>) -> &'pool Pool {
    pool.get_or_make(|parents| {
        if let Some(parents) = parents {
            parents.leave_to_parent();
        }
        Pool::new(socket.to_owned())
    })
}

/// The answer, unless it is a refusal.
pub(crate) fn answered(reply: Result<(Reply, Link), LinkError>) -> Result<Reply, LinkError> {
    match reply? {
        (Reply::Refused(refused), _) => Err(LinkError::Refused(refused)),
        (reply, _) => Ok(reply),
    }
}
