//! Takes secrets out of facts, before they are written and before they are folded: the state never knows what the ledger doesn't.

use sentinel_engine::{Closing, Fact, inputs_digest};
use sentinel_proto::{ActionId, Annotations, Label, Payload};

use super::{payload, text};

/// Takes secrets out of a fact, wherever somebody else's text stands in it.
pub(crate) fn fact(fact: &mut Fact) {
    match fact {
        Fact::ActionStarted { action_id, inputs, inputs_sha256, annotations, .. } => {
            clean_inputs(*action_id, inputs, inputs_sha256);
            clean_annotations(annotations);
        }
        Fact::ActionDenied { inputs, annotations, .. } => {
            clean(inputs);
            clean_annotations(annotations);
        }
        Fact::ActionEnded { outputs, annotations, .. }
        | Fact::ActionCorrected { outputs, annotations, .. } => {
            clean(outputs);
            clean_annotations(annotations);
        }
        Fact::ActionRecorded(recorded) => {
            clean_inputs(recorded.action_id, &mut recorded.inputs, &mut recorded.inputs_sha256);
            clean(&mut recorded.outputs);
            clean_annotations(&mut recorded.annotations);
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
        | Fact::Examined { .. }
        | Fact::RecordsDropped { .. } => {}
    }
}

fn clean(from: &mut Payload) {
    if let Some(redacted) = payload(from) {
        *from = redacted;
    }
}

/// With a digest of what they were, so that the same call can be told from another when it is replayed.
fn clean_inputs(action_id: ActionId, inputs: &mut Payload, sha256: &mut Option<String>) {
    if let Some(redacted) = payload(inputs) {
        *sha256 = Some(inputs_digest(action_id, inputs));
        *inputs = redacted;
    }
}

fn clean_annotations(annotations: &mut Option<Box<Annotations>>) {
    let Some(annotations) = annotations else { return };
    let Annotations { agent_id, run_id, task_id, mission_id, parent: _, compliance_metadata } =
        &mut **annotations;
    for label in [agent_id, run_id, task_id, mission_id] {
        if let Some(redacted) = label.as_ref().and_then(|label| text(label.as_str())) {
            // What is too long with its secret replaced goes as a whole.
            *label = Label::new(redacted).ok();
        }
    }
    if let Some(metadata) = compliance_metadata {
        clean(metadata);
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
