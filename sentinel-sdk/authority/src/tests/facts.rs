//! Any fact that there can be.

use std::time::Duration;

use proptest::prelude::*;
use sentinel_engine::{Attempt, Fact, GrantSet, ScopeId, SessionEnding};
use sentinel_proto::{
    ActionId, ActionName, BudgetScope, Denial, Money, Outcome, Payload, Reason, RulePlace, SessionId,
    SessionName, Tag,
};
use uuid::Uuid;

pub(super) fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        1 => (text(), text()).prop_map(|(version, tier)| Fact::AgentStarted { version, tier }),
        1 => Just(Fact::AgentStopped),
        1 => any::<u64>().prop_map(|count| Fact::RecordsDropped { count }),
        2 => session_started(),
        2 => (session(), ending()).prop_map(|(session, ending)| Fact::SessionEnded { session, ending }),
        1 => (session(), any::<u64>()).prop_map(|(session, run)| Fact::RunReset { session, run }),
        4 => action_started(),
        4 => action_denied(),
        4 => action_ended(),
        2 => (session(), attempt(), any::<u64>()).prop_map(|(session, attempt, count)| {
            Fact::KernelDenied { session, attempt: Box::new(attempt), count }
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
    let budget = prop::sample::select(vec![BudgetScope::Session, BudgetScope::Run, BudgetScope::Action]);
    prop_oneof![
        Just(Reason::DeniedAction),
        Just(Reason::SessionEnded),
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

fn action_started() -> impl Strategy<Value = Fact> {
    let of = (action_id(), session(), any::<u64>(), action_name(), tags());
    let doors = (any::<u64>(), any::<u64>(), any::<u64>());
    (of, doors, money(), payload(), any::<u32>()).prop_map(
        |((action_id, session, run, action, tags), (scope, grants, max_seconds), reserved, inputs, pid)| {
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
                inputs,
                pid,
            }
        },
    )
}

fn action_denied() -> impl Strategy<Value = Fact> {
    let of = (action_id(), session(), any::<u64>(), action_name(), tags());
    (of, money(), denial(), payload(), any::<u32>()).prop_map(
        |((action_id, session, run, action, tags), cost, denial, inputs, pid)| Fact::ActionDenied {
            action_id,
            session,
            run,
            action,
            cost,
            tags,
            denial,
            inputs,
            pid,
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
    (of, any::<(u64, u64)>(), outcome, (money(), money()), micros, payload()).prop_map(
        |(of, (scope, grants), outcome, (charged, overrun), micros, outputs)| {
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
            }
        },
    )
}
