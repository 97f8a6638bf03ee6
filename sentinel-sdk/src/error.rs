//! Why a guarded action was not run, or the agent not asked.

use std::fmt;

use sentinel_proto::app::KernelDenial;
use sentinel_proto::{ApprovalId, Denial, Reason};

use crate::client::Client;
use crate::explain::RECENT;
use crate::pool::LinkError;

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
    /// Something else was asked, and not answered.
    Unanswered { asked: &'static str, denial: Denial, client: Client },
}

impl Error {
    pub(crate) fn denied(action: &str, denial: Denial, client: Client) -> Self {
        Self(Box::new(Kind::Denied { action: action.to_owned(), denial, approval: None, client }))
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

    /// Why the action was denied; none where no action was.
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match &*self.0 {
            Kind::Denied { denial, .. } => Some(denial),
            Kind::Unanswered { .. } => None,
        }
    }

    /// The approval that the action waits for, or waited for; none where none is needed.
    #[must_use]
    pub fn approval(&self) -> Option<ApprovalId> {
        match &*self.0 {
            Kind::Denied { approval, .. } => *approval,
            Kind::Unanswered { .. } => None,
        }
    }

    /// The denied action's name; none where no action was denied.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        match &*self.0 {
            Kind::Denied { action, .. } => Some(action),
            Kind::Unanswered { .. } => None,
        }
    }

    /// The reason, for programs: `BUDGET_EXCEEDED`, `AGENT_UNAVAILABLE` and so on; see [`Reason`]. Today there always
    /// is one.
    #[must_use]
    pub fn reason_code(&self) -> Option<&'static str> {
        Some(self.reason().code())
    }

    /// What would be allowed instead, or what to do.
    #[must_use]
    pub fn way_out(&self) -> String {
        self.reason().way_out()
    }

    /// What the kernel refused to this process in the last ten seconds, newest last: asks the agent now, and blocks
    /// meanwhile. Empty where nothing was refused, and where the agent doesn't answer.
    #[must_use]
    pub fn kernel_denials(&self) -> Vec<KernelDenial> {
        let (Kind::Denied { client, .. } | Kind::Unanswered { client, .. }) = &*self.0;
        client.kernel_denials_blocking(RECENT).unwrap_or_default()
    }

    fn reason(&self) -> &Reason {
        let (Kind::Denied { denial, .. } | Kind::Unanswered { denial, .. }) = &*self.0;
        &denial.reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            // A name that is none may hold anything.
            Kind::Denied { action, denial, .. } => {
                write!(f, "action `{}` denied: {denial}", action.escape_debug())
            }
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
