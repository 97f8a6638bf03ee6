//! Waits for a human's word.
//!
//! Invariant: nothing but the agent's plain yes lets the action be asked for again; and then it is asked, not taken for allowed.

use std::time::Duration;

use sentinel_proto::app::{ApprovalAnswer, OfApproval, PendingApproval, RefusalCode, Reply, Request};
use sentinel_proto::{ApprovalId, Decision, Denial, Reason};

use crate::client::Client;
use crate::pool::{Deadline, LinkError, Waiting};

/// The agent tells when the time is over; so much later it has said nothing.
const AGENT_IS_LATE: Duration = Duration::from_secs(5);
/// An agent that was there may be started anew: it is tried again so often,
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// and for so long.
const RESTART_TIME: Duration = Duration::from_secs(15);

/// A human's word.
#[derive(Debug)]
pub(crate) enum Word {
    /// The same action may be asked for again.
    Yes,
    /// It may not run.
    No(Denial),
}

/// What a pending answer waits for.
pub(crate) fn wish_of(reply: &Reply) -> Option<PendingApproval> {
    match reply {
        Reply::Decision(answer) if answer.decision == Decision::Pending => answer.approval,
        _ => None,
    }
}

/// The denial where nobody is waited for; none where somebody is.
pub(crate) fn unwaited(patience: Option<Duration>) -> Option<Denial> {
    (patience == Some(Duration::ZERO)).then(|| because(Reason::ApprovalNeeded))
}

/// Waits until a human has spoken, or it is too late.
pub(crate) async fn wait(
    client: &Client,
    wish: PendingApproval,
    patience: Option<Duration>,
    waiting: Waiting,
) -> Word {
    if let Some(denial) = unwaited(patience) {
        return Word::No(denial);
    }
    let at_most = Duration::from_millis(wish.expires_in_ms).saturating_add(AGENT_IS_LATE);
    let deadline = Deadline::after(patience.map_or(at_most, |patience| patience.min(at_most)));
    let mut gives_up: Option<Deadline> = None;
    loop {
        let ask = |request| Request::AwaitApproval(OfApproval { request, approval: wish.id });
        match client.ask_apart(ask, waiting, deadline).await {
            Ok(Reply::Approval(answer)) => return word(*answer),
            // The agent was started anew and knows nothing of this wish: whether it is wanted still, a new question tells.
            Ok(Reply::Refused(refused)) if refused.code == RefusalCode::NotFound && gives_up.is_some() => {
                return Word::Yes;
            }
            Ok(Reply::Refused(refused)) => return Word::No(because(LinkError::Refused(refused).reason())),
            Ok(_) => return Word::No(because(LinkError::Unexpected.reason())),
            Err(LinkError::TimedOut(_)) if deadline.left().is_err() => {
                return too_late(client, wish.id, deadline.patience, waiting).await;
            }
            Err(error @ (LinkError::Lost(_) | LinkError::Unreachable { .. } | LinkError::TimedOut(_))) => {
                let until = *gives_up.get_or_insert_with(|| Deadline::after(RESTART_TIME));
                if waiting.pause(TRY_AGAIN_AFTER, until).await.is_err() {
                    return Word::No(because(error.reason()));
                }
            }
            Err(error) => return Word::No(because(error.reason())),
        }
    }
}

fn word(answer: ApprovalAnswer) -> Word {
    match answer {
        ApprovalAnswer { approved: true, denial: None, .. } => Word::Yes,
        ApprovalAnswer { denial: Some(denial), .. } => Word::No(denial),
        ApprovalAnswer { .. } => {
            Word::No(because(Reason::ApprovalCancelled { cause: "the agent gave no reason".to_owned() }))
        }
    }
}

/// Withdraws a wish that nobody waits for any more.
async fn too_late(client: &Client, approval: ApprovalId, waited: Duration, waiting: Waiting) -> Word {
    let cancel = |request| Request::CancelApproval(OfApproval { request, approval });
    // Whether or not it was withdrawn: the action isn't run.
    drop(client.ask(cancel, None, waiting).await);
    Word::No(because(Reason::ApprovalExpired { timeout_seconds: waited.as_secs() }))
}

fn because(reason: Reason) -> Denial {
    Denial { reason, rule: None }
}
