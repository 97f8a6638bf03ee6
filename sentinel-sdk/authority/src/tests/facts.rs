//! Any fact that there can be.

use std::time::Duration;

use chrono::NaiveDate;
use proptest::prelude::*;
use sentinel_engine::{Attempt, Closing, Fact, GrantSet, Recorded, ScopeId, SessionEnding, Wish};
use sentinel_proto::{
    ActionId, ActionName, Annotations, ApprovalId, BudgetScope, Denial, Label, Money, Outcome, Payload,
    Reason, RiskLevel, RulePlace, SessionId, SessionName, Tag,
};
use uuid::Uuid;

pub(super) fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        1 => (text(), text()).prop_map(|(version, tier)| Fact::AgentStarted { version, tier }),
        1 => Just(Fact::AgentStopped),
        1 => any::<u64>().prop_map(|count| Fact::RecordsDropped { count }),
        1 => proptest::option::of(text()).prop_map(|failure| Fact::Examined { failure }),
        2 => session_started(),
        2 => (session(), ending()).prop_map(|(session, ending)| Fact::SessionEnded { session, ending }),
        1 => (session(), any::<u64>()).prop_map(|(session, run)| Fact::RunReset { session, run }),
        4 => action_started(),
        4 => action_denied(),
        4 => action_ended(),
        2 => action_corrected(),
        2 => action_recorded(),
        1 => (session(), any::<u32>()).prop_map(|(session, operator)| Fact::SessionReset { session, operator }),
        2 => action_warned(),
        2 => approval(),
        2 => order(),
        1 => any::<u64>().prop_map(|after| Fact::Gap { after }),
        2 => (session(), attempt(), any::<u64>()).prop_map(|(session, attempt, count)| {
            Fact::KernelDenied { session, attempt: Box::new(attempt), count }
        }),
    ]
}

fn action_warned() -> impl Strategy<Value = Fact> {
    let of = (action_id(), session(), any::<u64>(), action_name());
    (of, money(), denial(), any::<u32>()).prop_map(
        |((action_id, session, run, action), cost, denial, pid)| Fact::ActionWarned {
            action_id,
            session,
            run,
            action,
            cost,
            denial,
            pid,
        },
    )
}

fn approval_id() -> impl Strategy<Value = ApprovalId> {
    any::<u128>().prop_map(|id| ApprovalId(Uuid::from_u128(id)))
}

fn wish() -> impl Strategy<Value = Wish> {
    let of = (approval_id(), session(), any::<u64>(), action_name(), tags());
    let risk = prop::option::of("[a-zA-Z.-]{1,8}".prop_map(|level| RiskLevel::new(level).unwrap()));
    let rest = (any::<(u64, u64, u32)>(), text(), text(), any::<u32>());
    (of, money(), risk, payload(), rest).prop_map(
        |((approval_id, session, run, action, tags), cost, risk, inputs, rest)| {
            let ((grants, timeout_seconds, pid), digest, rule, line) = rest;
            Wish {
                approval_id,
                session,
                run,
                action,
                cost,
                tags,
                risk,
                grants: GrantSet(grants),
                digest,
                timeout_seconds,
                inputs,
                pid,
                rule: RulePlace { rule, line },
            }
        },
    )
}

fn closing() -> impl Strategy<Value = Closing> {
    prop_oneof![
        (any::<u32>(), prop::option::of(text()))
            .prop_map(|(operator, note)| Closing::Rejected { operator, note }),
        any::<u64>().prop_map(|timeout_seconds| Closing::Expired { timeout_seconds }),
        text().prop_map(|message| Closing::Cancelled { message }),
    ]
}

fn approval() -> impl Strategy<Value = Fact> {
    let of = || (approval_id(), session(), action_name());
    let given = (any::<u32>(), prop::option::of(text()), any::<(u64, u64)>(), prop::option::of(money()));
    prop_oneof![
        wish().prop_map(|wish| Fact::ApprovalRequested { wish: Box::new(wish) }),
        (of(), given).prop_map(
            |((approval_id, session, action), (operator, note, (uses, seconds), up_to))| {
                Fact::ApprovalGiven { approval_id, session, action, operator, note, uses, seconds, up_to }
            }
        ),
        (of(), closing()).prop_map(|((approval_id, session, action), closing)| Fact::ApprovalClosed {
            approval_id,
            session,
            action,
            closing
        }),
    ]
}

/// What an operator orders, and what follows from it.
fn order() -> impl Strategy<Value = Fact> {
    let changed = prop::collection::vec(text(), 0..3);
    let regranted = (action_id(), session(), action_name(), any::<(u64, u64)>());
    prop_oneof![
        (session(), any::<u32>()).prop_map(|(session, operator)| Fact::SessionPaused { session, operator }),
        (session(), any::<u32>()).prop_map(|(session, operator)| Fact::SessionResumed { session, operator }),
        (prop::option::of(session()), any::<u32>())
            .prop_map(|(session, operator)| Fact::KillOrdered { session, operator }),
        (any::<Option<u32>>(), changed)
            .prop_map(|(operator, changed)| Fact::PoliciesReloaded { operator, changed }),
        (session(), text(), text(), any::<u64>()).prop_map(|(session, policy, policy_sha256, generation)| {
            Fact::PolicyChanged { session, policy, policy_sha256, generation }
        }),
        regranted.prop_map(|(action_id, session, action, (scope, grants))| Fact::ActionRegranted {
            action_id,
            session,
            scope: ScopeId(scope),
            action,
            grants: GrantSet(grants),
        }),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,12}", any::<String>(), Just("\u{1b}[2J\n\"\\\u{0}".to_owned())]
}

fn money() -> impl Strategy<Value = Money> {
    (0..=Money::MAX.nanos()).prop_map(|nanos| Money::from_nanos(nanos).unwrap())
}

fn session() -> impl Strategy<Value = SessionId> {
    any::<u32>().prop_map(SessionId)
}

fn action_id() -> impl Strategy<Value = ActionId> {
    any::<u128>().prop_map(|id| ActionId(Uuid::from_u128(id)))
}

/// Also the names of the agent's own lines: an application may call its actions so.
fn action_name() -> impl Strategy<Value = ActionName> {
    prop_oneof!["[a-zäж .]{1,20}", Just("agent.started".to_owned()), Just("kernel.exec".to_owned())]
        .prop_map(|name| ActionName::new(name).unwrap())
}

fn tags() -> impl Strategy<Value = Vec<Tag>> {
    prop::collection::vec("[a-z\"\\\\]{1,8}".prop_map(|tag| Tag::new(tag).unwrap()), 0..4)
}

fn payload() -> impl Strategy<Value = Payload> {
    let as_it_came = [
        "null",
        "1e999",
        "1.50",
        r#""\ud800""#,
        "[1,\n 2]",
        r#"{"hash":"0","seq":1}"#,
        r#"{ "a" : [ ], "a": 1 }"#,
    ];
    prop_oneof![
        text().prop_map(|text| Payload::of(&text).unwrap()),
        prop::sample::select(as_it_came.to_vec()).prop_map(|text| serde_json::from_str(text).unwrap()),
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    let budget = prop::sample::select(vec![
        BudgetScope::Session,
        BudgetScope::Run,
        BudgetScope::Day,
        BudgetScope::Action,
    ]);
    prop_oneof![
        Just(Reason::DeniedAction),
        Just(Reason::SessionEnded),
        Just(Reason::Paused),
        Just(Reason::NoApprover),
        Just(Reason::ApprovalNeeded),
        any::<u64>().prop_map(|limit| Reason::CallLimit { limit }),
        any::<u64>().prop_map(|limit| Reason::ConcurrencyLimit { limit }),
        text().prop_map(|allowed| Reason::OutsideHours { allowed }),
        prop::option::of(text()).prop_map(|note| Reason::ApprovalRejected { note }),
        any::<u64>().prop_map(|timeout_seconds| Reason::ApprovalExpired { timeout_seconds }),
        text().prop_map(|cause| Reason::ApprovalCancelled { cause }),
        prop::collection::vec(action_name(), 0..4).prop_map(|allowed| Reason::NotInAllowlist { allowed }),
        (any::<u64>(), any::<u64>(), any::<Option<u64>>()).prop_map(
            |(max_count, window_seconds, retry_after_ms)| {
                Reason::RateLimited { max_count, window_seconds, retry_after_ms }
            }
        ),
        (budget, money(), money()).prop_map(|(budget, spent, limit)| Reason::BudgetExceeded {
            budget,
            spent,
            limit
        }),
        (text(), any::<u64>()).prop_map(|(quota, limit)| Reason::QuotaExceeded { quota, limit }),
        text().prop_map(|cause| Reason::LedgerUnavailable { cause }),
        text().prop_map(|cause| Reason::EnforcementFailed { cause }),
        text().prop_map(|cause| Reason::AgentUnavailable { cause }),
        text().prop_map(|cause| Reason::InvalidRequest { cause }),
    ]
}

fn denial() -> impl Strategy<Value = Denial> {
    let rule = (text(), any::<u32>()).prop_map(|(rule, line)| RulePlace { rule, line });
    (reason(), prop::option::of(rule)).prop_map(|(reason, rule)| Denial { reason, rule })
}

fn ending() -> impl Strategy<Value = SessionEnding> {
    prop_oneof![
        Just(SessionEnding::Exited),
        Just(SessionEnding::LauncherGone),
        Just(SessionEnding::AgentStopped),
        Just(SessionEnding::FoundOrphaned),
        Just(SessionEnding::Killed),
        text().prop_map(|message| SessionEnding::StartFailed { message }),
    ]
}

fn attempt() -> impl Strategy<Value = Attempt> {
    (text(), text(), text(), text(), text(), any::<u32>(), prop::option::of(text())).prop_map(
        |(operation, target, verdict, fate, process, pid, would_allow)| Attempt {
            operation,
            target,
            verdict,
            fate,
            process,
            pid,
            would_allow,
        },
    )
}

fn session_started() -> impl Strategy<Value = Fact> {
    let name = prop::option::of("[a-zA-Z0-9._-]{1,20}".prop_map(|name| SessionName::new(name).unwrap()));
    let command = prop::collection::vec(text(), 0..4);
    (session(), name, text(), text(), command, any::<u32>(), text()).prop_map(
        |(session, name, policy, policy_sha256, command, uid, tier)| Fact::SessionStarted {
            session,
            name,
            policy,
            policy_sha256,
            command,
            uid,
            tier,
        },
    )
}

fn label() -> impl Strategy<Value = Option<Label>> {
    prop::option::of("[ -~]{1,128}".prop_map(|text| Label::new(text).unwrap()))
}

fn annotations() -> impl Strategy<Value = Option<Box<Annotations>>> {
    let labels = (label(), label(), label(), label());
    (labels, prop::option::of(action_id()), prop::option::of(payload())).prop_map(
        |((agent_id, run_id, task_id, mission_id), parent, compliance_metadata)| {
            Annotations { agent_id, run_id, task_id, mission_id, parent, compliance_metadata }.boxed()
        },
    )
}

fn digest() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[0-9a-f]{64}")
}

fn action_started() -> impl Strategy<Value = Fact> {
    let of = (action_id(), session(), any::<u64>(), action_name(), tags());
    let doors = (any::<u64>(), any::<u64>(), any::<u64>());
    let day = prop::option::of((0..100_000_i32).prop_map(|days| NaiveDate::from_epoch_days(days).unwrap()));
    let by = (day, prop::option::of(approval_id()), any::<u32>());
    (of, doors, money(), (payload(), digest(), annotations()), by).prop_map(
        |((action_id, session, run, action, tags), (scope, grants, max_seconds), reserved, told, by)| {
            let (inputs, inputs_sha256, annotations) = told;
            let (day, approval, pid) = by;
            Fact::ActionStarted {
                action_id,
                session,
                run,
                scope: ScopeId(scope),
                action,
                reserved,
                tags,
                grants: GrantSet(grants),
                max_seconds,
                day,
                approval,
                inputs,
                inputs_sha256,
                annotations,
                pid,
            }
        },
    )
}

fn action_denied() -> impl Strategy<Value = Fact> {
    let of = (action_id(), session(), any::<u64>(), action_name(), tags());
    (of, money(), denial(), (payload(), annotations()), any::<u32>()).prop_map(
        |((action_id, session, run, action, tags), cost, denial, (inputs, annotations), pid)| {
            Fact::ActionDenied {
                action_id,
                session,
                run,
                action,
                cost,
                tags,
                denial,
                inputs,
                annotations,
                pid,
            }
        },
    )
}

fn action_recorded() -> impl Strategy<Value = Fact> {
    let outcome = prop::sample::select(vec![Outcome::Success, Outcome::Error, Outcome::Replayed]);
    let of = (action_id(), session(), action_name(), tags());
    (of, outcome, money(), 0..4_000_000_000_000_000_u64, (payload(), digest(), payload(), annotations()))
        .prop_map(|((action_id, session, action, tags), outcome, cost, micros, told)| {
            let (inputs, inputs_sha256, outputs, annotations) = told;
            Fact::ActionRecorded(Box::new(Recorded {
                action_id,
                session,
                action,
                cost,
                outcome,
                tags,
                duration: Duration::from_micros(micros),
                inputs,
                inputs_sha256,
                outputs,
                annotations,
            }))
        })
}

fn action_corrected() -> impl Strategy<Value = Fact> {
    let outcome =
        prop::sample::select(vec![Outcome::Success, Outcome::Error, Outcome::Panicked, Outcome::Cancelled]);
    let of = (action_id(), session(), any::<u64>(), action_name(), tags());
    (of, outcome, (money(), money(), money()), 0..4_000_000_000_000_000_u64, (payload(), annotations()))
        .prop_map(
            |((action_id, session, run, action, tags), outcome, (before, charged, overrun), micros, told)| {
                let (outputs, annotations) = told;
                Fact::ActionCorrected {
                    action_id,
                    session,
                    run,
                    action,
                    tags,
                    outcome,
                    before,
                    charged,
                    overrun,
                    duration: Duration::from_micros(micros),
                    outputs,
                    annotations,
                }
            },
        )
}

fn action_ended() -> impl Strategy<Value = Fact> {
    let outcome = prop::sample::select(vec![
        Outcome::Success,
        Outcome::Error,
        Outcome::Panicked,
        Outcome::Cancelled,
        Outcome::Expired,
        Outcome::Abandoned,
        Outcome::Interrupted,
        Outcome::Aborted,
    ]);
    // A century and more.
    let micros = 0..4_000_000_000_000_000_u64;
    let of = (action_id(), session(), any::<u64>(), action_name(), tags());
    (of, any::<(u64, u64)>(), outcome, (money(), money()), micros, (payload(), annotations())).prop_map(
        |(of, (scope, grants), outcome, (charged, overrun), micros, (outputs, annotations))| {
            let (action_id, session, run, action, tags) = of;
            Fact::ActionEnded {
                action_id,
                session,
                run,
                scope: ScopeId(scope),
                grants: GrantSet(grants),
                action,
                tags,
                outcome,
                charged,
                overrun,
                duration: Duration::from_micros(micros),
                outputs,
                annotations,
            }
        },
    )
}
