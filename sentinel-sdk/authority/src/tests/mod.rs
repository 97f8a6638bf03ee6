//! Lines as the outside reads them, and each fact rebuilt from its line.

mod facts;

use std::time::Duration;

use proptest::prelude::*;
use sentinel_engine::{Fact, GrantSet, Now, ScopeId};
use sentinel_ledger::{Log as _, MemoryLog};
use sentinel_proto::{
    ActionId, ActionName, Denial, Money, Outcome, Payload, Reason, RulePlace, SessionId, Tag,
};
use uuid::Uuid;

use crate::{line, rebuild};

const AT: Now = Now { wall_micros: 1_736_937_000_123_456, elapsed: Duration::ZERO };

fn action_id() -> ActionId {
    ActionId(Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef))
}

fn dollars(text: &str) -> Money {
    Money::from_decimal(text).unwrap()
}

/// The body, with a readable id in place of one that may be new each time.
fn told(fact: &Fact, session: Option<&str>) -> String {
    let (id, body) = line::body(fact, AT, session, None, false).unwrap();
    String::from_utf8(body).unwrap().replace(&id.to_string(), "ID")
}

#[test]
fn a_started_action_has_the_eight_keys_first_and_costs_nothing_yet() {
    let fact = Fact::ActionStarted {
        action_id: action_id(),
        session: SessionId(3),
        run: 2,
        scope: ScopeId(41),
        action: ActionName::new("search_web").unwrap(),
        reserved: dollars("0.01"),
        tags: vec![Tag::new("search").unwrap()],
        grants: GrantSet(2),
        max_seconds: 600,
        day: None,
        approval: None,
        inputs: serde_json::from_str(r#"{"q": 1.50}"#).unwrap(),
        inputs_sha256: None,
        annotations: None,
        pid: 77,
    };
    assert_eq!(
        told(&fact, Some("daily")),
        concat!(
            r#"{"id":"ID","timestamp":"2025-01-15T10:30:00.123456Z","action":"search_web","cost_usd":0.0,"#,
            r#""duration_ms":0.0,"outcome":"started","tags":["search"],"payload":{"inputs":{"q": 1.50},"#,
            r#""outputs":null},"kind":"action","session":"daily","session_id":3,"run":2,"scope":41,"grants":2,"#,
            r#""reserved_usd":0.01,"max_seconds":600,"pid":77"#,
        ),
        "and the application's text is copied as it came"
    );
}

#[test]
fn an_ended_action_tells_what_was_charged_and_how_long_it_ran() {
    let fact = Fact::ActionEnded {
        action_id: action_id(),
        session: SessionId(3),
        run: 2,
        scope: ScopeId(41),
        grants: GrantSet(2),
        action: ActionName::new("search_web").unwrap(),
        tags: Vec::new(),
        outcome: Outcome::Success,
        charged: dollars("0.3"),
        overrun: dollars("0.1"),
        duration: Duration::from_micros(1_234_567),
        outputs: Payload::of("done").unwrap(),
        annotations: None,
    };
    assert_eq!(
        told(&fact, Some("s3")),
        concat!(
            r#"{"id":"ID","timestamp":"2025-01-15T10:30:00.123456Z","action":"search_web","cost_usd":0.3,"#,
            r#""duration_ms":1234.567,"outcome":"success","tags":[],"payload":{"inputs":null,"outputs":"done"},"#,
            r#""kind":"action","session":"s3","session_id":3,"run":2,"scope":41,"grants":2,"overrun_usd":0.1"#,
        )
    );
}

#[test]
fn a_denied_action_tells_the_rule_and_costs_nothing() {
    let fact = Fact::ActionDenied {
        action_id: action_id(),
        session: SessionId(3),
        run: 2,
        action: ActionName::new("drop").unwrap(),
        cost: dollars("2.5"),
        tags: Vec::new(),
        denial: Denial {
            reason: Reason::DeniedAction,
            rule: Some(RulePlace { rule: "denied_actions".to_owned(), line: 4 }),
        },
        inputs: Payload::null(),
        annotations: None,
        pid: 77,
    };
    let line = told(&fact, Some("s3"));
    assert!(line.contains(r#""cost_usd":0.0,"duration_ms":0.0,"outcome":"blocked""#), "{line}");
    let end = concat!(
        r#""kind":"action","session":"s3","session_id":3,"run":2,"declared_usd":2.5,"#,
        r#""reason":{"code":"DENIED_ACTION"},"rule":{"rule":"denied_actions","line":4},"pid":77"#
    );
    assert!(line.ends_with(end), "{line}");
}

#[test]
fn the_agents_own_lines_have_the_same_keys() {
    assert_eq!(
        told(&Fact::AgentStarted { version: "0.1.0".to_owned(), tier: "kill".to_owned() }, None),
        concat!(
            r#"{"id":"ID","timestamp":"2025-01-15T10:30:00.123456Z","action":"agent.started","cost_usd":0.0,"#,
            r#""duration_ms":0.0,"outcome":"recorded","tags":[],"payload":{"inputs":null,"outputs":"#,
            r#"{"version":"0.1.0","tier":"kill"}},"kind":"agent","session":null,"session_id":null,"run":null"#
        )
    );
}

/// The fact of the fact's line, as it is sealed, and when it happened.
fn rebuilt(fact: &Fact, at: Now) -> (Fact, u64) {
    let session = match fact {
        Fact::SessionStarted { name: Some(name), .. } => Some(name.as_str()),
        _ => line::session_of(fact).map(|_| "s1"),
    };
    let mut log = MemoryLog::new();
    log.append(&[line::body(fact, at, session, None, false).unwrap().1]).unwrap();
    let lines: Vec<&[u8]> = log.lines().collect();
    let [line] = lines[..] else { panic!("a fact is one line") };
    rebuild::fact(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_fact_is_rebuilt_from_its_line_as_it_was(
        fact in facts::fact(),
        wall_micros in 0..253_402_300_799_999_999_u64,
    ) {
        let at = Now { wall_micros, ..AT };
        prop_assert_eq!(rebuilt(&fact, at), (fact, wall_micros));
    }
}

#[test]
fn the_line_of_an_actions_end_tells_what_it_was_called_with_unless_that_is_long() {
    use crate::{Ledger, Log as _};

    let long = format!("\"{}\"", "x".repeat(5_000));
    for (inputs, told) in
        [(r#"{"args":[1],"kwargs":{}}"#, r#"{"args":[1],"kwargs":{}}"#), (long.as_str(), "null")]
    {
        let (id, action) = (action_id(), ActionName::new("search_web").unwrap());
        let started = Fact::ActionStarted {
            action_id: id,
            session: SessionId(3),
            run: 2,
            scope: ScopeId(41),
            action: action.clone(),
            reserved: Money::ZERO,
            tags: Vec::new(),
            grants: GrantSet(0),
            max_seconds: 600,
            day: None,
            approval: None,
            inputs: serde_json::from_str(inputs).unwrap(),
            inputs_sha256: None,
            annotations: None,
            pid: 77,
        };
        let ended = Fact::ActionEnded {
            action_id: id,
            session: SessionId(3),
            run: 2,
            scope: ScopeId(41),
            grants: GrantSet(0),
            action,
            tags: Vec::new(),
            outcome: Outcome::Success,
            charged: Money::ZERO,
            overrun: Money::ZERO,
            duration: Duration::ZERO,
            outputs: Payload::null(),
            annotations: None,
        };
        let mut ledger = Ledger::beginning(MemoryLog::new());
        ledger.append(&[started], AT).unwrap();
        // A second end is of nothing that is known.
        for told in [told, "null"] {
            ledger.append(std::slice::from_ref(&ended), AT).unwrap();
            let line = ledger.chain().lines().last().unwrap().to_vec();
            let line = String::from_utf8(line).unwrap();
            assert!(line.contains(&format!(r#""payload":{{"inputs":{told},"outputs":null}}"#)), "{line}");
        }
    }
}

#[test]
fn no_secret_of_an_application_reaches_the_ledger_or_the_state() {
    use sentinel_engine::{ActionRequest, Event, Policy, inputs_digest};
    use sentinel_proto::{Annotations, ApprovalId, Label};

    let mut authority = crate::Authority::with(crate::Ledger::beginning(MemoryLog::new()));
    let session = SessionId(1);
    let mut policy = Policy::empty();
    policy.approvals = Some(sentinel_engine::Approvals {
        actions: std::collections::BTreeMap::from([(ActionName::new("asked").unwrap(), 1)]),
        tags: std::collections::BTreeMap::new(),
        risk_levels: Vec::new(),
        from_cost: None,
        approvers: None,
        timeout: Duration::from_secs(60),
        line: 1,
    });
    authority.bind(session, std::sync::Arc::new(policy));
    let secret = format!("hunter{}", 2);
    authority
        .step(
            Event::SessionStart {
                session,
                name: None,
                policy: "test".to_owned(),
                policy_sha256: "00".to_owned(),
                command: vec!["agent".to_owned(), format!("--password={secret}")],
                uid: 1000,
                tier: "kill".to_owned(),
            },
            AT,
        )
        .unwrap();
    let mut digests = Vec::new();
    for (number, action) in (1_u128..).zip(["plain", "asked"]) {
        let action_id = ActionId(Uuid::from_u128(number));
        let inputs =
            serde_json::json!({"args": [format!("password={secret}")], "kwargs": {"api_key": secret}});
        let metadata = Payload::of(&serde_json::json!({"notes": format!("password={secret}")})).unwrap();
        let annotations = Annotations {
            agent_id: Some(Label::new(format!("token={secret}")).unwrap()),
            compliance_metadata: Some(metadata),
            ..Annotations::default()
        };
        let annotations = annotations.boxed();
        let inputs = Payload::of(&inputs).unwrap();
        digests.push(inputs_digest(action_id, &inputs));
        let request = ActionRequest {
            action_id,
            session,
            scope: ScopeId(1),
            action: ActionName::new(action).unwrap(),
            cost: Money::ZERO,
            tags: Vec::new(),
            risk: None,
            needs_approval: false,
            approval_id: ApprovalId(Uuid::from_u128(number + 10)),
            inputs,
            annotations: annotations.clone(),
            pid: 7,
        };
        authority.step(Event::Begin(Box::new(request)), AT).unwrap();
        let outputs = Payload::of(&format!("token={secret}")).unwrap();
        let end =
            Event::End { action_id, session, outcome: Outcome::Success, cost: None, outputs, annotations };
        authority.step(end, AT).unwrap();
    }
    let lines: Vec<&str> =
        authority.log().chain().lines().map(|line| std::str::from_utf8(line).unwrap()).collect();
    assert!(lines.iter().all(|line| !line.contains(&secret)), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.contains(r#""inputs_redacted":true"#)).count(), 3);
    assert!(!format!("{:?}", authority.state()).contains(&secret));
    // What was redacted can still be told from something else.
    let told: Vec<&str> =
        lines.iter().filter_map(|line| line.split_once(r#""inputs_sha256":""#)?.1.get(..64)).collect();
    assert_eq!(told, digests.get(..1).unwrap(), "the other one waits for a human");
}
