//! A client and the agent: what is asked, what an answer comes to, and what becomes of everything that is none.

mod agent;

use std::time::{Duration, Instant};

use agent::{Agent, fresh_path};
use sentinel_proto::app::Request;
use sentinel_proto::{Money, Outcome, VERSION};
use sentinel_sdk::{Client, Reason, Settlement};

fn client(agent: &Agent) -> Client {
    Client::new(agent.path())
}

fn usd(text: &str) -> Money {
    Money::from_decimal(text).unwrap()
}

#[test]
fn an_action_that_may_run_carries_what_was_declared_and_ends_with_its_outputs() {
    let agent = Agent::start();
    let action = client(&agent).action("search").cost_usd(0.01).tag("web").tag("slow").inputs(&["ferris"]);
    let mut guard = action.begin_blocking().unwrap();
    guard.actual_cost_usd(0.002).unwrap();
    assert_eq!(guard.success(&[1, 2]), Settlement::Sent);

    let begin = agent.begins("search").remove(0);
    assert_eq!(begin.cost_usd, usd("0.01"));
    assert_eq!(begin.tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web", "slow"]);
    assert_eq!(begin.inputs.as_json(), "[\"ferris\"]");
    let end = agent.end("search");
    assert_eq!(
        (end.outcome, end.cost_usd, end.outputs.as_json()),
        (Outcome::Success, Some(usd("0.002")), "[1,2]")
    );
}

#[test]
fn the_end_is_waited_for_where_there_were_doors_and_only_there() {
    let agent = Agent::start();
    let client = client(&agent);
    assert_eq!(client.action("door").begin_blocking().unwrap().success(&()), Settlement::Acknowledged);
    assert_eq!(client.action("plain").begin_blocking().unwrap().success(&()), Settlement::Sent);
    assert!(agent.end("door").request.is_some());
    assert!(agent.end("plain").request.is_none());
}

#[test]
fn a_guard_says_how_the_action_ended() {
    let agent = Agent::start();
    let client = client(&agent);
    let begin = |name: &str| client.action(name).begin_blocking().unwrap();
    begin("fails").error("no such page");
    begin("given_up").cancel();
    drop(begin("dropped"));
    drop(begin("door_dropped"));
    let panic = std::panic::catch_unwind(|| {
        let _guard = begin("panics");
        panic!("as told");
    });
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"as told"));

    assert_eq!(agent.end("fails").outcome, Outcome::Error);
    assert_eq!(agent.end("fails").outputs.as_json(), "\"no such page\"");
    assert_eq!(agent.end("given_up").outcome, Outcome::Cancelled);
    assert_eq!(agent.end("dropped").outcome, Outcome::Cancelled);
    assert!(agent.end("door_dropped").request.is_some(), "its doors are shut when the drop returns");
    assert_eq!(agent.end("panics").outcome, Outcome::Panicked);
}

#[test]
fn a_denial_says_what_why_and_the_way_out() {
    let agent = Agent::start();
    let error = client(&agent).action("denied").begin_blocking().unwrap_err();
    assert!(error.is_denied());
    assert_eq!((error.action(), error.reason_code()), (Some("denied"), Some("BUDGET_EXCEEDED")));
    assert_eq!(error.denial().unwrap().rule.as_ref().unwrap().line, 3);
    assert_eq!(
        error.to_string(),
        "action `denied` denied: session budget exceeded: 1.5 > 1 USD (`budgets.session`, line 3 of the policy); \
         it would bring the session to 1.5 of 1 dollars; use a cheaper action, or ask for a larger `budgets.session`"
    );
    assert!(error.to_string().ends_with(&error.way_out()));
    assert_eq!(error.kernel_denials(), [agent::kernel_denial()]);
}

/// The reason of a denied `begin`, and its text.
fn denied(client: &Client, action: &str) -> String {
    let error = client.action(action).begin_blocking().unwrap_err();
    assert!(error.is_denied());
    assert!(matches!(error.denial().unwrap().reason, Reason::AgentUnavailable { .. }), "{error}");
    error.to_string()
}

#[test]
fn without_an_agent_every_action_is_denied() {
    let text = denied(&Client::new(fresh_path()), "search");
    assert!(text.contains("sentinel-sdk-test") && text.contains("sentinel run"), "{text}");
}

#[test]
fn whatever_is_no_answer_denies_and_the_next_request_finds_the_agent_again() {
    let agent = Agent::start();
    let client = client(&agent).with_deadline(Duration::from_millis(300));
    for (action, said) in [
        ("silent", "no answer within 300ms"),
        ("garbage", "makes no sense"),
        ("hangup", "connection was lost"),
        ("nonsense", "allows, but not one action"),
        ("pending", "human"),
        ("stranger", "not here"),
    ] {
        let text = denied(&client, action);
        assert!(text.contains(said), "{action}: {text}");
        client.action("plain").begin_blocking().unwrap().cancel();
    }
}

#[test]
fn a_begin_without_an_answer_in_time_costs_its_connection_so_that_nothing_stays_open() {
    let agent = Agent::start();
    let client = client(&agent).with_deadline(Duration::from_millis(100));
    let start = Instant::now();
    denied(&client, "silent");
    assert!(start.elapsed() < Duration::from_secs(2));
    agent.wait_until_closed(1);
}

#[test]
fn another_version_of_the_protocol_denies() {
    let agent = Agent::start_as(fresh_path(), VERSION + 1, u64::MAX);
    let text = denied(&client(&agent), "search");
    assert!(text.contains("version 2"), "{text}");
}

#[test]
fn what_is_declared_wrongly_denies_without_asking() {
    let agent = Agent::start();
    let client = client(&agent);
    for (action, said) in [
        (client.action(""), "empty"),
        (client.action("a\u{1b}[2J"), "character"),
        (client.action("a").cost_usd(f64::NAN), "NaN"),
        (client.action("a").cost_usd(-1.0), "negative"),
        (client.action("a").tag(""), "of a tag"),
    ] {
        let error = action.begin_blocking().unwrap_err();
        assert!(error.is_denied() && error.reason_code() == Some("INVALID_REQUEST"), "{error}");
        let text = error.to_string();
        assert!(text.contains(said) && !text.contains('\u{1b}'), "{text:?}");
    }
    assert_eq!(agent.accepted(), 0);
    let mut guard = client.action("a").begin_blocking().unwrap();
    assert!(guard.actual_cost_usd(f64::INFINITY).is_err());
}

#[test]
fn a_connection_that_is_lost_while_an_action_is_in_flight_is_no_error_and_the_next_action_has_a_new_one() {
    let agent = Agent::start();
    let client = client(&agent);
    for action in ["door", "plain"] {
        let guard = client.action(action).begin_blocking().unwrap();
        agent.hang_up();
        // The next agent is asked, and knows nothing of it.
        assert_eq!(guard.success(&()), Settlement::TooLate, "{action}");
        client.action("next").begin_blocking().unwrap().cancel();
    }
}

#[test]
fn an_agent_that_comes_back_is_found_again() {
    let path = fresh_path();
    let first = Agent::start_at(path.clone());
    let client = client(&first);
    client.action("a").begin_blocking().unwrap().cancel();
    drop(first);
    denied(&client, "a");
    let _second = Agent::start_at(path);
    client.action("a").begin_blocking().unwrap().cancel();
}

#[test]
fn totals_are_told_and_a_run_can_be_reset() {
    let agent = Agent::start();
    let client = client(&agent);
    let totals = client.totals_blocking().unwrap();
    assert_eq!((totals.session_usd, totals.run_usd), (usd("1.25"), usd("0.25")));
    assert_eq!((totals.session_limit_usd, totals.run_limit_usd), (Some(usd("5")), None));
    assert_eq!(client.reset_run_blocking().unwrap().run_usd, usd("0"));
    let error = Client::new(fresh_path()).totals_blocking().unwrap_err();
    assert!(!error.is_denied(), "no action was denied");
    assert_eq!(error.reason_code(), Some("AGENT_UNAVAILABLE"));
}

#[test]
fn eight_threads_get_each_their_own_answers_over_a_few_connections() {
    let agent = Agent::start();
    let client = client(&agent);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for call in 0..200 {
                    let name = format!("{}{thread}.{call}", if call % 2 == 0 { "door" } else { "denied" });
                    match client.action(&name).begin_blocking() {
                        Ok(guard) => {
                            assert_eq!(call % 2, 0);
                            assert_eq!(guard.success(&()), Settlement::Acknowledged);
                        }
                        Err(error) => {
                            assert_eq!(
                                (call % 2, error.reason_code()),
                                (1, Some("BUDGET_EXCEEDED")),
                                "{error}"
                            );
                        }
                    }
                }
            });
        }
    });
    assert_eq!(agent.begins("door3.198").len(), 1);
    assert_eq!(agent.end("door3.198").outcome, Outcome::Success);
    assert!((1..=4).contains(&agent.accepted()), "{} connections", agent.accepted());
}

#[test]
fn an_agent_that_takes_no_more_connections_is_asked_over_those_there_are() {
    let agent = Agent::start_as(fresh_path(), VERSION, 1);
    let client = client(&agent);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    client.action("door").begin_blocking().unwrap().success(&());
                }
            });
        }
    });
}

#[test]
fn an_agent_that_takes_no_connection_at_all_denies() {
    let agent = Agent::start_as(fresh_path(), VERSION, 0);
    let text = denied(&client(&agent).with_deadline(Duration::from_millis(50)), "search");
    assert!(text.contains("not here"), "{text}");
}

#[test]
fn a_guard_may_end_in_another_thread_than_it_began_in() {
    let agent = Agent::start();
    let client = client(&agent);
    let guard = std::thread::scope(|scope| {
        scope.spawn(|| client.action("door").begin_blocking().unwrap()).join().unwrap()
    });
    assert_eq!(guard.success(&()), Settlement::Acknowledged);
}

#[test]
fn long_outputs_leave_a_digest() {
    let agent = Agent::start();
    client(&agent).action("long").begin_blocking().unwrap().success(&"x".repeat(1_000_000));
    let outputs: serde_json::Value = serde_json::from_str(agent.end("long").outputs.as_json()).unwrap();
    assert_eq!(outputs["bytes"], 1_000_002);
    assert_eq!(outputs["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn an_action_that_a_human_approves_is_asked_for_again_and_runs() {
    let agent = Agent::start();
    client(&agent).action("ask-yes").begin_blocking().unwrap().success(&());
    let asked: Vec<&str> = agent
        .seen()
        .iter()
        .filter_map(|seen| match &seen.request {
            Request::Begin(_) => Some("begin"),
            Request::AwaitApproval(_) => Some("await"),
            _ => None,
        })
        .collect();
    assert_eq!(asked, ["begin", "await", "begin"]);
}

#[test]
fn an_action_that_a_human_rejects_is_denied_with_the_note() {
    let agent = Agent::start();
    let text = client(&agent).action("ask-no").begin_blocking().unwrap_err().to_string();
    assert!(text.contains("an operator rejected it: not today"), "{text}");
}

#[test]
fn a_wish_that_nobody_answers_in_time_is_withdrawn() {
    let agent = Agent::start();
    let action = client(&agent).action("ask-never").wait_for_approval(Duration::from_millis(100));
    let error = action.begin_blocking().unwrap_err();
    assert_eq!(error.reason_code(), Some("APPROVAL_EXPIRED"));
    assert!(agent.seen().iter().any(|seen| matches!(seen.request, Request::CancelApproval(_))));
}

#[test]
fn who_does_not_want_to_wait_is_told_at_once_and_leaves_the_wish() {
    let agent = Agent::start();
    let error =
        client(&agent).action("ask-yes").wait_for_approval(Duration::ZERO).begin_blocking().unwrap_err();
    assert_eq!(error.reason_code(), Some("APPROVAL_NEEDED"));
    assert!(!agent.seen().iter().any(|seen| matches!(seen.request, Request::CancelApproval(_))));
}

#[test]
fn many_that_wait_for_a_human_keep_no_other_from_being_asked() {
    let agent = Agent::start();
    let client = client(&agent);
    std::thread::scope(|scope| {
        for number in 0..12 {
            let action = client.action(format!("ask-never-{number}"));
            scope.spawn(|| action.wait_for_approval(Duration::from_secs(4)).begin_blocking().unwrap_err());
        }
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        client.action("plain").begin_blocking().unwrap().cancel();
        assert!(start.elapsed() < Duration::from_secs(3), "it waited for those");
    });
}
