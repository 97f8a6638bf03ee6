//! Why a guarded action was not run, or the agent not asked.

use std::fmt;
use std::time::Duration;

use sentinel_proto::app::{KernelDenial, PendingApproval};
use sentinel_proto::{ApprovalId, Denial, Reason};

use crate::approval::{self, Word};
use crate::client::Client;
use crate::explain::RECENT;
use crate::pool::{LinkError, Waiting, finish};

/// Longer than any approval waits: ten years.
const MOST_MILLISECONDS: u64 = 10 * 365 * 24 * 60 * 60 * 1_000;

/// A guarded action was not run, or the agent could not be asked.
///
/// Its text says what was refused, why, and what to do instead; it is meant to be shown to the person, or to the
/// model, that wanted it.
#[derive(Debug)]
pub struct Error(Box<Kind>);

#[derive(Debug)]
enum Kind {
    /// An action was denied: its body has not run.
    Denied { action: String, denial: Denial, approval: Option<ApprovalId>, client: Client },
    /// A replay has no answer for it. Its body has not run.
    #[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "only what decides for itself replays"))]
    Diverged { action: String, cause: String },
    /// A replay tells how it failed then. Its body has not run.
    #[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "only what decides for itself replays"))]
    Recorded { action: String, text: String },
    /// Something else was asked, and not answered.
    Unanswered { asked: &'static str, denial: Denial, client: Client },
}

impl Error {
    pub(crate) fn denied(action: &str, denial: Denial, client: Client) -> Self {
        Self(Box::new(Kind::Denied { action: action.to_owned(), denial, approval: None, client }))
    }

    #[cfg(feature = "embedded")]
    pub(crate) fn diverged(action: &str, cause: impl Into<String>) -> Self {
        Self(Box::new(Kind::Diverged { action: action.to_owned(), cause: cause.into() }))
    }

    #[cfg(feature = "embedded")]
    pub(crate) fn recorded(action: &str, text: String) -> Self {
        Self(Box::new(Kind::Recorded { action: action.to_owned(), text }))
    }

    /// It waits for a human, and whoever asked doesn't.
    pub(crate) fn of_wish(self, wish: ApprovalId) -> Self {
        let mut kind = self.0;
        if let Kind::Denied { approval, .. } = &mut *kind {
            *approval = Some(wish);
        }
        Self(kind)
    }

    pub(crate) fn not_begun(action: &str, error: &LinkError, client: Client) -> Self {
        Self::denied(action, Denial { reason: error.reason(), rule: None }, client)
    }

    pub(crate) fn unanswered(asked: &'static str, error: &LinkError, client: Client) -> Self {
        Self::invalid(asked, error.reason(), client)
    }

    pub(crate) fn invalid(asked: &'static str, reason: Reason, client: Client) -> Self {
        Self(Box::new(Kind::Unanswered { asked, denial: Denial { reason, rule: None }, client }))
    }

    /// Whether a guarded action was denied. Its body has not run.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(*self.0, Kind::Denied { .. })
    }

    /// Whether a replay has no answer: the program does something else than was recorded. The action's body has not run.
    #[must_use]
    pub fn is_divergence(&self) -> bool {
        matches!(*self.0, Kind::Diverged { .. })
    }

    /// How the action failed when it was recorded, where a replay tells it.
    #[must_use]
    pub fn recorded_error(&self) -> Option<&str> {
        match &*self.0 {
            Kind::Recorded { text, .. } => Some(text),
            Kind::Denied { .. } | Kind::Diverged { .. } | Kind::Unanswered { .. } => None,
        }
    }

    /// Why the action was denied; none where no action was.
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match &*self.0 {
            Kind::Denied { denial, .. } => Some(denial),
            Kind::Diverged { .. } | Kind::Recorded { .. } | Kind::Unanswered { .. } => None,
        }
    }

    /// The approval that the action waits for, or waited for; none where none is needed.
    #[must_use]
    pub fn approval(&self) -> Option<ApprovalId> {
        match &*self.0 {
            Kind::Denied { approval, .. } => *approval,
            Kind::Diverged { .. } | Kind::Recorded { .. } | Kind::Unanswered { .. } => None,
        }
    }

    /// Waits for a human's word on the approval that the action waits for: see [`Error::approval`]. After a yes the same action is to be begun again.
    /// `patience` is how long at most; none: as long as the policy lets it wait.
    ///
    /// # Errors
    /// The word is no, nobody spoke in time, or it waits for none.
    pub fn await_approval_blocking(&self, patience: Option<Duration>) -> Result<(), Self> {
        let (Kind::Denied { client, .. } | Kind::Unanswered { client, .. }) = &*self.0 else {
            return Ok(());
        };
        let (Some(id), Some(action)) = (self.approval(), self.action()) else {
            let cause = "it waits for no approval".to_owned();
            return Err(Self::invalid("approval", Reason::InvalidRequest { cause }, client.clone()));
        };
        // When it expires, whoever has it says.
        let wish = PendingApproval { id, expires_in_ms: MOST_MILLISECONDS };
        match finish(approval::wait(client, wish, patience, Waiting::InThread)) {
            Word::Yes => Ok(()),
            Word::No(denial) => Err(Self::denied(action, denial, client.clone()).of_wish(id)),
        }
    }

    /// The name of the action whose body has not run; none where something else was asked.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        match &*self.0 {
            Kind::Denied { action, .. } | Kind::Diverged { action, .. } | Kind::Recorded { action, .. } => {
                Some(action)
            }
            Kind::Unanswered { .. } => None,
        }
    }

    /// The reason, for programs: `BUDGET_EXCEEDED`, `AGENT_UNAVAILABLE` and so on; see [`Reason`]. None where a replay says it.
    #[must_use]
    pub fn reason_code(&self) -> Option<&'static str> {
        self.reason().map(Reason::code)
    }

    /// What would be allowed instead, or what to do.
    #[must_use]
    pub fn way_out(&self) -> String {
        match &*self.0 {
            Kind::Denied { denial, .. } | Kind::Unanswered { denial, .. } => denial.reason.way_out(),
            Kind::Diverged { .. } => "record the program anew, or replay it with `lenient`".to_owned(),
            Kind::Recorded { .. } => "it failed so when it was recorded".to_owned(),
        }
    }

    /// What the kernel refused to this process in the last ten seconds, newest last: asks the agent now, and blocks
    /// meanwhile. Empty where nothing was refused, and where the agent doesn't answer.
    #[must_use]
    pub fn kernel_denials(&self) -> Vec<KernelDenial> {
        let (Kind::Denied { client, .. } | Kind::Unanswered { client, .. }) = &*self.0 else {
            return Vec::new();
        };
        client.kernel_denials_blocking(RECENT).unwrap_or_default()
    }

    fn reason(&self) -> Option<&Reason> {
        match &*self.0 {
            Kind::Denied { denial, .. } | Kind::Unanswered { denial, .. } => Some(&denial.reason),
            Kind::Diverged { .. } | Kind::Recorded { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            // A name that is none may hold anything.
            Kind::Denied { action, denial, .. } => {
                write!(f, "action `{}` denied: {denial}", action.escape_debug())
            }
            Kind::Diverged { action, cause } => write!(f, "action `{}`: {cause}", action.escape_debug()),
            // As it was recorded.
            Kind::Recorded { text, .. } => f.write_str(text),
            Kind::Unanswered { asked, denial, .. } => write!(f, "{asked}: {denial}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    /// So that a function that returns an [`std::io::Result`] can be guarded. The kind is
    /// [`PermissionDenied`](std::io::ErrorKind::PermissionDenied) for a denial; `get_ref` gives the [`Error`] back.
    fn from(error: Error) -> Self {
        let kind =
            if error.is_denied() { std::io::ErrorKind::PermissionDenied } else { std::io::ErrorKind::Other };
        Self::new(kind, error)
    }
}
