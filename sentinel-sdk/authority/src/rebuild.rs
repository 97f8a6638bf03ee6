//! From a ledger line back to its fact, exactly.

use std::time::Duration;

use chrono::NaiveDate;
use sentinel_engine::{Attempt, Closing, Fact, GrantSet, Now, Recorded, ScopeId, SessionEnding, State, Wish};
use sentinel_proto::{
    ActionId, ActionName, Annotations, ApprovalId, Denial, Label, Money, Outcome, Payload, Reason, RiskLevel,
    RulePlace, SessionId, SessionName, Tag,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::timestamp;

/// Why a line can't be read. Its chain may be whole all the same.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is no JSON object with the keys of a line.
    #[error("it is no ledger line: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A key is missing that lines of its kind have.
    #[error("it has no `{0}`")]
    Missing(&'static str),
    /// A key's value is none that it can have.
    #[error("its `{0}` is none that it can have")]
    Value(&'static str),
    /// No line of this version has this action and outcome.
    #[error("`{kind}` lines about `{action}` are unknown")]
    Unknown {
        /// Its kind.
        kind: String,
        /// Its action.
        action: String,
    },
}

/// All keys that any line has.
#[derive(Deserialize)]
struct Line {
    id: Uuid,
    timestamp: String,
    action: String,
    cost_usd: f64,
    duration_ms: f64,
    outcome: Outcome,
    tags: Vec<Tag>,
    payload: Inner,
    kind: String,
    session: Option<String>,
    session_id: Option<u32>,
    run: Option<u64>,
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
    reason: Option<Reason>,
    rule: Option<RulePlace>,
    operation: Option<String>,
    target: Option<String>,
    verdict: Option<String>,
    fate: Option<String>,
    process: Option<String>,
    pid: Option<u32>,
    count: Option<u64>,
    would_allow: Option<String>,
    inputs_sha256: Option<String>,
    agent_id: Option<Label>,
    run_id: Option<Label>,
    task_id: Option<Label>,
    mission_id: Option<Label>,
    parent: Option<ActionId>,
    compliance_metadata: Option<Payload>,
}

impl Line {
    fn annotations(&mut self) -> Option<Box<Annotations>> {
        let annotations = Annotations {
            agent_id: self.agent_id.take(),
            run_id: self.run_id.take(),
            task_id: self.task_id.take(),
            mission_id: self.mission_id.take(),
            parent: self.parent.take(),
            compliance_metadata: self.compliance_metadata.take(),
        };
        annotations.boxed()
    }
}

#[derive(Deserialize)]
struct Inner {
    inputs: Payload,
    outputs: Payload,
}

#[derive(Deserialize)]
struct AgentStarted {
    version: String,
    tier: String,
}

#[derive(Deserialize)]
struct SessionStarted {
    named: bool,
    policy: String,
    policy_sha256: String,
    command: Vec<String>,
    uid: u32,
    tier: String,
}

#[derive(Deserialize)]
struct Asked {
    digest: String,
    timeout_seconds: u64,
    risk_level: Option<RiskLevel>,
}

#[derive(Deserialize)]
struct Given {
    note: Option<String>,
    uses: u64,
    seconds: u64,
    up_to_usd: Option<Money>,
}

#[derive(Deserialize)]
struct Regranted {
    action_id: ActionId,
    action: ActionName,
}

#[derive(Deserialize)]
struct PolicyChanged {
    policy: String,
    policy_sha256: String,
    generation: u64,
}

#[derive(Deserialize)]
struct Reloaded {
    changed: Vec<String>,
}

/// The fact of a line, and when it happened, in microseconds since 1970.
pub(crate) fn fact(line: &[u8]) -> Result<(Fact, u64), LineError> {
    let mut line: Line = serde_json::from_slice(line)?;
    let at = timestamp::read(&line.timestamp).ok_or(LineError::Value("timestamp"))?;
    let fact = match (line.kind.as_str(), line.action.as_str()) {
        ("agent", "agent.started") => {
            let AgentStarted { version, tier } = details(&line)?;
            Fact::AgentStarted { version, tier }
        }
        ("agent", "agent.stopped") => Fact::AgentStopped,
        ("agent", "enforcement.examined") => Fact::Examined { failure: details(&line)? },
        ("agent", "records.dropped") => Fact::RecordsDropped { count: needed(line.count, "count")? },
        ("agent", "ledger.gap") => Fact::Gap { after: needed(line.count, "count")? },
        ("session", "session.paused") => {
            Fact::SessionPaused { session: session(&line)?, operator: needed(line.operator, "operator")? }
        }
        ("session", "session.resumed") => {
            Fact::SessionResumed { session: session(&line)?, operator: needed(line.operator, "operator")? }
        }
        ("session", "kill.ordered") => Fact::KillOrdered {
            session: line.session_id.map(SessionId),
            operator: needed(line.operator, "operator")?,
        },
        ("policy", "policies.reloaded") => {
            let Reloaded { changed } = details(&line)?;
            Fact::PoliciesReloaded { operator: line.operator, changed }
        }
        ("policy", "policy.changed") => {
            let PolicyChanged { policy, policy_sha256, generation } = details(&line)?;
            Fact::PolicyChanged { session: session(&line)?, policy, policy_sha256, generation }
        }
        ("policy", "action.regranted") => {
            let Regranted { action_id, action } = details(&line)?;
            Fact::ActionRegranted {
                action_id,
                session: session(&line)?,
                scope: ScopeId(needed(line.scope, "scope")?),
                action,
                grants: GrantSet(needed(line.grants, "grants")?),
            }
        }
        ("approval", _) => approval(line)?,
        ("session", "session.started") => session_started(line)?,
        ("session", "session.ended") => {
            let ending: SessionEnding = details(&line)?;
            Fact::SessionEnded { session: session(&line)?, ending }
        }
        ("session", "run.reset") => {
            Fact::RunReset { session: session(&line)?, run: needed(line.run, "run")? }
        }
        ("session", "session.reset") => {
            Fact::SessionReset { session: session(&line)?, operator: needed(line.operator, "operator")? }
        }
        ("record", _) => Fact::ActionRecorded(Box::new(Recorded {
            annotations: line.annotations(),
            action_id: ActionId(line.id),
            session: session(&line)?,
            action: action_name(line.action)?,
            cost: Money::from_dollars(line.cost_usd).map_err(|_not_one| LineError::Value("cost_usd"))?,
            outcome: line.outcome,
            tags: line.tags,
            duration: micros(line.duration_ms)?,
            inputs: line.payload.inputs,
            inputs_sha256: line.inputs_sha256,
            outputs: line.payload.outputs,
        })),
        ("action", _) => action(line)?,
        ("kernel", _) => Fact::KernelDenied {
            session: session(&line)?,
            count: needed(line.count, "count")?,
            attempt: Box::new(Attempt {
                operation: needed(line.operation, "operation")?,
                target: needed(line.target, "target")?,
                verdict: needed(line.verdict, "verdict")?,
                fate: needed(line.fate, "fate")?,
                process: needed(line.process, "process")?,
                pid: needed(line.pid, "pid")?,
                would_allow: line.would_allow,
            }),
        },
        _ => return Err(LineError::Unknown { kind: line.kind, action: line.action }),
    };
    Ok((fact, at))
}

fn needed<T>(value: Option<T>, key: &'static str) -> Result<T, LineError> {
    value.ok_or(LineError::Missing(key))
}

fn session(line: &Line) -> Result<SessionId, LineError> {
    needed(line.session_id, "session_id").map(SessionId)
}

fn details<T: DeserializeOwned>(line: &Line) -> Result<T, LineError> {
    Ok(serde_json::from_str(line.payload.outputs.as_json())?)
}

fn session_started(line: Line) -> Result<Fact, LineError> {
    let SessionStarted { named, policy, policy_sha256, command, uid, tier } = details(&line)?;
    let session = session(&line)?;
    let name = match (named, line.session) {
        (true, Some(name)) => Some(SessionName::new(name).map_err(|_not_one| LineError::Value("session"))?),
        (true, None) => return Err(LineError::Missing("session")),
        (false, _) => None,
    };
    Ok(Fact::SessionStarted { session, name, policy, policy_sha256, command, uid, tier })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be neither negative nor too large"
)]
fn micros(milliseconds: f64) -> Result<Duration, LineError> {
    let micros = (milliseconds * 1_000.0).round();
    if !(0.0..=9e15).contains(&micros) {
        return Err(LineError::Value("duration_ms"));
    }
    Ok(Duration::from_micros(micros as u64))
}

fn action(mut line: Line) -> Result<Fact, LineError> {
    let annotations = line.annotations();
    let action_id = ActionId(line.id);
    let session = session(&line)?;
    let run = needed(line.run, "run")?;
    let action = action_name(line.action)?;
    let tags = line.tags;
    Ok(match line.outcome {
        Outcome::Started => Fact::ActionStarted {
            action_id,
            session,
            run,
            scope: ScopeId(needed(line.scope, "scope")?),
            action,
            reserved: needed(line.reserved_usd, "reserved_usd")?,
            tags,
            grants: GrantSet(needed(line.grants, "grants")?),
            max_seconds: needed(line.max_seconds, "max_seconds")?,
            day: line.day,
            approval: line.approval.map(ApprovalId),
            inputs: line.payload.inputs,
            inputs_sha256: line.inputs_sha256,
            annotations,
            pid: needed(line.pid, "pid")?,
        },
        Outcome::Blocked => Fact::ActionDenied {
            action_id,
            session,
            run,
            action,
            cost: needed(line.declared_usd, "declared_usd")?,
            tags,
            denial: Denial { reason: needed(line.reason, "reason")?, rule: line.rule },
            inputs: line.payload.inputs,
            annotations,
            pid: needed(line.pid, "pid")?,
        },
        Outcome::Warned => Fact::ActionWarned {
            action_id,
            session,
            run,
            action,
            cost: needed(line.declared_usd, "declared_usd")?,
            denial: Denial { reason: needed(line.reason, "reason")?, rule: line.rule },
            pid: needed(line.pid, "pid")?,
        },
        Outcome::Corrected => Fact::ActionCorrected {
            action_id,
            session,
            run,
            action,
            tags,
            outcome: needed(line.ended.filter(|ended| ended.is_reportable()), "ended")?,
            before: needed(line.reserved_usd, "reserved_usd")?,
            charged: needed(line.charged_usd, "charged_usd")?,
            overrun: needed(line.overrun_usd, "overrun_usd")?,
            duration: micros(line.duration_ms)?,
            outputs: line.payload.outputs,
            annotations,
        },
        Outcome::Recorded | Outcome::Replayed | Outcome::Pending | Outcome::Approved | Outcome::Rejected => {
            return Err(LineError::Value("outcome"));
        }
        Outcome::Success
        | Outcome::Error
        | Outcome::Panicked
        | Outcome::Cancelled
        | Outcome::Expired
        | Outcome::Abandoned
        | Outcome::Interrupted
        | Outcome::Aborted => Fact::ActionEnded {
            action_id,
            session,
            run,
            scope: ScopeId(needed(line.scope, "scope")?),
            grants: GrantSet(needed(line.grants, "grants")?),
            action,
            tags,
            outcome: line.outcome,
            charged: Money::from_dollars(line.cost_usd).map_err(|_not_one| LineError::Value("cost_usd"))?,
            overrun: needed(line.overrun_usd, "overrun_usd")?,
            duration: micros(line.duration_ms)?,
            outputs: line.payload.outputs,
            annotations,
        },
    })
}

fn approval(line: Line) -> Result<Fact, LineError> {
    let approval_id = ApprovalId(line.id);
    let session = session(&line)?;
    match line.outcome {
        Outcome::Pending => {
            let Asked { digest, timeout_seconds, risk_level } = details(&line)?;
            Ok(Fact::ApprovalRequested {
                wish: Box::new(Wish {
                    approval_id,
                    session,
                    run: needed(line.run, "run")?,
                    action: action_name(line.action)?,
                    cost: needed(line.declared_usd, "declared_usd")?,
                    tags: line.tags,
                    risk: risk_level,
                    grants: GrantSet(needed(line.grants, "grants")?),
                    digest,
                    timeout_seconds,
                    inputs: line.payload.inputs,
                    pid: needed(line.pid, "pid")?,
                    rule: needed(line.rule, "rule")?,
                }),
            })
        }
        Outcome::Approved => {
            let Given { note, uses, seconds, up_to_usd } = details(&line)?;
            Ok(Fact::ApprovalGiven {
                approval_id,
                session,
                operator: needed(line.operator, "operator")?,
                action: action_name(line.action)?,
                note,
                uses,
                seconds,
                up_to: up_to_usd,
            })
        }
        Outcome::Rejected | Outcome::Expired | Outcome::Cancelled => {
            let closing: Closing = details(&line)?;
            Ok(Fact::ApprovalClosed { approval_id, session, action: action_name(line.action)?, closing })
        }
        Outcome::Started
        | Outcome::Success
        | Outcome::Error
        | Outcome::Panicked
        | Outcome::Abandoned
        | Outcome::Interrupted
        | Outcome::Corrected
        | Outcome::Replayed
        | Outcome::Aborted
        | Outcome::Blocked
        | Outcome::Warned
        | Outcome::Recorded => Err(LineError::Value("outcome")),
    }
}

fn action_name(text: String) -> Result<ActionName, LineError> {
    ActionName::new(text).map_err(|_not_one| LineError::Value("action"))
}

/// What tells a line that holds the whole state.
#[derive(Deserialize)]
struct Head<'line> {
    #[serde(borrow)]
    action: std::borrow::Cow<'line, str>,
    #[serde(borrow)]
    kind: std::borrow::Cow<'line, str>,
}

#[derive(Deserialize)]
struct StateLine {
    payload: StatePayload,
}

#[derive(Deserialize)]
struct StatePayload {
    outputs: StateAt,
}

#[derive(Deserialize)]
struct StateAt {
    wall_micros: u64,
    elapsed_nanos: u64,
    state: State,
}

/// The state that a line holds, and when it was so; none where the line is about something else.
pub(crate) fn state(line: &[u8]) -> Result<Option<(State, Now)>, LineError> {
    let head: Head<'_> = serde_json::from_slice(line)?;
    if (&*head.kind, &*head.action) != ("agent", "state") {
        return Ok(None);
    }
    let StateLine { payload: StatePayload { outputs } } = serde_json::from_slice(line)?;
    let at = Now { wall_micros: outputs.wall_micros, elapsed: Duration::from_nanos(outputs.elapsed_nanos) };
    Ok(Some((outputs.state, at)))
}
