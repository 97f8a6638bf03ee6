//! From a fact to the body of its ledger line.
//!
//! The seed's eight keys come first on every line; `seq` and `hash` are added by the ledger. `cost_usd` is what was charged, so that their sum
//! is what was spent: 0 where nothing ran. It is below zero on a correction alone, where less was spent than had been charged.

use chrono::NaiveDate;
use sentinel_engine::{Closing, Fact, Now, State};
use sentinel_proto::{ActionId, Annotations, Denial, Label, Money, Outcome, Payload, Reason, RulePlace, Tag};
use serde::Serialize;
use uuid::Uuid;

use crate::{outputs, redact, timestamp};

/// As long as most lines are.
const TYPICAL_BYTES: usize = 1024;

/// What stands on a line.
struct Line<'fact> {
    id: Uuid,
    timestamp: String,
    action: &'fact str,
    cost_usd: f64,
    duration_ms: f64,
    outcome: Outcome,
    tags: &'fact [Tag],
    inputs: &'fact Payload,
    outputs: &'fact Payload,
    kind: &'static str,
    session: Option<&'fact str>,
    session_id: Option<u32>,
    run: Option<u64>,
    advisory: bool,
    inputs_redacted: bool,
    outputs_redacted: bool,
    // What only lines of a kind have.
    scope: Option<u64>,
    grants: Option<u64>,
    reserved_usd: Option<Money>,
    max_seconds: Option<u64>,
    day: Option<NaiveDate>,
    approval: Option<Uuid>,
    operator: Option<u32>,
    declared_usd: Option<Money>,
    overrun_usd: Option<Money>,
    charged_usd: Option<Money>,
    ended: Option<Outcome>,
    reason: Option<&'fact Reason>,
    rule: Option<&'fact RulePlace>,
    operation: Option<&'fact str>,
    target: Option<&'fact str>,
    verdict: Option<&'fact str>,
    fate: Option<&'fact str>,
    process: Option<&'fact str>,
    pid: Option<u32>,
    count: Option<u64>,
    would_allow: Option<&'fact str>,
    inputs_sha256: Option<&'fact str>,
    agent_id: Option<&'fact Label>,
    run_id: Option<&'fact Label>,
    task_id: Option<&'fact Label>,
    mission_id: Option<&'fact Label>,
    parent: Option<ActionId>,
    compliance_metadata: Option<&'fact Payload>,
}

impl Line<'_> {
    /// Its keys, in their order, without the closing brace: `seq` and `hash` follow. By hand: a serializer looks at each key's every character, with
    /// every line.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        put(out, b"{\"id\":", &self.id)?;
        put(out, b",\"timestamp\":", &self.timestamp)?;
        put(out, b",\"action\":", &self.action)?;
        put(out, b",\"cost_usd\":", &self.cost_usd)?;
        put(out, b",\"duration_ms\":", &self.duration_ms)?;
        put(out, b",\"outcome\":", &self.outcome)?;
        put(out, b",\"tags\":", &self.tags)?;
        put(out, b",\"payload\":{\"inputs\":", self.inputs)?;
        put(out, b",\"outputs\":", self.outputs)?;
        out.push(b'}');
        put(out, b",\"kind\":", &self.kind)?;
        put(out, b",\"session\":", &self.session)?;
        put(out, b",\"session_id\":", &self.session_id)?;
        put(out, b",\"run\":", &self.run)?;
        if self.advisory {
            out.extend_from_slice(b",\"advisory\":true");
        }
        if self.inputs_redacted {
            out.extend_from_slice(b",\"inputs_redacted\":true");
        }
        if self.outputs_redacted {
            out.extend_from_slice(b",\"outputs_redacted\":true");
        }
        put_some(out, b",\"scope\":", self.scope.as_ref())?;
        put_some(out, b",\"grants\":", self.grants.as_ref())?;
        put_some(out, b",\"reserved_usd\":", self.reserved_usd.as_ref())?;
        put_some(out, b",\"max_seconds\":", self.max_seconds.as_ref())?;
        put_some(out, b",\"day\":", self.day.as_ref())?;
        put_some(out, b",\"approval\":", self.approval.as_ref())?;
        put_some(out, b",\"operator\":", self.operator.as_ref())?;
        put_some(out, b",\"declared_usd\":", self.declared_usd.as_ref())?;
        put_some(out, b",\"overrun_usd\":", self.overrun_usd.as_ref())?;
        put_some(out, b",\"charged_usd\":", self.charged_usd.as_ref())?;
        put_some(out, b",\"ended\":", self.ended.as_ref())?;
        put_some(out, b",\"reason\":", self.reason.as_ref())?;
        put_some(out, b",\"rule\":", self.rule.as_ref())?;
        put_some(out, b",\"operation\":", self.operation.as_ref())?;
        put_some(out, b",\"target\":", self.target.as_ref())?;
        put_some(out, b",\"verdict\":", self.verdict.as_ref())?;
        put_some(out, b",\"fate\":", self.fate.as_ref())?;
        put_some(out, b",\"process\":", self.process.as_ref())?;
        put_some(out, b",\"pid\":", self.pid.as_ref())?;
        put_some(out, b",\"count\":", self.count.as_ref())?;
        put_some(out, b",\"would_allow\":", self.would_allow.as_ref())?;
        put_some(out, b",\"inputs_sha256\":", self.inputs_sha256.as_ref())?;
        put_some(out, b",\"agent_id\":", self.agent_id.as_ref())?;
        put_some(out, b",\"run_id\":", self.run_id.as_ref())?;
        put_some(out, b",\"task_id\":", self.task_id.as_ref())?;
        put_some(out, b",\"mission_id\":", self.mission_id.as_ref())?;
        put_some(out, b",\"parent\":", self.parent.as_ref())?;
        put_some(out, b",\"compliance_metadata\":", self.compliance_metadata.as_ref())?;
        Ok(())
    }
}

fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, key: &[u8], value: &T) -> Result<(), serde_json::Error> {
    out.extend_from_slice(key);
    serde_json::to_writer(out, value)
}

fn put_some<T: Serialize>(out: &mut Vec<u8>, key: &[u8], value: Option<&T>) -> Result<(), serde_json::Error> {
    value.map_or(Ok(()), |value| put(out, key, value))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The body of a fact's line, and the line's id. `session_key` is the session's name, or what stands for one; `inputs` are what an action that ends was
/// begun with.
pub(crate) fn body(
    fact: &Fact,
    at: Now,
    session_key: Option<&str>,
    inputs: Option<&Payload>,
    advisory: bool,
) -> Result<(Uuid, Vec<u8>), serde_json::Error> {
    let id = id(fact);
    let null = Payload::null();
    let outputs = outputs::of(fact)?;
    let kernel_action;
    let mut line = Line {
        id,
        timestamp: timestamp::written(at.wall_micros),
        action: "",
        cost_usd: 0.0,
        duration_ms: 0.0,
        outcome: Outcome::Recorded,
        tags: &[],
        inputs: inputs.unwrap_or(&null),
        outputs: &outputs,
        kind: "agent",
        session: session_key,
        session_id: session_of(fact),
        run: None,
        advisory,
        inputs_redacted: false,
        outputs_redacted: redact::is_marked(&outputs),
        scope: None,
        grants: None,
        reserved_usd: None,
        max_seconds: None,
        day: None,
        approval: None,
        operator: None,
        declared_usd: None,
        overrun_usd: None,
        charged_usd: None,
        ended: None,
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
        inputs_sha256: None,
        agent_id: None,
        run_id: None,
        task_id: None,
        mission_id: None,
        parent: None,
        compliance_metadata: None,
    };
    if let Some(annotations) = annotations(fact) {
        line.agent_id = annotations.agent_id.as_ref();
        line.run_id = annotations.run_id.as_ref();
        line.task_id = annotations.task_id.as_ref();
        line.mission_id = annotations.mission_id.as_ref();
        line.parent = annotations.parent;
        line.compliance_metadata = annotations.compliance_metadata.as_ref();
    }
    match fact {
        Fact::AgentStarted { .. } => line.action = "agent.started",
        Fact::AgentStopped => line.action = "agent.stopped",
        Fact::Examined { .. } => line.action = "enforcement.examined",
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
        Fact::SessionReset { operator, .. } => {
            (line.kind, line.action) = ("session", "session.reset");
            line.operator = Some(*operator);
        }
        Fact::ActionRecorded(recorded) => {
            (line.kind, line.outcome) = ("record", recorded.outcome);
            (line.action, line.tags) = (recorded.action.as_str(), &recorded.tags);
            line.cost_usd = recorded.cost.dollars();
            line.duration_ms = recorded.duration.as_micros() as f64 / 1_000.0;
            line.inputs = &recorded.inputs;
            line.inputs_sha256 = recorded.inputs_sha256.as_deref();
        }
        Fact::ActionStarted {
            run,
            scope,
            action,
            reserved,
            tags,
            grants,
            max_seconds,
            day,
            approval,
            inputs,
            inputs_sha256,
            pid,
            ..
        } => {
            (line.kind, line.outcome) = ("action", Outcome::Started);
            line.inputs_sha256 = inputs_sha256.as_deref();
            (line.action, line.tags, line.run) = (action.as_str(), tags, Some(*run));
            line.inputs = inputs;
            line.scope = Some(scope.0);
            line.grants = Some(grants.0);
            line.reserved_usd = Some(*reserved);
            line.max_seconds = Some(*max_seconds);
            line.day = *day;
            line.approval = approval.map(|approval| approval.0);
            line.pid = Some(*pid);
        }
        Fact::ActionDenied {
            run, action, cost, tags, denial: Denial { reason, rule }, inputs, pid, ..
        } => {
            (line.kind, line.outcome) = ("action", Outcome::Blocked);
            (line.action, line.tags, line.run) = (action.as_str(), tags, Some(*run));
            line.inputs = inputs;
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
            line.cost_usd = charged.dollars();
            line.duration_ms = duration.as_micros() as f64 / 1_000.0;
            line.scope = Some(scope.0);
            line.grants = Some(grants.0);
            line.overrun_usd = Some(*overrun);
        }
        Fact::ActionCorrected { run, action, tags, outcome, before, charged, overrun, duration, .. } => {
            (line.kind, line.outcome, line.ended) = ("action", Outcome::Corrected, Some(*outcome));
            (line.action, line.tags, line.run) = (action.as_str(), tags, Some(*run));
            line.cost_usd = difference(*charged, *before);
            line.duration_ms = duration.as_micros() as f64 / 1_000.0;
            line.reserved_usd = Some(*before);
            line.charged_usd = Some(*charged);
            line.overrun_usd = Some(*overrun);
        }
        Fact::ActionWarned { run, action, cost, denial: Denial { reason, rule }, pid, .. } => {
            (line.kind, line.outcome) = ("action", Outcome::Warned);
            (line.action, line.run) = (action.as_str(), Some(*run));
            line.declared_usd = Some(*cost);
            line.reason = Some(reason);
            line.rule = rule.as_ref();
            line.pid = Some(*pid);
        }
        Fact::ActionRegranted { scope, grants, .. } => {
            (line.kind, line.action) = ("policy", "action.regranted");
            line.scope = Some(scope.0);
            line.grants = Some(grants.0);
        }
        Fact::ApprovalRequested { wish } => {
            (line.kind, line.outcome) = ("approval", Outcome::Pending);
            (line.action, line.tags, line.run) = (wish.action.as_str(), &wish.tags, Some(wish.run));
            line.inputs = &wish.inputs;
            line.grants = Some(wish.grants.0);
            line.declared_usd = Some(wish.cost);
            line.rule = Some(&wish.rule);
            line.pid = Some(wish.pid);
        }
        Fact::ApprovalGiven { action, operator, .. } => {
            (line.kind, line.outcome) = ("approval", Outcome::Approved);
            line.action = action.as_str();
            line.operator = Some(*operator);
        }
        Fact::ApprovalClosed { action, closing, .. } => {
            (line.kind, line.action) = ("approval", action.as_str());
            (line.outcome, line.operator) = match closing {
                Closing::Rejected { operator, .. } => (Outcome::Rejected, Some(*operator)),
                Closing::Expired { .. } => (Outcome::Expired, None),
                Closing::Cancelled { .. } => (Outcome::Cancelled, None),
            };
        }
        Fact::SessionPaused { operator, .. } => {
            (line.kind, line.action) = ("session", "session.paused");
            line.operator = Some(*operator);
        }
        Fact::SessionResumed { operator, .. } => {
            (line.kind, line.action) = ("session", "session.resumed");
            line.operator = Some(*operator);
        }
        Fact::KillOrdered { operator, .. } => {
            (line.kind, line.action) = ("session", "kill.ordered");
            line.operator = Some(*operator);
        }
        Fact::PoliciesReloaded { operator, .. } => {
            (line.kind, line.action) = ("policy", "policies.reloaded");
            line.operator = *operator;
        }
        Fact::PolicyChanged { .. } => (line.kind, line.action) = ("policy", "policy.changed"),
        Fact::Gap { after } => {
            line.action = "ledger.gap";
            line.count = Some(*after);
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
    line.inputs_redacted = redact::is_marked(line.inputs);
    let mut body = Vec::with_capacity(TYPICAL_BYTES);
    line.write(&mut body)?;
    Ok((id, body))
}

/// The action that a fact ends.
pub(crate) const fn ended(fact: &Fact) -> Option<ActionId> {
    match fact {
        Fact::ActionEnded { action_id, .. } => Some(*action_id),
        _ => None,
    }
}

/// What the application says of the action that a fact is about.
fn annotations(fact: &Fact) -> Option<&Annotations> {
    match fact {
        Fact::ActionStarted { annotations, .. }
        | Fact::ActionDenied { annotations, .. }
        | Fact::ActionEnded { annotations, .. }
        | Fact::ActionCorrected { annotations, .. } => annotations.as_deref(),
        Fact::ActionRecorded(recorded) => recorded.annotations.as_deref(),
        _ => None,
    }
}

/// In dollars, exact to the nano-dollar as amounts are.
fn difference(now: Money, before: Money) -> f64 {
    if now >= before { now.saturating_sub(before).dollars() } else { -before.saturating_sub(now).dollars() }
}

/// An action's lines share its id, and so do an approval's; every other line has one of its own.
fn id(fact: &Fact) -> Uuid {
    match fact {
        Fact::ApprovalRequested { wish } => wish.approval_id.0,
        Fact::ApprovalGiven { approval_id, .. } | Fact::ApprovalClosed { approval_id, .. } => approval_id.0,
        Fact::ActionRecorded(recorded) => recorded.action_id.0,
        Fact::ActionStarted { action_id, .. }
        | Fact::ActionWarned { action_id, .. }
        | Fact::ActionDenied { action_id, .. }
        | Fact::ActionEnded { action_id, .. }
        | Fact::ActionCorrected { action_id, .. } => action_id.0,
        Fact::AgentStarted { .. }
        | Fact::AgentStopped
        | Fact::SessionStarted { .. }
        | Fact::SessionEnded { .. }
        | Fact::RunReset { .. }
        | Fact::SessionReset { .. }
        | Fact::ActionRegranted { .. }
        | Fact::SessionPaused { .. }
        | Fact::SessionResumed { .. }
        | Fact::KillOrdered { .. }
        | Fact::PoliciesReloaded { .. }
        | Fact::PolicyChanged { .. }
        | Fact::Gap { .. }
        | Fact::KernelDenied { .. }
        | Fact::Examined { .. }
        | Fact::RecordsDropped { .. } => Uuid::new_v4(),
    }
}

/// The session that a fact is about.
pub(crate) fn session_of(fact: &Fact) -> Option<u32> {
    match fact {
        Fact::SessionStarted { session, .. }
        | Fact::SessionEnded { session, .. }
        | Fact::RunReset { session, .. }
        | Fact::SessionReset { session, .. }
        | Fact::ActionStarted { session, .. }
        | Fact::ActionWarned { session, .. }
        | Fact::ActionDenied { session, .. }
        | Fact::ActionEnded { session, .. }
        | Fact::ActionCorrected { session, .. }
        | Fact::ActionRegranted { session, .. }
        | Fact::ApprovalGiven { session, .. }
        | Fact::ApprovalClosed { session, .. }
        | Fact::SessionPaused { session, .. }
        | Fact::SessionResumed { session, .. }
        | Fact::PolicyChanged { session, .. }
        | Fact::KernelDenied { session, .. } => Some(session.0),
        Fact::ApprovalRequested { wish } => Some(wish.session.0),
        Fact::ActionRecorded(recorded) => Some(recorded.session.0),
        Fact::KillOrdered { session, .. } => session.map(|session| session.0),
        Fact::AgentStarted { .. }
        | Fact::AgentStopped
        | Fact::PoliciesReloaded { .. }
        | Fact::Gap { .. }
        | Fact::Examined { .. }
        | Fact::RecordsDropped { .. } => None,
    }
}

/// The whole state as a line: what a part of the ledger begins with, so that a start needs to read no other.
#[derive(Serialize)]
struct StateLine<'state> {
    id: Uuid,
    timestamp: String,
    action: &'static str,
    cost_usd: Money,
    duration_ms: f64,
    outcome: Outcome,
    tags: [Tag; 0],
    payload: StatePayload<'state>,
    kind: &'static str,
    session: Option<&'static str>,
    session_id: Option<u32>,
    run: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    advisory: bool,
}

#[derive(Serialize)]
struct StatePayload<'state> {
    inputs: Option<()>,
    outputs: StateAt<'state>,
}

#[derive(Serialize)]
struct StateAt<'state> {
    wall_micros: u64,
    elapsed_nanos: u128,
    state: &'state State,
}

/// The body of a line that holds the whole state.
pub(crate) fn state(state: &State, at: Now, advisory: bool) -> Result<Vec<u8>, serde_json::Error> {
    let line = StateLine {
        id: Uuid::new_v4(),
        timestamp: timestamp::written(at.wall_micros),
        action: "state",
        cost_usd: Money::ZERO,
        duration_ms: 0.0,
        outcome: Outcome::Recorded,
        tags: [],
        payload: StatePayload {
            inputs: None,
            outputs: StateAt { wall_micros: at.wall_micros, elapsed_nanos: at.elapsed.as_nanos(), state },
        },
        kind: "agent",
        session: None,
        session_id: None,
        run: None,
        advisory,
    };
    let mut body = serde_json::to_vec(&line)?;
    body.pop();
    Ok(body)
}
