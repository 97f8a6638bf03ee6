//! Async callers: several runtimes, many tasks, and futures that are dropped half way.

mod agent;

use std::time::Duration;

use agent::Agent;
use sentinel_proto::Outcome;
use sentinel_proto::app::Request;
use sentinel_sdk::{Client, Settlement};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn until_begun(agent: &Agent, action: &str) {
    while agent.begins(action).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn an_async_guard_says_how_the_action_ended() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async {
        let begin = async |name: &str| client.action(name).begin().await.unwrap();
        assert_eq!(begin("door").await.success(&7).await, Settlement::Acknowledged);
        assert_eq!(begin("plain").await.success(&7).await, Settlement::Sent);
        begin("fails").await.error("no such page").await;
        begin("given_up").await.cancel().await;
        let error = client.action("denied").begin().await.unwrap_err();
        assert!(error.is_denied());
        assert_eq!(client.totals().await.unwrap().session_usd.to_string(), "1.25");
    });
    assert_eq!(agent.end("door").outputs.as_json(), "7");
    assert_eq!(agent.end("fails").outcome, Outcome::Error);
    assert_eq!(agent.end("given_up").outcome, Outcome::Cancelled);
}

#[test]
fn a_future_that_is_dropped_while_its_action_is_in_flight_ends_it() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    for action in ["door", "plain"] {
        let is_in_flight = std::cell::Cell::new(false);
        let work = async {
            let _guard = client.action(action).begin().await.unwrap();
            is_in_flight.set(true);
            std::future::pending::<()>().await;
        };
        let runtime = runtime();
        runtime.block_on(async {
            tokio::select! {
                () = work => unreachable!("it never ends"),
                () = async { while !is_in_flight.get() { tokio::task::yield_now().await } } => {}
            }
        });
        if action == "door" {
            // Not waited for: the doors were shut when the future was gone.
            assert_eq!(agent.ends(action).len(), 1);
        }
        assert_eq!(agent.end(action).outcome, Outcome::Cancelled);
    }
}

#[test]
fn a_future_that_is_dropped_while_it_waits_for_the_answer_takes_back_what_was_allowed() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async {
        tokio::select! {
            _ = client.action("late").begin() => unreachable!("it is answered after 20 ms"),
            () = until_begun(&agent, "late") => {}
        }
        assert_eq!(agent.end("late").outcome, Outcome::Cancelled);
        // The connection is as good as before.
        client.action("next").begin().await.unwrap().cancel().await;
    });
    assert_eq!(agent.accepted(), 1);
}

#[test]
fn what_was_asked_but_is_never_answered_costs_the_connection() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async {
        tokio::select! {
            _ = client.action("silent").begin() => unreachable!("it is never answered"),
            () = until_begun(&agent, "silent") => {}
        }
    });
    agent.wait_until_closed(1);
}

#[test]
fn a_future_that_is_dropped_while_a_human_is_asked_leaves_the_wish_and_starts_nothing() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    let is_awaited = || agent.seen().iter().any(|seen| matches!(seen.request, Request::AwaitApproval(_)));
    runtime().block_on(async {
        tokio::select! {
            _ = client.action("ask-never").begin() => unreachable!("nobody speaks"),
            () = async { while !is_awaited() { tokio::task::yield_now().await } } => {}
        }
        // Its connection, on which nobody waits any more, is over; the other is as good as before.
        agent.wait_until_closed(1);
        client.action("next").begin().await.unwrap().cancel().await;
    });
    assert_eq!(agent.begins("ask-never").len(), 1);
    assert!(!agent.seen().iter().any(|seen| matches!(seen.request, Request::CancelApproval(_))));
    assert_eq!(agent.accepted(), 2);
}

#[test]
fn an_end_whose_future_is_dropped_half_way_stays_what_it_is() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async {
        let guard = client.action("door-mute").begin().await.unwrap();
        tokio::select! {
            _ = guard.success(&7) => unreachable!("it is never answered"),
            () = async { while agent.ends("door-mute").is_empty() { tokio::task::yield_now().await } } => {}
        }
    });
    for end in agent.ends("door-mute") {
        assert_eq!((end.outcome, end.outputs.as_json()), (Outcome::Success, "7"));
    }
}

#[test]
fn an_end_whose_future_is_never_polled_is_none() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async { drop(client.action("door").begin().await.unwrap().success(&7)) });
    assert_eq!(agent.end("door").outcome, Outcome::Cancelled);
}

#[test]
fn a_task_that_is_aborted_ends_its_action() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let _guard = client.action("door").begin().await.unwrap();
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        has_begun.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    });
    assert_eq!(agent.end("door").outcome, Outcome::Cancelled);
}

#[test]
fn a_runtime_that_is_shut_down_ends_the_actions_of_its_tasks() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    for runtime in [runtime(), Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()] {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let client = client.clone();
        runtime.spawn(async move {
            let _guard = client.action("door").begin().await.unwrap();
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        runtime.block_on(has_begun).unwrap();
        drop(runtime);
    }
    assert_eq!(agent.ends("door").iter().map(|end| end.outcome).collect::<Vec<_>>(), [Outcome::Cancelled; 2]);
}

#[test]
fn an_async_guard_may_end_where_there_is_no_runtime() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    let begin = || runtime().block_on(client.action("door").begin()).unwrap();
    let guard = begin();
    let end = std::pin::pin!(guard.success(&()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(end.poll(&mut context), std::task::Poll::Ready(Settlement::Acknowledged));
    drop(begin());
    let outcomes: Vec<Outcome> = agent.ends("door").iter().map(|end| end.outcome).collect();
    assert_eq!(outcomes, [Outcome::Success, Outcome::Cancelled]);
}

#[test]
fn a_task_that_panics_counts_as_panicked() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async {
        let work = async move {
            let _guard = client.action("door").begin().await.unwrap();
            panic!("as told");
        };
        assert!(tokio::spawn(work).await.unwrap_err().is_panic());
    });
    assert_eq!(agent.end("door").outcome, Outcome::Panicked);
}

#[test]
fn a_request_that_waits_too_long_denies() {
    let agent = Agent::start();
    let client = Client::new(agent.path()).with_deadline(Duration::from_millis(50));
    let error = runtime().block_on(client.action("silent").begin()).unwrap_err();
    assert_eq!(error.reason_code(), Some("AGENT_UNAVAILABLE"));
}

#[test]
fn runtimes_come_and_go_and_threads_beside_them_and_all_share_a_client() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = &client;
            scope.spawn(move || {
                for _ in 0..5 {
                    if thread == 3 {
                        client.action("door").begin_blocking().unwrap().success(&());
                        continue;
                    }
                    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
                    runtime.block_on(async {
                        let tasks: Vec<_> = (0..20)
                            .map(|_| {
                                let client = client.clone();
                                tokio::spawn(async move {
                                    let guard = client.action("door").begin().await.unwrap();
                                    assert_eq!(guard.success(&()).await, Settlement::Acknowledged);
                                })
                            })
                            .collect();
                        for task in tasks {
                            task.await.unwrap();
                        }
                    });
                }
            });
        }
    });
    assert_eq!(agent.ends("door").len(), 3 * 5 * 20 + 5);
    assert!(agent.accepted() <= 8);
}

#[test]
fn blocking_calls_work_inside_a_task_too() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async {
        // Far beyond what a task may do before tokio makes it yield.
        for _ in 0..500 {
            client.action("door").begin_blocking().unwrap().success(&());
        }
    });
}

#[test]
fn a_blocking_call_does_not_wait_for_tasks_that_its_own_thread_has_to_run() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    runtime().block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.action("late").begin().await.unwrap().cancel().await })
            })
            .collect();
        until_begun(&agent, "late").await;
        client.action("door").begin_blocking().unwrap().success(&());
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn an_executor_that_is_not_tokios_is_served_too() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    let begin = std::pin::pin!(client.action("door").begin());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(guard) = begin.poll(&mut context) else { panic!("it waits in its thread") };
    drop(guard.unwrap());
    assert_eq!(agent.end("door").outcome, Outcome::Cancelled);
}
