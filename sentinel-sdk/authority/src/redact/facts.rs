//! Takes secrets out of facts, before they are written and before they are folded: the state never knows what the ledger doesn't.

use sentinel_engine::{Closing, Fact};
use sentinel_proto::Payload;

use super::{payload, text};

/// Takes secrets out of a fact, wherever somebody else's text stands in it.
pub(crate) fn fact(fact: &mut Fact) {
    match fact {
        Fact::ActionStarted { inputs, .. } | Fact::ActionDenied { inputs, .. } => clean(inputs),
        Fact::ActionEnded { outputs, .. } | Fact::ActionCorrected { outputs, .. } => clean(outputs),
        Fact::ActionRecorded(recorded) => {
            clean(&mut recorded.inputs);
            clean(&mut recorded.outputs);
        }
        Fact::ApprovalRequested { wish } => clean(&mut wish.inputs),
        Fact::ApprovalGiven { note, .. } => clean_note(note),
        Fact::ApprovalClosed { closing: Closing::Rejected { note, .. }, .. } => clean_note(note),
        Fact::SessionStarted { command, .. } => command.iter_mut().for_each(clean_text),
        Fact::KernelDenied { attempt, .. } => clean_text(&mut attempt.target),
        Fact::AgentStarted { .. }
        | Fact::AgentStopped
        | Fact::SessionEnded { .. }
        | Fact::RunReset { .. }
        | Fact::SessionReset { .. }
        | Fact::ActionWarned { .. }
        | Fact::ActionRegranted { .. }
        | Fact::ApprovalClosed { .. }
        | Fact::SessionPaused { .. }
        | Fact::SessionResumed { .. }
        | Fact::KillOrdered { .. }
        | Fact::PoliciesReloaded { .. }
        | Fact::PolicyChanged { .. }
        | Fact::Gap { .. }
        | Fact::RecordsDropped { .. } => {}
    }
}

fn clean(from: &mut Payload) {
    if let Some(redacted) = payload(from) {
        *from = redacted;
    }
}

fn clean_text(from: &mut String) {
    if let Some(redacted) = text(from) {
        *from = redacted;
    }
}

fn clean_note(note: &mut Option<String>) {
    if let Some(note) = note {
        clean_text(note);
    }
}
