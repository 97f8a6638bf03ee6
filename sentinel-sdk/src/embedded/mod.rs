//! Embedded mode: the authority in the process itself, without an agent, and without root.
//!
//! Same decisions, same ledger, but advisory: whoever shares the process, or can write its folder, can get around it. Nothing is enforced by the
//! kernel. Processes that name the same folder share budgets, rates and the ledger.
//!
//! # Examples
//! ```
//! use sentinel_sdk::Client;
//! use sentinel_sdk::embedded::{Embedded, EmbeddedPolicy};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = std::env::temp_dir().join(format!("sentinel-doc-{}", std::process::id()));
//! let embedded = Embedded::new(&home);
//! embedded.set_policy(EmbeddedPolicy::parse("example", "budgets: {session: 0.05}")?);
//! let client = Client::embedded(embedded);
//!
//! let mut guard = client.action("summarise").cost_usd(0.04).begin_blocking()?;
//! guard.actual_cost_usd(0.03)?;
//! guard.success("Doors are shut.");
//! let error = client.action("summarise").cost_usd(0.04).begin_blocking().unwrap_err();
//! assert_eq!(error.reason_code(), Some("BUDGET_EXCEEDED"));
//! assert_eq!(client.totals_blocking()?.session_usd.to_string(), "0.03");
//! # std::fs::remove_dir_all(home)?;
//! # Ok(())
//! # }
//! ```
//! For `#[guarded_action]` see [`Client::use_for_process`](crate::Client::use_for_process).
//!
//! Invariant: an authority that can't take its turn, or whose policy could not be read, lets nothing start.

mod ids;
mod policy;
mod share;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use sentinel_authority::SharedError;
use sentinel_proto::app::{ApprovalAnswer, Ended, RefusalCode, Refused, Reply, Request, RequestId};
use sentinel_proto::{ActionId, ApprovalId, Denial, Reason, SessionName};

use crate::pool::PerProcess;

pub use policy::{EmbeddedPolicy, PolicyError};
pub use sentinel_authority::{Intervention, LineError, intervention};
pub use share::{ActionStats, Record, Snapshot};

use share::Share;

/// Where the ledger is when `AGENT_SENTINEL_HOME` doesn't say: below the folder that the process was in when it first needed it.
pub const DEFAULT_HOME: &str = ".agent-sentinel";
/// The session of all that don't name one.
const DEFAULT_SESSION: &str = "default";
/// Of the environment: which session. What is no name lets nothing start.
const SESSION: &str = "AGENT_SENTINEL_SESSION";
/// Who waits for another of its threads for a while looks so often.
const LOCKED_AGAIN_AFTER: Duration = Duration::from_micros(200);
const HOME: &str = "AGENT_SENTINEL_HOME";
const POLICY: &str = "AGENT_SENTINEL_POLICY";

/// The authority of the processes that share a folder.
#[derive(Debug)]
pub struct Embedded {
    ledger: PathBuf,
    /// Or why there is none.
    session: Result<SessionName, String>,
    policy: PerProcess<Mutex<Arc<EmbeddedPolicy>>>,
    share: PerProcess<Mutex<Option<Share>>>,
}

impl Embedded {
    /// The authority of this folder. Nothing is opened yet.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        // A process that changes its folder goes on with the same ledger.
        let home = std::path::absolute(home).unwrap_or_else(|_| home.to_owned());
        let named = std::env::var_os(SESSION).filter(|name| !name.is_empty());
        let name = named.as_ref().map_or_else(|| DEFAULT_SESSION.into(), |name| name.to_string_lossy());
        Self {
            ledger: home.join("ledger.jsonl"),
            session: SessionName::new(name).map_err(|error| format!("`{SESSION}` names no session: {error}")),
            policy: PerProcess::new(),
            share: PerProcess::new(),
        }
    }

    /// The authority of `$AGENT_SENTINEL_HOME`, else of [`DEFAULT_HOME`], under the policy in the file `$AGENT_SENTINEL_POLICY`, if there is one.
    /// One that can't be read lets nothing start.
    #[must_use]
    pub fn of_environment() -> Self {
        let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let embedded = Self::new(Path::new(given(HOME).as_deref().unwrap_or_else(|| DEFAULT_HOME.as_ref())));
        if let Some(path) = given(POLICY) {
            embedded
                .set_policy(EmbeddedPolicy::read(Path::new(&path)).unwrap_or_else(EmbeddedPolicy::failed));
        }
        embedded
    }

    /// The ledger's file.
    #[must_use]
    pub fn ledger(&self) -> &Path {
        &self.ledger
    }

    /// What decides from now on in this process.
    pub fn set_policy(&self, policy: EmbeddedPolicy) {
        *self.own_policy().lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    /// What decides in this process.
    #[must_use]
    pub fn policy(&self) -> Arc<EmbeddedPolicy> {
        Arc::clone(&self.own_policy().lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn own_policy(&self) -> &Mutex<Arc<EmbeddedPolicy>> {
        self.policy.get_or_make(|parents| {
            Mutex::new(match parents.map(Mutex::try_lock) {
                None => Arc::default(),
                Some(Ok(policy)) => Arc::clone(&policy),
                Some(Err(TryLockError::Poisoned(policy))) => Arc::clone(&policy.into_inner()),
                // Half a moment ago another policy was about to be set.
                Some(Err(TryLockError::WouldBlock)) => Arc::new(EmbeddedPolicy::Failed(
                    "this process was forked while its parent's policy changed; configure it again"
                        .to_owned(),
                )),
            })
        })
    }

    /// Does something in this process's turn.
    fn with<T>(&self, turn: impl FnOnce(&mut Share) -> Result<T, Denial>) -> Result<T, Denial> {
        turn(self.share(&mut self.own_share().lock().unwrap_or_else(PoisonError::into_inner))?)
    }

    fn own_share(&self) -> &Mutex<Option<Share>> {
        self.share.get_or_make(|_parents| Mutex::new(None))
    }

    /// This process's share, which follows its policy.
    fn share<'own>(&self, own: &'own mut Option<Share>) -> Result<&'own mut Share, Denial> {
        let share = match (own, &self.session) {
            (Some(share), _) => share,
            (none, Ok(session)) => {
                none.insert(Share::join(&self.ledger, session, None).map_err(share::unavailable)?)
            }
            (None, Err(cause)) => return Err(share::invalid(cause)),
        };
        share.follow(&self.policy())?;
        Ok(share)
    }

    /// Answers as the host agent does.
    pub(crate) fn answer(&self, request: Request) -> Reply {
        let mut own = self.own_share().lock().unwrap_or_else(PoisonError::into_inner);
        self.answer_by(&mut own, request)
    }

    /// The same, waiting for others at most some such time. None: somebody else had the turn all the time, and nothing has happened.
    pub(crate) fn answer_within(&self, request: Request, patience: Duration) -> Option<Reply> {
        let mut own = self.own_share_within(patience)?;
        if let (None, Ok(session)) = (&*own, &self.session) {
            match Share::join(&self.ledger, session, Some(patience)) {
                Ok(share) => *own = Some(share),
                Err(SharedError::Busy(_)) => return None,
                // Whatever else keeps it from that is told below.
                Err(_) => {}
            }
        }
        if let Some(share) = own.as_mut() {
            share.set_patience(Some(patience));
        }
        let reply = self.answer_by(&mut own, request);
        let waited_in_vain = own.as_mut().is_some_and(|share| share.set_patience(None));
        (!waited_in_vain).then_some(reply)
    }

    /// This process's share, unless another of its threads has it for so long.
    fn own_share_within(&self, patience: Duration) -> Option<MutexGuard<'_, Option<Share>>> {
        let since = Instant::now();
        loop {
            match self.own_share().try_lock() {
                Ok(own) => return Some(own),
                Err(TryLockError::Poisoned(own)) => return Some(own.into_inner()),
                Err(TryLockError::WouldBlock) if since.elapsed() >= patience => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCKED_AGAIN_AFTER),
            }
        }
    }

    fn answer_by(&self, own: &mut Option<Share>, request: Request) -> Reply {
        if let (Request::End(_), Some(share)) = (&request, own.as_mut()) {
            // What runs may end, whatever has become of the policy.
            return answered(request, Ok(share));
        }
        let reply = answered(request.clone(), self.share(own));
        if own.as_mut().is_some_and(|share| share.forget_if_over(&reply)) {
            return answered(request, self.share(own));
        }
        reply
    }

    /// Answers a request that takes one turn, if nobody else has the turn and nothing else has to be waited for.
    pub(crate) fn answer_at_once(&self, request: Request) -> Option<Reply> {
        let mut own = match self.own_share().try_lock() {
            Ok(own) => own,
            Err(TryLockError::Poisoned(own)) => own.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let share = own.as_mut()?;
        let reply = share.at_once(&self.policy(), |share| answered(request, Ok(share)))?;
        // Then the session begins anew, which takes more than a turn.
        (!share.forget_if_over(&reply)).then_some(reply)
    }

    /// Takes back an action that was let start and never ran.
    pub(crate) fn abort(&self, action_id: ActionId, cause: &str) -> Result<(), Denial> {
        self.with(|share| share.abort(action_id, cause))
    }

    /// What was spent, and how often what was started.
    ///
    /// # Errors
    /// The ledger can't be read.
    pub fn snapshot(&self) -> Result<Snapshot, Denial> {
        self.with(|share| share.snapshot())
    }

    /// Writes a line about something that was done elsewhere. Decides nothing, and charges nothing.
    ///
    /// # Errors
    /// The ledger can't be written.
    pub fn record(&self, record: Record) -> Result<ActionId, Denial> {
        self.with(|share| share.record(record))
    }

    /// A human says yes or no, in this process.
    ///
    /// # Errors
    /// Nothing waits under this id, this user may not say so, or the ledger can't be written.
    pub fn decide_approval(
        &self,
        id: ApprovalId,
        approved: bool,
        note: Option<String>,
    ) -> Result<(), Denial> {
        self.with(|share| share.decide_approval(id, approved, note))
    }

    /// Gives the session its budgets back. What is in flight stays reserved.
    ///
    /// # Errors
    /// The ledger can't be written.
    pub fn reset_session(&self) -> Result<(), Denial> {
        self.with(|share| share.reset_session())
    }
}

/// What is answered in that share's turn, or where there is none.
fn answered(request: Request, share: Result<&mut Share, Denial>) -> Reply {
    let number = number_of(&request);
    let refused = |denial: Denial| {
        Reply::Refused(Refused { request: number, code: RefusalCode::Failed, message: denial.to_string() })
    };
    match request {
        Request::Begin(begin) => {
            let request = begin.request;
            let answer = share.and_then(|share| share.begin(begin));
            Reply::Decision(Box::new(answer.unwrap_or_else(|denial| share::denied(request, denial))))
        }
        Request::End(end) => {
            let settled = share.and_then(|share| share.end(end)).unwrap_or(false);
            Reply::Ended(Ended { request: number.unwrap_or(0), settled })
        }
        Request::AwaitApproval(of) => match share.and_then(|share| share.word_on(of.approval)) {
            Ok(Some(word)) => approval(of.request, of.approval, word),
            Ok(None) => Reply::Refused(Refused {
                request: number,
                code: RefusalCode::Busy,
                message: "nobody has spoken yet".to_owned(),
            }),
            Err(denial) => refused(denial),
        },
        Request::CancelApproval(of) => match share.and_then(|share| share.cancel(of.approval)) {
            Ok(()) => {
                let cause = "it was cancelled by who asked for it".to_owned();
                let reason = Reason::ApprovalCancelled { cause };
                approval(of.request, of.approval, Err(Denial { reason, rule: None }))
            }
            Err(denial) => refused(denial),
        },
        Request::Totals(ask) => {
            share.and_then(|share| share.totals(ask.request)).map_or_else(refused, Reply::Totals)
        }
        Request::ResetRun(ask) => {
            share.and_then(|share| share.reset_run(ask.request)).map_or_else(refused, Reply::Totals)
        }
        Request::Denials(ask) => {
            Reply::Denials(sentinel_proto::app::DenialList { request: ask.request, denials: Vec::new() })
        }
        Request::Hello(_) => refused(Denial {
            reason: Reason::InvalidRequest { cause: "there is no conversation here".to_owned() },
            rule: None,
        }),
    }
}

fn approval(request: RequestId, approval: ApprovalId, word: Result<(), Denial>) -> Reply {
    let denial = word.err();
    Reply::Approval(Box::new(ApprovalAnswer { request, approval, approved: denial.is_none(), denial }))
}

const fn number_of(request: &Request) -> Option<RequestId> {
    match request {
        Request::Hello(_) => None,
        Request::Begin(begin) => Some(begin.request),
        Request::End(end) => end.request,
        Request::AwaitApproval(of) | Request::CancelApproval(of) => Some(of.request),
        Request::Denials(denials) => Some(denials.request),
        Request::Totals(ask) | Request::ResetRun(ask) => Some(ask.request),
    }
}
