//! A human's word: when it is needed, what it is bound to, how it ends.

use sentinel_engine::{ActionRequest, Approver, Closing, Event, Fact, Operator, Permit};
use sentinel_proto::{ActionId, ApprovalId, Outcome, Payload, Reason, RiskLevel, Tag};

use crate::world::{Rules, SESSION, World, approval, root, seconds, usd};

fn asking() -> Rules {
    Rules::none().approvals().approve_action("send_money")
}

/// A world with an action that a human is asked about.
fn asked(rules: &Rules) -> (World, ActionRequest, ApprovalId) {
    let mut world = World::new(rules);
    let request = world.request("send_money", "0.5");
    let id = world.wish(&request);
    (world, request, id)
}

/// The same question again, as another request.
fn again(world: &mut World, request: &ActionRequest) -> ActionRequest {
    let fresh = world.request(request.action.as_str(), "0");
    ActionRequest { action_id: fresh.action_id, approval_id: fresh.approval_id, ..request.clone() }
}

/// The answer to the same question: started, or asked anew, or nothing as it still waits.
fn repeated(world: &mut World, request: &ActionRequest) -> &'static str {
    let request = again(world, request);
    match &world.step(Event::Begin(Box::new(request)))[..] {
        [Fact::ActionStarted { .. }] => "started",
        [Fact::ApprovalRequested { .. }] => "asked",
        [Fact::ActionDenied { .. }] => "denied",
        [] => "waits",
        facts => panic!("{facts:?}"),
    }
}

#[test]
fn an_approved_action_starts_once_and_is_asked_about_again_after_that() {
    let (mut world, request, id) = asked(&asking());
    assert_eq!(repeated(&mut world, &request), "waits");
    assert!(matches!(
        world.approve(id)[..],
        [Fact::ApprovalGiven { operator: 0, uses: 1, seconds: 300, .. }]
    ));
    assert_eq!(repeated(&mut world, &request), "started");
    assert_eq!(repeated(&mut world, &request), "asked");
}

#[test]
fn an_application_may_want_a_word_that_the_policy_does_not() {
    let mut world = World::new(&Rules::none());
    let free = world.request("drop", "0");
    let wanted = ActionRequest { needs_approval: true, ..free.clone() };
    let id = world.wish(&wanted);
    assert_eq!(repeated(&mut world, &wanted), "waits");
    assert!(matches!(world.approve(id)[..], [Fact::ApprovalGiven { uses: 1, seconds: 300, .. }]));
    assert_eq!(repeated(&mut world, &wanted), "started");
    assert_eq!(repeated(&mut world, &wanted), "asked");
    assert_eq!(repeated(&mut world, &free), "started");
}

#[test]
fn what_waits_for_a_human_reserves_nothing_and_takes_no_rate_slot() {
    let (world, ..) = asked(&asking().session_budget("1").rate("send_money", 1, seconds(60)));
    assert_eq!(world.spent(), ("0".to_owned(), "0".to_owned()));
    assert_eq!(world.totals().in_flight, 0);
}

#[test]
fn what_is_denied_anyway_is_no_humans_business() {
    for rules in [asking().denied("send_money"), asking().session_budget("0.4"), asking().allowed(&["other"])]
    {
        let mut world = World::new(&rules);
        assert!(world.begin("send_money", "0.5").is_err());
    }
}

#[test]
fn an_approved_action_still_has_to_pass_all_rules() {
    let (mut world, request, id) = asked(&asking().session_budget("1"));
    world.approve(id);
    world.call("other", "0.8").unwrap();
    assert_eq!(repeated(&mut world, &request), "denied");
}

#[test]
fn an_approval_is_for_that_action_with_those_arguments_and_no_other() {
    let (mut world, request, id) = asked(&asking());
    world.approve(id);
    let differ: [fn(&mut ActionRequest); 5] = [
        |request| request.inputs = Payload::of("another").unwrap(),
        |request| request.cost = usd("0.6"),
        |request| request.cost = usd("0.4"),
        |request| request.tags.push(Tag::new("x").unwrap()),
        |request| request.risk = Some(RiskLevel::new("low").unwrap()),
    ];
    for change in differ {
        let mut other = again(&mut world, &request);
        change(&mut other);
        assert!(matches!(world.step(Event::Begin(Box::new(other)))[..], [Fact::ApprovalRequested { .. }]));
    }
    assert_eq!(repeated(&mut world, &request), "started", "and the one that was approved still may");
}

#[test]
fn another_session_has_to_ask_for_itself() {
    let (mut world, request, id) = asked(&asking());
    world.approve(id);
    let other = sentinel_proto::SessionId(2);
    world.start_session(other, None, &asking());
    let request = ActionRequest { session: other, ..again(&mut world, &request) };
    assert!(matches!(world.step(Event::Begin(Box::new(request)))[..], [Fact::ApprovalRequested { .. }]));
}

#[test]
fn a_rejection_closes_the_approval_and_is_told_with_its_note() {
    let (mut world, request, id) = asked(&asking());
    let note = Some("not today".to_owned());
    let facts = world.step(Event::Reject { approval_id: id, operator: root(), note: note.clone() });
    let closing = Closing::Rejected { operator: 0, note };
    assert!(matches!(&facts[..], [Fact::ApprovalClosed { closing: how, .. }] if *how == closing));
    assert!(world.approve(id).is_empty(), "what was rejected can't be approved");
    assert_eq!(repeated(&mut world, &request), "asked");
}

#[test]
fn nobody_in_time_means_no() {
    let (mut world, _request, id) = asked(&asking());
    world.wait(seconds(299));
    assert!(world.step(Event::Tick).is_empty());
    world.wait(seconds(1));
    assert!(world.approve(id).is_empty(), "too late, though not yet told");
    let facts = world.step(Event::Tick);
    let expired = Closing::Expired { timeout_seconds: 300 };
    assert!(matches!(&facts[..], [Fact::ApprovalClosed { closing, .. }] if *closing == expired));
    assert!(world.state.approval(id).is_none());
}

#[test]
fn what_was_approved_and_not_used_in_time_is_void() {
    let (mut world, request, id) = asked(&asking());
    world.step(Event::Approve {
        approval_id: id,
        operator: root(),
        note: None,
        uses: Some(5),
        seconds: Some(60),
        up_to: None,
    });
    world.wait(seconds(59));
    assert_eq!(repeated(&mut world, &request), "started");
    world.wait(seconds(1));
    assert_eq!(repeated(&mut world, &request), "asked");
}

#[test]
fn an_approval_for_several_uses_or_a_sum_ends_with_these() {
    for (uses, up_to, expected) in [(2, None, 2), (9, Some(usd("1.2")), 2), (9, Some(usd("0.4")), 0)] {
        let (mut world, request, id) = asked(&asking());
        let operator = root();
        world.step(Event::Approve {
            approval_id: id,
            operator,
            note: None,
            uses: Some(uses),
            seconds: None,
            up_to,
        });
        let started = (0..9).filter(|_| repeated(&mut world, &request) == "started").count();
        assert_eq!(started, expected, "{uses} uses up to {up_to:?}");
    }
}

#[test]
fn an_action_that_never_ran_gives_its_approval_back() {
    let (mut world, request, id) = asked(&asking());
    world.approve(id);
    let before = world.state.clone();
    let request = again(&mut world, &request);
    let action_id: ActionId = world.ask(request.clone()).unwrap();
    assert_eq!(world.state.approvals().count(), 0, "it is used");
    world.abort(action_id);
    assert_eq!(world.state, before);
    let request = again(&mut world, &request);
    let action_id = world.ask(request).unwrap();
    world.end(action_id, Outcome::Error, None);
    assert!(world.state.approval(id).is_none(), "one that ran and failed doesn't");
}

#[test]
fn a_change_of_the_policy_voids_what_was_approved_and_what_waits() {
    let (mut world, request, id) = asked(&asking());
    world.approve(id);
    let change =
        Event::PolicyChange { session: SESSION, policy: "test".to_owned(), policy_sha256: "01".to_owned() };
    let facts = world.step(change);
    assert!(matches!(&facts[..], [Fact::PolicyChanged { generation: 2, .. }, Fact::ApprovalClosed { .. }]));
    assert_eq!(repeated(&mut world, &request), "asked");
}

#[test]
fn only_who_is_named_approves_and_an_unknown_role_is_nobody() {
    let finance = [Approver::User("alice".to_owned()), Approver::Group("finance".to_owned())];
    let who = |uid, user: &str, groups: &[&str]| Operator {
        uid,
        user: Some(user.to_owned()),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    for (operator, may) in [
        (who(1001, "alice", &[]), true),
        (who(1002, "bob", &["users", "finance"]), true),
        (who(1003, "finance", &["alice"]), false),
        (who(0, "root", &["root"]), false),
        (Operator { uid: 7, user: None, groups: Vec::new() }, false),
    ] {
        let (mut world, _request, id) = asked(&asking().approvers(&finance));
        let event = Event::Approve {
            approval_id: id,
            operator: operator.clone(),
            note: None,
            uses: None,
            seconds: None,
            up_to: None,
        };
        assert_eq!(!world.step(event).is_empty(), may, "{operator:?}");
    }
}

#[test]
fn where_nobody_may_approve_the_action_is_denied_at_once() {
    let mut world = World::new(&asking().approvers(&[]));
    assert_eq!(world.begin("send_money", "0").unwrap_err().reason, Reason::NoApprover);
}

#[test]
fn each_criterion_asks_a_human_and_without_any_all_actions_do() {
    let asks = |rules: &Rules, change: &dyn Fn(&mut ActionRequest)| {
        let mut world = World::new(rules);
        let mut request = world.request("send_money", "0.5");
        change(&mut request);
        matches!(world.step(Event::Begin(Box::new(request)))[..], [Fact::ApprovalRequested { .. }])
    };
    let plain = |_: &mut ActionRequest| {};
    let tagged = |request: &mut ActionRequest| request.tags.push(Tag::new("production").unwrap());
    let risky = |request: &mut ActionRequest| request.risk = Some(RiskLevel::new("HIGH").unwrap());
    let all = Rules::none().approvals();
    assert!(asks(&all, &plain));
    assert!(asks(&all.clone().approve_action("send_money"), &plain));
    assert!(!asks(&all.clone().approve_action("other"), &plain));
    let by_tag = all.clone().approve_tag("production");
    assert!(asks(&by_tag, &tagged) && !asks(&by_tag, &plain));
    let by_risk = all.clone().approve_risk("high");
    assert!(asks(&by_risk, &risky) && !asks(&by_risk, &plain));
    assert!(asks(&by_risk.clone().risk("send_money", "High"), &plain), "the policy's word counts too");
    assert!(asks(&all.clone().approve_from("0.5"), &plain), "from this cost on");
    assert!(!asks(&all.approve_from("0.51"), &plain));
    assert!(!asks(&Rules::none(), &plain));
}

#[test]
fn an_application_cancels_its_own_sessions_wishes_only() {
    let (mut world, request, id) = asked(&asking());
    let foreign = Event::CancelApproval { approval_id: id, session: sentinel_proto::SessionId(9) };
    assert!(world.step(foreign).is_empty());
    let own = Event::CancelApproval { approval_id: id, session: SESSION };
    assert!(matches!(
        &world.step(own)[..],
        [Fact::ApprovalClosed { closing: Closing::Cancelled { .. }, .. }]
    ));
    assert_eq!(repeated(&mut world, &request), "asked");
}

#[test]
fn what_waits_goes_with_a_session_without_a_name_and_stays_for_one_with() {
    let (mut world, _request, id) = asked(&asking());
    assert!(matches!(
        &world.end_session(SESSION)[..],
        [Fact::ApprovalClosed { .. }, Fact::SessionEnded { .. }]
    ));
    assert!(world.state.approval(id).is_none());

    let mut world = World::new(&Rules::none());
    let daily = sentinel_proto::SessionId(2);
    world.start_session(daily, Some("daily"), &asking());
    let request = ActionRequest { session: daily, ..world.request("send_money", "0.5") };
    let id = world.wish(&request);
    world.end_session(daily);
    world.start_session(daily, Some("daily"), &asking());
    assert!(matches!(world.step(approval(id))[..], [Fact::ApprovalGiven { .. }]));
    let request = again(&mut world, &request);
    assert!(matches!(world.step(Event::Begin(Box::new(request)))[..], [Fact::ActionStarted { .. }]));
}

#[test]
fn a_session_that_asks_for_too_much_is_denied() {
    let mut world = World::new(&asking());
    for number in 0..sentinel_engine::MAX_APPROVALS {
        let request =
            ActionRequest { inputs: Payload::of(&number).unwrap(), ..world.request("send_money", "0.5") };
        world.wish(&request);
    }
    let denial = world.begin("send_money", "0.5").unwrap_err();
    assert!(matches!(denial.reason, Reason::QuotaExceeded { .. }));
}

#[test]
fn a_permit_tells_what_is_left_of_it() {
    let (mut world, request, id) = asked(&asking());
    let operator = root();
    let up_to = Some(usd("1.2"));
    world.step(Event::Approve { approval_id: id, operator, note: None, uses: Some(3), seconds: None, up_to });
    assert_eq!(repeated(&mut world, &request), "started");
    let permit = world.state.approval(id).unwrap().permit.clone();
    assert_eq!(permit, Some(Permit { uses_left: 2, left: Some(usd("0.7")) }));
}
