//! What the line of a fact tells under `payload.outputs`.

use sentinel_engine::Fact;
use sentinel_proto::{ActionId, ActionName, Money, Payload, RiskLevel};
use serde::Serialize;

/// What the agent's own lines tell, under `payload.outputs`.
#[derive(Serialize)]
struct AgentStarted<'fact> {
    version: &'fact str,
    tier: &'fact str,
}

/// What a session's first line tells, under `payload.outputs`.
#[derive(Serialize)]
struct SessionStarted<'fact> {
    named: bool,
    policy: &'fact str,
    policy_sha256: &'fact str,
    command: &'fact [String],
    uid: u32,
    tier: &'fact str,
}

/// What a human is asked, beside the action itself.
#[derive(Serialize)]
struct Wish<'fact> {
    digest: &'fact str,
    timeout_seconds: u64,
    risk_level: Option<&'fact RiskLevel>,
}

/// What a human gave.
#[derive(Serialize)]
struct Given<'fact> {
    note: Option<&'fact str>,
    uses: u64,
    seconds: u64,
    up_to_usd: Option<Money>,
}

/// Which action opens other doors now.
#[derive(Serialize)]
struct Regranted<'fact> {
    action_id: ActionId,
    action: &'fact ActionName,
}

#[derive(Serialize)]
struct PolicyChanged<'fact> {
    policy: &'fact str,
    policy_sha256: &'fact str,
    generation: u64,
}

#[derive(Serialize)]
struct Reloaded<'fact> {
    changed: &'fact [String],
}

pub(crate) fn of(fact: &Fact) -> Result<Payload, serde_json::Error> {
    match fact {
        Fact::AgentStarted { version, tier } => Payload::of(&AgentStarted { version, tier }),
        Fact::SessionStarted { name, policy, policy_sha256, command, uid, tier, .. } => {
            let named = name.is_some();
            Payload::of(&SessionStarted { named, policy, policy_sha256, command, uid: *uid, tier })
        }
        Fact::SessionEnded { ending, .. } => Payload::of(ending),
        // In words, where the seed has them.
        Fact::ActionDenied { denial, .. } | Fact::ActionWarned { denial, .. } => {
            Payload::of(&denial.to_string())
        }
        Fact::ActionRegranted { action_id, action, .. } => {
            Payload::of(&Regranted { action_id: *action_id, action })
        }
        Fact::ApprovalRequested { wish } => Payload::of(&Wish {
            digest: &wish.digest,
            timeout_seconds: wish.timeout_seconds,
            risk_level: wish.risk.as_ref(),
        }),
        Fact::ApprovalGiven { note, uses, seconds, up_to, .. } => {
            Payload::of(&Given { note: note.as_deref(), uses: *uses, seconds: *seconds, up_to_usd: *up_to })
        }
        Fact::ApprovalClosed { closing, .. } => Payload::of(closing),
        Fact::Examined { failure } => Payload::of(failure),
        Fact::PoliciesReloaded { changed, .. } => Payload::of(&Reloaded { changed }),
        Fact::PolicyChanged { policy, policy_sha256, generation, .. } => {
            Payload::of(&PolicyChanged { policy, policy_sha256, generation: *generation })
        }
        Fact::ActionRecorded(recorded) => Ok(recorded.outputs.clone()),
        Fact::ActionEnded { outputs, .. } | Fact::ActionCorrected { outputs, .. } => Ok(outputs.clone()),
        Fact::AgentStopped
        | Fact::RunReset { .. }
        | Fact::SessionReset { .. }
        | Fact::ActionStarted { .. }
        | Fact::SessionPaused { .. }
        | Fact::SessionResumed { .. }
        | Fact::KillOrdered { .. }
        | Fact::Gap { .. }
        | Fact::KernelDenied { .. }
        | Fact::RecordsDropped { .. } => Ok(Payload::null()),
    }
}
