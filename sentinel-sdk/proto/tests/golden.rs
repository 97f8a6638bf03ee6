//! Pins the bytes of every message. A file that has to change here is a change of the protocol: raise `VERSION` with it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p sentinel-proto` writes the files anew.

use std::path::Path;

use sentinel_proto::admin::{
    self, ApprovalList, ApprovalStatus, Approve, Attach, Done, Notice, OfSession, Reject, SessionStarted,
    SessionStatus, StartSession, Status,
};
use sentinel_proto::app::{
    Answer, ApprovalAnswer, Ask, Begin, DenialList, Denials, End, Ended, Hello, KernelDenial, OfApproval,
    PendingApproval, RefusalCode, Refused, Reply, Request, Totals, Welcome,
};
use sentinel_proto::examination::{Examination, Hold, Program, Proof, Row};
use sentinel_proto::{
    ActionId, ActionName, Annotations, ApprovalId, BudgetScope, Decision, Denial, FrameReader, Label, Money,
    Outcome, Payload, Reason, RiskLevel, RulePlace, SessionId, SessionName, Tag, VERSION, encode_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, message: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{name}.json"));
    let json = serde_json::to_string(message).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{json}\n")).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(json, golden.trim_end(), "`{}` has other bytes now", path.display());
    assert_eq!(
        serde_json::from_str::<T>(golden.trim_end()).unwrap(),
        *message,
        "`{name}` is read as something else"
    );
    let frame = encode_frame(message).unwrap();
    assert_eq!(frame[..4], u32::try_from(json.len()).unwrap().to_le_bytes());
    let mut reader = FrameReader::new();
    reader.push(&frame);
    assert_eq!(reader.next_message::<T>().unwrap().as_ref(), Some(message));
}

fn action_id() -> ActionId {
    ActionId("550e8400-e29b-41d4-a716-446655440000".parse().unwrap())
}

fn approval_id() -> ApprovalId {
    ApprovalId("6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap())
}

fn dollars(text: &str) -> Money {
    Money::from_decimal(text).unwrap()
}

fn hello() -> Hello {
    Hello { version: VERSION, client: "rust/0.1.0".to_owned() }
}

fn kernel_denial() -> KernelDenial {
    KernelDenial {
        id: "7f3a9c10-0000-4000-8000-000000000001".to_owned(),
        attempt: "connect to 192.0.2.1:443/tcp".to_owned(),
        fate: "refused".to_owned(),
        would_allow: Some("enforcement: {network: {allow: [\"192.0.2.1:443/tcp\"]}}".to_owned()),
    }
}

/// Each way in which a message can't be taken.
fn refusals() -> [(&'static str, Refused); 6] {
    let refused = |request, code, message: &str| Refused { request, code, message: message.to_owned() };
    [
        (
            "version",
            refused(None, RefusalCode::Version, "version 2 of the protocol isn't spoken here; say 1"),
        ),
        ("malformed", refused(None, RefusalCode::Malformed, "a second hello; say it once")),
        ("identity", refused(Some(1), RefusalCode::Identity, "process 42 is in no session")),
        (
            "busy",
            refused(None, RefusalCode::Busy, "the session has 128 connections; close some, or share one"),
        ),
        ("not-found", refused(Some(4), RefusalCode::NotFound, "no session 3")),
        ("failed", refused(Some(5), RefusalCode::Failed, "the ledger can't be written")),
    ]
}

/// The rule of the policy that decided, and its line.
type Rule = Option<(&'static str, u32)>;

/// Each reason for a denial.
fn reasons() -> Vec<(&'static str, Reason, Rule)> {
    let budget = |budget, spent, limit| Reason::BudgetExceeded {
        budget,
        spent: dollars(spent),
        limit: dollars(limit),
    };
    let rate =
        |max_count, retry_after_ms| Reason::RateLimited { max_count, window_seconds: 60, retry_after_ms };
    let allowed = vec![ActionName::new("search_web").unwrap(), ActionName::new("поиск").unwrap()];
    vec![
        ("denied-action", Reason::DeniedAction, Some(("denied_actions", 7))),
        ("not-in-allowlist", Reason::NotInAllowlist { allowed }, Some(("allowed_actions", 8))),
        ("rate-limited", rate(10, Some(1_500)), Some(("rate_limits.search_web", 9))),
        ("rate-limited-for-ever", rate(0, None), Some(("rate_limits.search_web", 9))),
        ("budget-exceeded", budget(BudgetScope::Session, "5.01", "5"), Some(("budgets.session", 2))),
        ("budget-exceeded-run", budget(BudgetScope::Run, "1.000000001", "1"), Some(("budgets.run", 3))),
        (
            "budget-exceeded-action",
            budget(BudgetScope::Action, "0.6", "0.5"),
            Some(("budgets.actions.search_web", 5)),
        ),
        ("budget-exceeded-day", budget(BudgetScope::Day, "20.5", "20"), Some(("budgets.day", 4))),
        ("call-limit", Reason::CallLimit { limit: 100 }, Some(("limits.max_calls", 10))),
        (
            "concurrency-limit",
            Reason::ConcurrencyLimit { limit: 4 },
            Some(("actions.search_web.max_concurrent", 11)),
        ),
        (
            "outside-hours",
            Reason::OutsideHours { allowed: "mon-fri 09:00-17:00 (Europe/Berlin)".to_owned() },
            Some(("hours", 12)),
        ),
        ("approval-rejected", Reason::ApprovalRejected { note: Some("not today".to_owned()) }, None),
        ("approval-expired", Reason::ApprovalExpired { timeout_seconds: 300 }, None),
        (
            "approval-cancelled",
            Reason::ApprovalCancelled { cause: "the policy has changed".to_owned() },
            None,
        ),
        ("no-approver", Reason::NoApprover, Some(("approvals.actions", 13))),
        ("approval-needed", Reason::ApprovalNeeded, None),
        ("paused", Reason::Paused, None),
        (
            "quota-exceeded",
            Reason::QuotaExceeded { quota: "actions in flight".to_owned(), limit: 1024 },
            None,
        ),
        ("session-ended", Reason::SessionEnded, None),
        (
            "ledger-unavailable",
            Reason::LedgerUnavailable { cause: "no space left on device".to_owned() },
            None,
        ),
        ("enforcement-failed", Reason::EnforcementFailed { cause: "map `SCOPES` is full".to_owned() }, None),
        ("agent-unavailable", Reason::AgentUnavailable { cause: "no answer within 5 s".to_owned() }, None),
        ("invalid-request", Reason::InvalidRequest { cause: "33 tags".to_owned() }, None),
    ]
}

fn annotations() -> Annotations {
    Annotations {
        agent_id: Some(Label::new("researcher").unwrap()),
        run_id: Some(Label::new("run-7").unwrap()),
        task_id: Some(Label::new("summary").unwrap()),
        mission_id: Some(Label::new("report").unwrap()),
        parent: Some(action_id()),
        compliance_metadata: Some(
            Payload::of(&serde_json::json!({"decision_rationale": "asked to"})).unwrap(),
        ),
    }
}

#[test]
fn an_applications_requests() {
    check("request-hello", &Request::Hello(hello()));
    check(
        "request-begin",
        &Request::Begin(Begin {
            request: 1,
            action: ActionName::new("search_web").unwrap(),
            cost_usd: dollars("0.01"),
            tags: vec![Tag::new("search").unwrap()],
            risk_level: Some(RiskLevel::new("high").unwrap()),
            needs_approval: false,
            inputs: Payload::of(&serde_json::json!({"args": [], "kwargs": {"query": "ü\n"}})).unwrap(),
            annotations: None,
        }),
    );
    let end = End {
        request: Some(2),
        action_id: action_id(),
        outcome: Outcome::Success,
        cost_usd: None,
        outputs: Payload::null(),
        annotations: None,
    };
    check("request-end", &Request::End(end.clone()));
    check(
        "request-end-one-way",
        &Request::End(End { request: None, cost_usd: Some(dollars("0.02")), ..end.clone() }),
    );
    let annotations = annotations().boxed();
    check("request-end-annotated", &Request::End(End { annotations: annotations.clone(), ..end.clone() }));
    check(
        "request-begin-annotated",
        &Request::Begin(Begin {
            request: 1,
            action: ActionName::new("search_web").unwrap(),
            cost_usd: Money::ZERO,
            tags: Vec::new(),
            risk_level: None,
            needs_approval: true,
            inputs: Payload::null(),
            annotations,
        }),
    );
    for (name, outcome) in
        [("error", Outcome::Error), ("panicked", Outcome::Panicked), ("cancelled", Outcome::Cancelled)]
    {
        let outputs = Payload::of("ValueError: no such page").unwrap();
        check(&format!("request-end-{name}"), &Request::End(End { outcome, outputs, ..end.clone() }));
    }
    let of = OfApproval { request: 6, approval: approval_id() };
    check("request-await-approval", &Request::AwaitApproval(of));
    check("request-cancel-approval", &Request::CancelApproval(of));
    check("request-denials", &Request::Denials(Denials { request: 3, within_ms: 10_000 }));
    check("request-totals", &Request::Totals(Ask { request: 4 }));
    check("request-reset-run", &Request::ResetRun(Ask { request: 5 }));
}

#[test]
fn the_agents_replies_to_an_application() {
    let session = SessionId(3);
    check(
        "reply-welcome",
        &Reply::Welcome(Welcome {
            version: VERSION,
            session,
            session_name: "s3".to_owned(),
            tier: "kill".to_owned(),
        }),
    );
    let allow = Answer {
        request: 1,
        decision: Decision::Allow,
        action_id: Some(action_id()),
        acknowledge_end: true,
        max_seconds: Some(600),
        denial: None,
        approval: None,
    };
    check(
        "reply-pending",
        &Reply::Decision(Box::new(Answer {
            decision: Decision::Pending,
            action_id: None,
            acknowledge_end: false,
            max_seconds: None,
            approval: Some(PendingApproval { id: approval_id(), expires_in_ms: 299_000 }),
            ..allow.clone()
        })),
    );
    for (name, denial) in [
        ("approved", None),
        ("rejected", Some(Denial { reason: Reason::ApprovalRejected { note: None }, rule: None })),
    ] {
        let answer =
            ApprovalAnswer { request: 6, approval: approval_id(), approved: denial.is_none(), denial };
        check(&format!("reply-approval-{name}"), &Reply::Approval(Box::new(answer)));
    }
    check("reply-allow", &Reply::Decision(Box::new(allow.clone())));
    for (name, reason, rule) in reasons() {
        assert_eq!(
            serde_json::to_value(&reason).unwrap()["code"],
            reason.code(),
            "the code is one and the same"
        );
        let rule = rule.map(|(rule, line)| RulePlace { rule: rule.to_owned(), line });
        let deny = Answer {
            decision: Decision::Deny,
            action_id: None,
            acknowledge_end: false,
            max_seconds: None,
            denial: Some(Denial { reason, rule }),
            ..allow.clone()
        };
        check(&format!("reply-deny-{name}"), &Reply::Decision(Box::new(deny)));
    }
    check(
        "reply-allow-one-way",
        &Reply::Decision(Box::new(Answer { acknowledge_end: false, ..allow.clone() })),
    );
    check("reply-ended", &Reply::Ended(Ended { request: 2, settled: true }));
    check("reply-ended-too-late", &Reply::Ended(Ended { request: 2, settled: false }));
    check("reply-denials", &Reply::Denials(DenialList { request: 3, denials: vec![kernel_denial()] }));
    check(
        "reply-totals",
        &Reply::Totals(Totals {
            request: 4,
            session_usd: dollars("0.3"),
            run_usd: dollars("0.1"),
            session_limit_usd: Some(dollars("5")),
            run_limit_usd: None,
        }),
    );
    for (name, refused) in refusals() {
        check(&format!("reply-refused-{name}"), &Reply::Refused(refused));
    }
}

#[test]
fn an_operators_requests() {
    check("admin-request-hello", &admin::Request::Hello(hello()));
    check(
        "admin-request-start-session",
        &admin::Request::StartSession(Box::new(StartSession {
            request: 1,
            policy: "web".to_owned(),
            name: Some(SessionName::new("daily").unwrap()),
            command: vec!["./agent".to_owned(), "--fast".to_owned()],
            program: "/opt/agent".into(),
            uid: Some(1000),
        })),
    );
    check("admin-request-examine", &admin::Request::Examine(Ask { request: 11 }));
    check("admin-request-status", &admin::Request::Status(Ask { request: 2 }));
    check("admin-request-approvals", &admin::Request::Approvals(Ask { request: 3 }));
    check(
        "admin-request-approve",
        &admin::Request::Approve(Approve {
            request: 4,
            approval: approval_id(),
            uses: Some(3),
            seconds: Some(3600),
            up_to_usd: Some(dollars("5")),
            note: Some("as agreed".to_owned()),
        }),
    );
    check(
        "admin-request-reject",
        &admin::Request::Reject(Reject { request: 5, approval: approval_id(), note: None }),
    );
    let of = |request| OfSession { request, session: "daily".to_owned() };
    check("admin-request-pause", &admin::Request::Pause(of(6)));
    check("admin-request-resume", &admin::Request::Resume(of(7)));
    check("admin-request-kill", &admin::Request::Kill(of(8)));
    check("admin-request-reset-session", &admin::Request::ResetSession(of(12)));
    let attach = Attach { request: 11, session: SessionId(3) };
    check("admin-request-attach", &admin::Request::Attach(attach));
    check("admin-request-stop-all", &admin::Request::StopAll(Ask { request: 9 }));
    check("admin-request-reload", &admin::Request::Reload(Ask { request: 10 }));
}

#[test]
fn the_agents_replies_to_an_operator() {
    check("admin-reply-welcome", &admin::Reply::Welcome(admin::Welcome { version: VERSION }));
    check(
        "admin-reply-session-started",
        &admin::Reply::SessionStarted(Box::new(SessionStarted {
            request: 1,
            session: SessionId(3),
            name: "daily".to_owned(),
            cgroup: "/sys/fs/cgroup/sentinel/host/3".into(),
            uid: 1000,
            agent_socket: "/run/agent-sentinel/agent.sock".into(),
            mask: vec!["/var/lib/agent-sentinel".into()],
            tier: "kill".to_owned(),
            ledger: "/var/lib/agent-sentinel/ledger.jsonl".into(),
            audit: false,
            unix_allow: vec!["/run/postgresql/.s.PGSQL.5432".into()],
        })),
    );
    let notice = Notice { process: "curl".to_owned(), pid: 42, denial: kernel_denial() };
    check("admin-reply-notice", &admin::Reply::Notice(Box::new(notice)));
    check("admin-reply-waits", &admin::Reply::Waits(Box::new(approval())));
    let session = SessionStatus {
        session: SessionId(3),
        name: "daily".to_owned(),
        policy: "web".to_owned(),
        processes: 2,
        in_flight: 1,
        spent_usd: dollars("0.3"),
        limit_usd: Some(dollars("5")),
        exhausted: false,
        paused: false,
        generation: 1,
        allowed: 7,
        denied: 1,
        kernel_denials: 2,
    };
    check(
        "admin-reply-status",
        &admin::Reply::Status(Box::new(Status {
            request: 2,
            version: "0.1.0".to_owned(),
            tier: "kill".to_owned(),
            proven: true,
            pid: 4242,
            ledger: "/var/lib/agent-sentinel/ledger.jsonl".into(),
            ledger_seq: 99,
            dropped_records: 0,
            policies: vec!["web".to_owned()],
            sessions: vec![session],
        })),
    );
    let row = |what: &str, hold, proof| Row { what: what.to_owned(), hold, proof };
    let examination = Examination {
        tier: "kill".to_owned(),
        kernel: "6.12.43+deb13-cloud-amd64".to_owned(),
        rows: vec![
            row("a TCP connect over IPv4", Hold::DeniedBeforeExecution, Proof::Tried),
            row(
                "an exec of a file",
                Hold::KilledBeforeFirstInstruction,
                Proof::Failed("Exited(0)".to_owned()),
            ),
            row("a script", Hold::NotCovered, Proof::Stated("it is judged by its interpreter".to_owned())),
        ],
        programs: vec![Program { name: "connect4".to_owned(), missed: 0, runs: 12, nanoseconds: 3600 }],
        lost_reports: 0,
    };
    check(
        "admin-reply-examination",
        &admin::Reply::Examination(Box::new(admin::Examined { request: 11, examination })),
    );
    let approvals = ApprovalList { request: 3, approvals: vec![approval()] };
    check("admin-reply-approvals", &admin::Reply::Approvals(approvals));
    let message = "session `daily` is paused: its processes are frozen, its doors shut".to_owned();
    check("admin-reply-done", &admin::Reply::Done(Done { request: 6, message }));
    let [(_, refused), ..] = refusals();
    check("admin-reply-refused", &admin::Reply::Refused(refused));
}

fn approval() -> ApprovalStatus {
    ApprovalStatus {
        approval: approval_id(),
        session: SessionId(3),
        session_name: "daily".to_owned(),
        action: ActionName::new("send_money").unwrap(),
        cost_usd: dollars("0.5"),
        tags: vec![Tag::new("production").unwrap()],
        risk_level: None,
        inputs: Payload::of(&["bob"]).unwrap(),
        doors: vec!["192.0.2.10:443/tcp".to_owned()],
        rule: RulePlace { rule: "approvals.actions".to_owned(), line: 9 },
        pid: 42,
        digest: "ab".repeat(32),
        expires_in_seconds: 299,
        uses_left: None,
    }
}

#[test]
fn the_word_of_each_outcome_is_one_and_the_same() {
    for outcome in [
        Outcome::Started,
        Outcome::Success,
        Outcome::Error,
        Outcome::Panicked,
        Outcome::Cancelled,
        Outcome::Expired,
        Outcome::Abandoned,
        Outcome::Interrupted,
        Outcome::Aborted,
        Outcome::Blocked,
        Outcome::Warned,
        Outcome::Pending,
        Outcome::Approved,
        Outcome::Rejected,
        Outcome::Recorded,
    ] {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
    }
}

#[test]
fn what_the_protocol_does_not_know_is_refused() {
    for message in [
        r#"{"begin":{"request":1,"action":"a","extra":1}}"#,
        r#"{"begin":{"action":"a"}}"#,
        r#"{"begin":{"request":1,"action":""}}"#,
        r#"{"begin":{"request":1,"action":"a","cost_usd":-1}}"#,
        r#"{"begin":{"request":1,"action":"a","cost_usd":1e999}}"#,
        r#"{"begin":{"request":-1,"action":"a"}}"#,
        r#"{"begin":{"request":1,"request":1,"action":"a"}}"#,
        r#"{"hello":{"version":1,"client":"a"},"totals":{"request":1}}"#,
        r#"{"start":{}}"#,
        r#"["begin"]"#,
        "{}",
        "",
    ] {
        assert!(serde_json::from_str::<Request>(message).is_err(), "taken for a request: {message}");
    }
    assert!(
        serde_json::from_str::<Request>(r#"{"begin":{"request":1,"action":"a"}}"#).is_ok(),
        "the rest has defaults"
    );
}
