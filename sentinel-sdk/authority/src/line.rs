//! From a fact to the body of its ledger line.
//!
//! The seed's eight keys come first on every line; `seq` and `hash` are added by the ledger. `cost_usd` is what was charged, so that their sum
//! is what was spent: 0 where nothing ran.

use sentinel_engine::{Fact, Now};
use sentinel_proto::{Denial, Money, Outcome, Payload, Reason, RulePlace, Tag};
use serde::Serialize;
use uuid::Uuid;

use crate::timestamp;

/// As long as most lines are.
const TYPICAL_BYTES: usize = 1024;

/// A line's keys, in their order.
#[derive(Serialize)]
struct Line<'fact> {
    id: Uuid,
    timestamp: String,
    action: &'fact str,
    cost_usd: Money,
    duration_ms: f64,
    outcome: Outcome,
    tags: &'fact [Tag],
    payload: Inner<'fact>,
    kind: &'static str,
    session: Option<&'fact str>,
    session_id: Option<u32>,
    run: Option<u64>,
    // What only lines of a kind have. In this struct, as `flatten` costs a quarter of a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grants: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_usd: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    declared_usd: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overrun_usd: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'fact Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'fact RulePlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'fact str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'fact str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'fact str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fate: Option<&'fact str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'fact str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_allow: Option<&'fact str>,
}

#[derive(Serialize)]
struct Inner<'fact> {
    inputs: &'fact Payload,
    outputs: &'fact Payload,
}

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

/// The body of a fact's line, and the line's id. `session_key` is the session's name, or what stands for one.
pub(crate) fn body(
    fact: &Fact,
    at: Now,
    session_key: Option<&str>,
) -> Result<(Uuid, Vec<u8>), serde_json::Error> {
    let id = id(fact);
    let null = Payload::null();
    let outputs = outputs(fact)?;
    let kernel_action;
    let mut line = Line {
        id,
        timestamp: timestamp::written(at.wall_micros),
        action: "",
        cost_usd: Money::ZERO,
        duration_ms: 0.0,
        outcome: Outcome::Recorded,
        tags: &[],
        payload: Inner { inputs: &null, outputs: &outputs },
        kind: "agent",
        session: session_key,
        session_id: session_of(fact),
        run: None,
        scope: None,
        grants: None,
        reserved_usd: None,
        max_seconds: None,
        declared_usd: None,
        overrun_usd: None,
        reason: None,
        rule: None,
        operation: None,
        target: None,
        verdict: None,
        fate: None,
        process: None,
        pid: None,
        count: None,
        would_allow: None,
    };
    match fact {
        Fact::AgentStarted { .. } => line.action = "agent.started",
        Fact::AgentStopped => line.action = "agent.stopped",
        Fact::RecordsDropped { count } => {
            line.action = "records.dropped";
            line.count = Some(*count);
        }
        Fact::SessionStarted { .. } => (line.kind, line.action) = ("session", "session.started"),
        Fact::SessionEnded { .. } => (line.kind, line.action) = ("session", "session.ended"),
        Fact::RunReset { run, .. } => {
            (line.kind, line.action) = ("session", "run.reset");
            line.run = Some(*run);
        }
        Fact::ActionStarted {
            run, scope, action, reserved, tags, grants, max_seconds, inputs, pid, ..
        } => {
            (line.kind, line.outcome) = ("action", Outcome::Started);
            (line.action, line.tags, line.run) = (action.as_str(), tags, Some(*run));
            line.payload.inputs = inputs;
            line.scope = Some(scope.0);
            line.grants = Some(grants.0);
            line.reserved_usd = Some(*reserved);
            line.max_seconds = Some(*max_seconds);
            line.pid = Some(*pid);
        }
        Fact::ActionDenied {
            run, action, cost, tags, denial: Denial { reason, rule }, inputs, pid, ..
        } => {
            (line.kind, line.outcome) = ("action", Outcome::Blocked);
            (line.action, line.tags, line.run) = (action.as_str(), tags, Some(*run));
            line.payload.inputs = inputs;
            line.declared_usd = Some(*cost);
            line.reason = Some(reason);
            line.rule = rule.as_ref();
            line.pid = Some(*pid);
        }
        Fact::ActionEnded {
            run, scope, grants, action, tags, outcome, charged, overrun, duration, ..
        } => {
            (line.kind, line.outcome) = ("action", *outcome);
            (line.action, line.tags, line.run) = (action.as_str(), tags, Some(*run));
            line.cost_usd = *charged;
            line.duration_ms = duration.as_micros() as f64 / 1_000.0;
            line.scope = Some(scope.0);
            line.grants = Some(grants.0);
            line.overrun_usd = Some(*overrun);
        }
        Fact::KernelDenied { attempt, count, .. } => {
            kernel_action = format!("kernel.{}", attempt.operation);
            (line.kind, line.action) = ("kernel", &kernel_action);
            line.operation = Some(&attempt.operation);
            line.target = Some(&attempt.target);
            line.verdict = Some(&attempt.verdict);
            line.fate = Some(&attempt.fate);
            line.process = Some(&attempt.process);
            line.pid = Some(attempt.pid);
            line.count = Some(*count);
            line.would_allow = attempt.would_allow.as_deref();
        }
    }
    let mut body = Vec::with_capacity(TYPICAL_BYTES);
    serde_json::to_writer(&mut body, &line)?;
    // The closing brace: `seq` and `hash` follow.
    body.pop();
    Ok((id, body))
}

/// An action's two lines share its id; every other line has one of its own.
fn id(fact: &Fact) -> Uuid {
    match fact {
        Fact::ActionStarted { action_id, .. }
        | Fact::ActionDenied { action_id, .. }
        | Fact::ActionEnded { action_id, .. } => action_id.0,
        Fact::AgentStarted { .. }
        | Fact::AgentStopped
        | Fact::SessionStarted { .. }
        | Fact::SessionEnded { .. }
        | Fact::RunReset { .. }
        | Fact::KernelDenied { .. }
        | Fact::RecordsDropped { .. } => Uuid::new_v4(),
    }
}

/// The session that a fact is about.
pub(crate) fn session_of(fact: &Fact) -> Option<u32> {
    match fact {
        Fact::SessionStarted { session, .. }
        | Fact::SessionEnded { session, .. }
        | Fact::RunReset { session, .. }
        | Fact::ActionStarted { session, .. }
        | Fact::ActionDenied { session, .. }
        | Fact::ActionEnded { session, .. }
        | Fact::KernelDenied { session, .. } => Some(session.0),
        Fact::AgentStarted { .. } | Fact::AgentStopped | Fact::RecordsDropped { .. } => None,
    }
}

fn outputs(fact: &Fact) -> Result<Payload, serde_json::Error> {
    match fact {
        Fact::AgentStarted { version, tier } => Payload::of(&AgentStarted { version, tier }),
        Fact::SessionStarted { name, policy, policy_sha256, command, uid, tier, .. } => {
            let named = name.is_some();
            Payload::of(&SessionStarted { named, policy, policy_sha256, command, uid: *uid, tier })
        }
        Fact::SessionEnded { ending, .. } => Payload::of(ending),
        // In words, where the seed has them.
        Fact::ActionDenied { denial, .. } => Payload::of(&denial.to_string()),
        Fact::ActionEnded { outputs, .. } => Ok(outputs.clone()),
        Fact::AgentStopped
        | Fact::RunReset { .. }
        | Fact::ActionStarted { .. }
        | Fact::KernelDenied { .. }
        | Fact::RecordsDropped { .. } => Ok(Payload::null()),
    }
}
