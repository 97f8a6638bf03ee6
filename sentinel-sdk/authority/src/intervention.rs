//! What was kept from happening, or asked a human for, as the seed tells it: a view of ledger lines with the seed's keys.
//!
//! Invariant: nothing is stored for it. The ledger is the one record, and its chain vouches for every intervention.

use sentinel_engine::{Attempt, Closing, Fact};
use sentinel_proto::{Money, Payload, Reason, RiskLevel, RulePlace};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{LineError, rebuild};

/// An action that costs more than this is a high risk to the seed, in nano-dollars.
const HIGH_RISK_ABOVE_NANOS: u64 = 1_000_000_000;

/// An intervention, with the seed's keys in the seed's order; then which line it stands in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Intervention {
    /// `hard_block`, `budget_exceeded`, `rate_limited`, `approval_required` or `warning`.
    pub intervention_type: &'static str,
    /// `blocked`, `escalated`, `approved_after_review`, `rejected_after_review` or `warned`.
    pub outcome: &'static str,
    /// The action; of a kernel denial `kernel.` and what was tried.
    pub action_name: String,
    /// Null: nothing describes an action here.
    pub action_description: Option<String>,
    /// The session's name, or what stands for one.
    pub agent_id: Option<String>,
    /// The run's number in its session, as text.
    pub run_id: Option<String>,
    /// Null.
    pub task_id: Option<String>,
    /// Null.
    pub mission_id: Option<String>,
    /// The rule that decided, by its path in the policy.
    pub policy_name: Option<String>,
    /// What it would have cost, in dollars.
    pub estimated_cost: Money,
    /// What it did cost: nothing, as it didn't run.
    pub actual_cost: Money,
    /// What it was said to be; else `high` above a dollar and `medium` below, as the seed has it.
    pub risk_level: String,
    /// What was saved, in dollars.
    pub blast_radius: Value,
    /// Why, in a sentence.
    pub reason: String,
    /// Null.
    pub agent_intent: Option<String>,
    /// What it was called with, without secrets.
    pub original_inputs: Payload,
    /// Null: nothing is ever changed in a call.
    pub modified_inputs: Option<Value>,
    /// What else the line tells.
    pub context: Value,
    /// What to do about it; null where a human was asked.
    pub remediation_payload: Value,
    /// When, as in the ledger.
    pub timestamp: String,
    /// The ledger line's id.
    pub id: String,
    /// The ledger line's number.
    pub seq: u64,
}

/// What a line says beside its fact.
#[derive(Deserialize)]
struct Place {
    id: String,
    timestamp: String,
    session: Option<String>,
    seq: u64,
}

/// The intervention that a line tells of; none where it tells of something else.
///
/// # Errors
/// It is no ledger line. Its chain is not looked at.
pub fn intervention(line: &[u8]) -> Result<Option<Intervention>, LineError> {
    if rebuild::state(line)?.is_some() {
        return Ok(None);
    }
    let (fact, _at) = rebuild::fact(line)?;
    let Some(told) = Told::of(&fact) else { return Ok(None) };
    let Place { id, timestamp, session, seq } = serde_json::from_slice(line)?;
    let high = told.cost.nanos() > HIGH_RISK_ABOVE_NANOS;
    let risk = told.risk.map_or(if high { "high" } else { "medium" }, RiskLevel::as_str);
    Ok(Some(Intervention {
        intervention_type: told.kind,
        outcome: told.outcome,
        action_name: told.action,
        action_description: None,
        agent_id: session,
        run_id: told.run.map(|run| run.to_string()),
        task_id: None,
        mission_id: None,
        policy_name: told.rule.map(|place| place.rule.clone()),
        estimated_cost: told.cost,
        actual_cost: Money::ZERO,
        risk_level: risk.to_owned(),
        blast_radius: told.saved,
        reason: told.reason,
        agent_intent: None,
        original_inputs: told.inputs.cloned().unwrap_or_default(),
        modified_inputs: None,
        context: told.context,
        remediation_payload: told.remediation,
        timestamp,
        id,
        seq,
    }))
}

/// What a fact tells about an intervention.
struct Told<'fact> {
    kind: &'static str,
    outcome: &'static str,
    action: String,
    run: Option<u64>,
    cost: Money,
    risk: Option<&'fact RiskLevel>,
    rule: Option<&'fact RulePlace>,
    inputs: Option<&'fact Payload>,
    saved: Value,
    reason: String,
    context: Value,
    remediation: Value,
}

impl<'fact> Told<'fact> {
    fn new(kind: &'static str, outcome: &'static str, action: impl ToString, reason: String) -> Self {
        Self {
            kind,
            outcome,
            action: action.to_string(),
            run: None,
            cost: Money::ZERO,
            risk: None,
            rule: None,
            inputs: None,
            saved: json!({}),
            reason,
            context: json!({}),
            remediation: Value::Null,
        }
    }

    fn of(fact: &'fact Fact) -> Option<Self> {
        Some(match fact {
            Fact::ActionDenied { run, action, cost, tags, denial, inputs, pid, .. } => {
                let reason = &denial.reason;
                let kind = kind_of(reason);
                Self {
                    run: Some(*run),
                    cost: *cost,
                    rule: denial.rule.as_ref(),
                    inputs: Some(inputs),
                    saved: saved(reason, *cost),
                    context: json!({"tags": tags, "pid": pid, "line": denial.rule.as_ref().map(|place| place.line)}),
                    remediation: json!(reason.remediation()),
                    ..Self::new(kind, "blocked", action, reason.to_string())
                }
            }
            Fact::ActionWarned { run, action, cost, denial, pid, .. } => Self {
                run: Some(*run),
                cost: *cost,
                rule: denial.rule.as_ref(),
                context: json!({"pid": pid, "line": denial.rule.as_ref().map(|place| place.line)}),
                remediation: json!(denial.reason.remediation()),
                ..Self::new("warning", "warned", action, denial.reason.to_string())
            },
            Fact::ApprovalRequested { wish } => Self {
                run: Some(wish.run),
                cost: wish.cost,
                risk: wish.risk.as_ref(),
                rule: Some(&wish.rule),
                inputs: Some(&wish.inputs),
                saved: json!({"funds_protected": wish.cost}),
                context: json!({"tags": wish.tags, "pid": wish.pid, "line": wish.rule.line, "timeout_seconds": wish.timeout_seconds}),
                ..Self::new(
                    "approval_required",
                    "escalated",
                    &wish.action,
                    Reason::ApprovalNeeded.to_string(),
                )
            },
            Fact::ApprovalGiven { action, operator, note, .. } => Self {
                context: json!({"operator": operator, "note": note}),
                ..Self::new(
                    "approval_required",
                    "approved_after_review",
                    action,
                    "an operator approved it".to_owned(),
                )
            },
            Fact::ApprovalClosed { action, closing: Closing::Rejected { operator, note }, .. } => {
                let reason = Reason::ApprovalRejected { note: note.clone() };
                Self {
                    context: json!({"operator": operator, "note": note}),
                    remediation: json!(reason.remediation()),
                    ..Self::new("approval_required", "rejected_after_review", action, reason.to_string())
                }
            }
            Fact::ApprovalClosed { action, closing: Closing::Expired { timeout_seconds }, .. } => {
                let reason = Reason::ApprovalExpired { timeout_seconds: *timeout_seconds };
                Self {
                    remediation: json!(reason.remediation()),
                    ..Self::new("approval_required", "blocked", action, reason.to_string())
                }
            }
            Fact::KernelDenied { attempt, count, .. } if attempt.fate != "recorded" => {
                let Attempt { operation, target, verdict, fate, process, pid, would_allow } = &**attempt;
                let guidance = would_allow.as_ref().map_or_else(
                    || "no policy allows it".to_owned(),
                    |text| format!("don't retry it; the operator can allow it with\n{text}"),
                );
                Self {
                    context: json!({"target": target, "verdict": verdict, "fate": fate, "process": process, "pid": pid, "count": count}),
                    remediation: json!({"reason_code": "KERNEL_DENIED", "retry_guidance": guidance, "safe_alternatives": []}),
                    ..Self::new(
                        "hard_block",
                        "blocked",
                        format!("kernel.{operation}"),
                        format!("the kernel {fate} {operation} of {target}: {verdict}"),
                    )
                }
            }
            Fact::KillOrdered { operator, .. } => Self {
                context: json!({"operator": operator}),
                ..Self::new(
                    "hard_block",
                    "blocked",
                    "kill.ordered",
                    "an operator ordered the kill".to_owned(),
                )
            },
            _ => return None,
        })
    }
}

const fn kind_of(reason: &Reason) -> &'static str {
    match reason {
        Reason::BudgetExceeded { .. } => "budget_exceeded",
        Reason::RateLimited { .. } => "rate_limited",
        _ => "hard_block",
    }
}

fn saved(reason: &Reason, cost: Money) -> Value {
    match reason {
        Reason::BudgetExceeded { limit, .. } => json!({"funds_protected": limit, "cost_prevented": cost}),
        _ => json!({"funds_protected": cost}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<Intervention> {
        intervention(line.as_bytes()).unwrap()
    }

    const BLOCKED: &str = r#"{"id":"0192d3c1-0000-7000-8000-000000000001","timestamp":"2025-01-15T10:30:00.000000Z","action":"exp","cost_usd":0.0,"duration_ms":0.0,"outcome":"blocked","tags":[],"payload":{"inputs":{"args":[],"kwargs":{"n":1}},"outputs":"no"},"kind":"action","session":"daily","session_id":3,"run":2,"declared_usd":1.5,"reason":{"code":"BUDGET_EXCEEDED","budget":"run","spent":2.0,"limit":1.0},"rule":{"rule":"budgets.run","line":1},"pid":42,"seq":7,"hash":"00"}"#;

    #[test]
    fn a_block_is_told_with_the_seeds_keys() {
        let told = told(BLOCKED).unwrap();
        let json = serde_json::to_value(&told).unwrap();
        for (key, value) in [
            ("intervention_type", json!("budget_exceeded")),
            ("outcome", json!("blocked")),
            ("action_name", json!("exp")),
            ("agent_id", json!("daily")),
            ("run_id", json!("2")),
            ("policy_name", json!("budgets.run")),
            ("estimated_cost", json!(1.5)),
            ("actual_cost", json!(0.0)),
            ("risk_level", json!("high")),
            ("blast_radius", json!({"funds_protected": 1.0, "cost_prevented": 1.5})),
            ("original_inputs", json!({"args": [], "kwargs": {"n": 1}})),
            ("timestamp", json!("2025-01-15T10:30:00.000000Z")),
            ("seq", json!(7)),
        ] {
            assert_eq!(json.get(key), Some(&value), "{key}");
        }
        assert_eq!(json.pointer("/remediation_payload/reason_code"), Some(&json!("BUDGET_EXCEEDED")));
        assert_eq!(told.reason, "run budget exceeded: 2 > 1 USD");
    }

    #[test]
    fn each_kind_of_denial_has_the_seeds_type() {
        let kind = |reason: &str| {
            let line = BLOCKED
                .replace(r#"{"code":"BUDGET_EXCEEDED","budget":"run","spent":2.0,"limit":1.0}"#, reason);
            told(&line).unwrap().intervention_type
        };
        assert_eq!(kind(r#"{"code":"DENIED_ACTION"}"#), "hard_block");
        assert_eq!(
            kind(r#"{"code":"RATE_LIMITED","max_count":1,"window_seconds":2,"retry_after_ms":10}"#),
            "rate_limited"
        );
    }

    #[test]
    fn what_was_let_start_is_no_intervention_and_garbage_is_an_error() {
        let ended = BLOCKED
            .replace("blocked", "success")
            .replace("\"pid\":42", "\"scope\":1,\"grants\":0,\"overrun_usd\":0");
        assert_eq!(told(&ended), None);
        assert!(intervention(b"{}").is_err());
    }
}
