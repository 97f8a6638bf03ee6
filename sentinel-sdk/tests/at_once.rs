//! What is decided without waiting: where nobody else has the turn, and nobody else decides.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sentinel_ledger::{Member, Turns};
use sentinel_sdk::embedded::{Embedded, EmbeddedPolicy};
use sentinel_sdk::{Client, Ending, Settlement};

struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("sentinel-at-once-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        Self(folder)
    }

    fn client(&self, policy: &str) -> Client {
        let embedded = Embedded::new(&self.0);
        embedded.set_policy(EmbeddedPolicy::parse("policy", policy).unwrap());
        let client = Client::embedded(embedded);
        // The first decision joins those that share the ledger.
        assert!(client.action("first").begin_at_once().is_none());
        client.totals_blocking().unwrap();
        client
    }

    fn outcomes(&self, action: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join("ledger.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let of_action = lines.filter(|line| line["action"] == action);
        of_action.map(|line| line["outcome"].as_str().unwrap().to_owned()).collect()
    }

    /// Another member has the turn while this runs.
    fn while_another_has_the_turn(&self, then: impl FnOnce()) {
        let turns = Turns::join(Path::new(&self.0.join("ledger.lock")), Member::new(7)).unwrap();
        let turn = turns.take().unwrap();
        then();
        drop(turn);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn an_action_is_let_start_and_its_lines_are_written_before_either_call_returns() {
    let home = Home::new("written");
    let client = home.client("budgets: {session: 1.0}\n");
    let guard = client.action("call").cost_usd(0.5).begin_at_once().unwrap().unwrap();
    assert_eq!(home.outcomes("call"), ["started"]);
    assert_eq!(guard.end_at_once(Ending::Success, "1").unwrap(), Settlement::Acknowledged);
    assert_eq!(home.outcomes("call"), ["started", "success"]);
}

#[test]
fn what_the_policy_denies_is_denied_and_recorded() {
    let home = Home::new("denied");
    let client = home.client("denied_actions: [forbidden]\n");
    let error = client.action("forbidden").begin_at_once().unwrap().unwrap_err();
    assert_eq!(error.reason_code(), Some("DENIED_ACTION"));
    assert_eq!(home.outcomes("forbidden"), ["blocked"]);
}

#[test]
fn while_another_process_has_the_turn_nothing_begins_and_nothing_ends() {
    let home = Home::new("turn");
    let client = home.client("budgets: {session: 1.0}\n");
    let guard = client.action("call").begin_at_once().unwrap().unwrap();
    let mut held = Some(guard);
    home.while_another_has_the_turn(|| {
        assert!(client.action("other").begin_at_once().is_none());
        held = held.take().unwrap().end_at_once(Ending::Success, "1").err();
        assert!(held.is_some(), "it goes on");
    });
    assert_eq!((home.outcomes("other"), home.outcomes("call")), (Vec::new(), vec!["started".to_owned()]));
    held.unwrap().end_with_json(Ending::Success, "1");
    assert_eq!(home.outcomes("call"), ["started", "success"]);
}

#[test]
fn an_action_that_waits_for_a_human_is_denied_where_nobody_is_waited_for_and_else_left_to_who_waits() {
    let home = Home::new("human");
    let client = home.client("approvals: {actions: [call]}\n");
    assert!(client.action("call").begin_at_once().is_none());
    let unwaited = client.action("call").wait_for_approval(Duration::ZERO).begin_at_once();
    assert_eq!(unwaited.unwrap().unwrap_err().reason_code(), Some("APPROVAL_NEEDED"));
}

#[test]
fn a_policy_that_failed_lets_nothing_start_at_once_either() {
    let home = Home::new("failed");
    let client = home.client("budgets: {session: 1.0}\n");
    client.as_embedded().unwrap().set_policy(EmbeddedPolicy::Failed("it is broken".to_owned()));
    assert!(client.action("call").begin_at_once().is_none());
    assert!(client.action("call").begin_blocking().is_err());
    let refused = client.action("call").begin_at_once().unwrap().unwrap_err();
    assert!(refused.to_string().contains("it is broken"), "{refused}");
    let ledger = std::fs::read_to_string(client.socket()).unwrap();
    let blocked = |line: &&str| line.contains(r#""outcome":"blocked""#) && line.contains("it is broken");
    assert_eq!(ledger.lines().filter(blocked).count(), 2, "{ledger}");
    client.as_embedded().unwrap().set_policy(EmbeddedPolicy::Unconfigured);
    client.action("call").begin_blocking().unwrap().cancel();
}

#[test]
fn where_a_host_agent_decides_it_is_waited_for() {
    let client = Client::new("/no/such/agent.sock");
    assert!(client.action("call").begin_at_once().is_none());
}
