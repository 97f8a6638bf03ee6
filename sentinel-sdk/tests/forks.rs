//! Processes that fork: a child speaks for itself, on connections of its own, and never for its parent.

mod agent;

use std::collections::HashSet;

use agent::{Agent, block_on, fresh_path, of_process};
use sentinel_proto::Outcome;
use sentinel_proto::app::Request;
use sentinel_sdk::{Client, Error, Settlement, guarded_action};

/// Runs this in a forked child, which exits without running anything of the test's; says whether all was well there.
fn in_child(inner: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child calls nothing that needs a lock of another thread: that is what is tested.
    match unsafe { libc::fork() } {
        0 => {
            let is_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(inner)).unwrap_or(false);
            // SAFETY: it ends the child at once.
            unsafe { libc::_exit(i32::from(!is_well)) }
        }
        child => {
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: `status` lives through the call.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

#[test]
fn a_child_dials_anew_and_its_parents_connection_stays_its_parents() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    client.action("before").begin_blocking().unwrap().cancel();
    assert!(in_child(|| {
        let guard = client.action("door_child").begin_blocking().unwrap();
        guard.success(&()) == Settlement::Acknowledged
    }));
    client.action("after").begin_blocking().unwrap().cancel();
    agent.end("after");

    let of = |name: &str| {
        let seen = agent.seen().into_iter();
        let mut begins = seen
            .filter(|seen| matches!(&seen.request, Request::Begin(begin) if begin.action.as_str() == name));
        let begin = begins.next().unwrap();
        (begin.connection, begin.pid)
    };
    assert_eq!(of("before"), of("after"));
    assert_ne!(of("before").0, of("door_child").0);
    assert_ne!(of("before").1, of("door_child").1);
}

#[test]
fn a_guard_that_a_child_inherits_says_nothing_there() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    let mut guard = Some(client.action("door").begin_blocking().unwrap());
    assert!(in_child(|| guard.take().unwrap().success(&()) == Settlement::Unknown));
    assert!(in_child(|| {
        drop(guard.take());
        true
    }));
    assert!(agent.ends("door").is_empty());
    assert_eq!(guard.unwrap().success(&()), Settlement::Acknowledged);
    assert_eq!(agent.end("door").outcome, Outcome::Success);
}

#[test]
fn an_async_guard_that_a_child_inherits_says_nothing_there() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    block_on(async {
        let mut guard = Some(client.action("door").begin().await.unwrap());
        assert!(in_child(|| {
            drop(guard.take());
            true
        }));
        assert!(agent.ends("door").is_empty());
        assert_eq!(guard.unwrap().success(&()).await, Settlement::Acknowledged);
    });
    assert_eq!(agent.end("door").outcome, Outcome::Success);
}

#[guarded_action(cost_usd = 0.01)]
fn door_guarded() -> Result<u32, Error> {
    Ok(std::process::id())
}

#[guarded_action]
async fn denied_guarded() -> Result<(), Error> {
    std::process::abort()
}

#[test]
fn guarded_functions_ask_for_the_child_that_calls_them() {
    let agent = of_process();
    door_guarded().unwrap();
    // Two generations, the second of which is a runtime's too.
    assert!(in_child(|| {
        door_guarded().unwrap() == std::process::id()
            && in_child(|| {
                door_guarded().unwrap() == std::process::id()
                    && block_on(denied_guarded()).unwrap_err().is_denied()
            })
    }));
    let asked: HashSet<(u64, i32)> = agent
        .seen()
        .iter()
        .filter(
            |seen| matches!(&seen.request, Request::Begin(begin) if begin.action.as_str() == "door_guarded"),
        )
        .map(|seen| (seen.connection, seen.pid))
        .collect();
    assert_eq!(asked.len(), 3, "each on a connection of its own: {asked:?}");
}

#[test]
fn a_child_has_the_client_of_its_parent() {
    of_process();
    assert!(in_child(|| {
        let is_refused = Client::new(fresh_path()).use_for_process().is_err();
        is_refused && sentinel_sdk::action("door_heir").begin_blocking().is_ok()
    }));
}

#[test]
fn a_child_that_is_forked_while_other_threads_ask_is_served_too() {
    let agent = Agent::start();
    let client = Client::new(agent.path());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.action("busy").begin_blocking().unwrap().cancel();
                }
            });
        }
        let all_well = (0..40).all(|_| in_child(|| client.action("door_child").begin_blocking().is_ok()));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(all_well);
    });
}
