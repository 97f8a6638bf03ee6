//! Agents that go away and come back: nothing runs meanwhile, and everything afterwards.

mod agent;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use agent::{Agent, block_on, fresh_path};
use sentinel_proto::Outcome;
use sentinel_proto::app::{End, Request};
use sentinel_sdk::{Client, Error, Settlement, guarded_action};

/// The `end`s that an agent was told which knows none of the actions.
fn ends(agent: &Agent) -> Vec<End> {
    let ends = agent.seen().into_iter().filter_map(|seen| match seen.request {
        Request::End(end) => Some(end),
        _ => None,
    });
    ends.collect()
}

/// Ends this agent, and starts another in its place.
fn restarted(agent: Agent) -> Agent {
    let path: PathBuf = agent.path().to_owned();
    drop(agent);
    Agent::start_at(path)
}

static RAN: AtomicU64 = AtomicU64::new(0);

#[guarded_action]
fn work() -> Result<(), Error> {
    RAN.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[guarded_action]
async fn work_async() -> Result<(), Error> {
    RAN.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[test]
fn a_guarded_function_runs_before_an_agents_absence_and_after_it_but_not_meanwhile() {
    let path = fresh_path();
    Client::new(&path).use_for_process().unwrap();
    for round in 0..3 {
        assert_eq!(work().unwrap_err().reason_code(), Some("AGENT_UNAVAILABLE"));
        assert_eq!(block_on(work_async()).unwrap_err().reason_code(), Some("AGENT_UNAVAILABLE"));
        assert_eq!(RAN.load(Ordering::SeqCst), 2 * round);
        let agent = Agent::start_at(path.clone());
        work().unwrap();
        block_on(work_async()).unwrap();
        assert_eq!(RAN.load(Ordering::SeqCst), 2 * round + 2);
        drop(agent);
    }
}

#[test]
fn a_restart_between_two_actions_is_not_noticed_however_many_connections_were_at_rest() {
    let first = Agent::start();
    let client = Client::new(first.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client.action("late").begin_blocking().unwrap().cancel());
        }
    });
    let second = restarted(first);
    client.action("next").begin_blocking().unwrap().cancel();
    let third = restarted(second);
    block_on(async { client.action("next").begin().await.unwrap().cancel().await });
    assert_eq!(third.begins("next").len(), 1);
}

#[test]
fn how_an_action_ended_is_told_to_the_agent_that_came_meanwhile() {
    for name in ["door", "plain"] {
        let first = Agent::start();
        let client = Client::new(first.path());
        let guard = client.action(name).begin_blocking().unwrap();
        let id = guard.id();
        let second = restarted(first);
        assert_eq!(
            guard.success(&7),
            Settlement::TooLate,
            "this one doesn't correct what its predecessor charged"
        );
        let ends = ends(&second);
        assert_eq!(ends.len(), 1, "{ends:?}");
        assert_eq!(
            (ends[0].action_id, ends[0].outcome, ends[0].outputs.as_json()),
            (id, Outcome::Success, "7")
        );
    }
}

#[test]
fn how_an_async_action_ended_is_told_to_the_agent_that_came_meanwhile() {
    for name in ["door", "plain"] {
        let first = Agent::start();
        let client = Client::new(first.path());
        block_on(async {
            let guard = client.action(name).begin().await.unwrap();
            let second = restarted(first);
            assert_eq!(guard.error("no such page").await, Settlement::TooLate);
            assert_eq!(ends(&second)[0].outcome, Outcome::Error);
        });
    }
}

#[test]
fn an_action_ends_also_where_no_agent_comes_back() {
    let ended = |name: &str, is_dropped: bool| {
        let agent = Agent::start();
        let client = Client::new(agent.path());
        let guard = client.action(name).begin_blocking().unwrap();
        drop(agent);
        if is_dropped {
            drop(guard);
        } else {
            assert_eq!(guard.success(&()), Settlement::Unknown);
        }
        // Nothing of it is left that could let the next one run.
        assert_eq!(
            client.action(name).begin_blocking().unwrap_err().reason_code(),
            Some("AGENT_UNAVAILABLE")
        );
    };
    for name in ["door", "plain"] {
        ended(name, true);
        ended(name, false);
    }
}

#[test]
fn a_wish_that_a_new_agent_knows_nothing_of_is_asked_for_again() {
    let first = Agent::start();
    let client = Client::new(first.path());
    let is_awaited =
        |agent: &Agent| agent.seen().iter().any(|seen| matches!(seen.request, Request::AwaitApproval(_)));
    let second = block_on(async {
        tokio::select! {
            _ = client.action("ask-never").begin() => unreachable!("nobody speaks"),
            second = async {
                while !is_awaited(&first) { tokio::task::yield_now().await }
                let second = restarted(first);
                while second.begins("ask-never").is_empty() { tokio::task::yield_now().await }
                second
            } => second,
        }
    });
    assert_eq!(second.begins("ask-never").len(), 1);
}
