//! Async callers: several runtimes, many tasks, and futures that are dropped half way.

mod agent;

use std::time::Duration;

use agent::Agent;
use sentinel_proto::Outcome;
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
