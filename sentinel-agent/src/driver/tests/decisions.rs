//! Begin and end, and what happens when the ledger or the kernel side fails in between.

use sentinel_engine::GrantSet;
use sentinel_proto::app::{RefusalCode, Reply, Request};
use sentinel_proto::{Decision, Money, Outcome, Reason};

use super::{FETCHES, outcomes, reason, run};
use crate::enforcer::recording::Call;

#[test]
fn an_action_with_a_grant_is_allowed_with_its_door_open_and_its_start_written() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let answer = world.begin(&mut application, "fetch");
        assert_eq!(
            (answer.decision, answer.acknowledge_end, answer.max_seconds),
            (Decision::Allow, true, Some(60))
        );
        assert_eq!(world.enforcer.doors(world.scope()).0, FETCHES);
        assert_eq!(outcomes(&world.facts()), [Outcome::Started]);

        let ended = world.end(&mut application, answer.action_id.unwrap(), Some(8));
        assert!(matches!(ended, Some(Reply::Ended(ended)) if ended.settled && ended.request == 8));
        assert_eq!(world.enforcer.doors(world.scope()).0, GrantSet::EMPTY);
        assert_eq!(outcomes(&world.facts()), [Outcome::Started, Outcome::Success]);
        assert_eq!(world.spent(session), Money::from_decimal("0.1").unwrap());
    });
}

#[test]
fn an_action_without_a_grant_opens_nothing_and_its_end_needs_no_answer() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        let answer = world.begin(&mut application, "think");
        assert_eq!((answer.decision, answer.acknowledge_end), (Decision::Allow, false));
        assert!(world.end(&mut application, answer.action_id.unwrap(), None).is_none(), "one-way");
        assert_eq!(outcomes(&world.facts()), [Outcome::Started, Outcome::Success]);
        assert!(!world.enforcer.calls().iter().any(|call| matches!(call, Call::SetDoors { .. })));
    });
}

#[test]
fn a_denied_action_is_written_and_answered_with_its_reason() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let answer = world.begin(&mut application, "drop");
        assert_eq!((answer.decision, answer.action_id), (Decision::Deny, None));
        assert_eq!(reason(answer), Some(Reason::DeniedAction));
        assert_eq!(outcomes(&world.facts()), [Outcome::Blocked]);
        assert_eq!(world.spent(session), Money::ZERO);
    });
}

#[test]
fn whichever_kernel_call_of_a_begin_fails_the_answer_is_no_the_money_is_back_and_no_door_is_open() {
    // The first begin puts the scope in front, tells the baseline and opens the door.
    for failing in 0..3 {
        run(async |mut world| {
            let (session, _launcher, mut application) = world.session();
            let before = world.enforcer.calls().len();
            world.enforcer.fail_after(failing);
            let answer = world.begin(&mut application, "fetch");
            let calls = world.enforcer.calls();
            if calls.len() <= before + failing {
                assert_eq!(answer.decision, Decision::Allow, "call {failing} was never made");
                return;
            }
            assert_eq!(
                answer.decision,
                Decision::Deny,
                "call {failing} failed: {:?}",
                calls[before + failing]
            );
            assert!(matches!(reason(answer), Some(Reason::EnforcementFailed { .. })));
            assert_eq!(outcomes(&world.facts()), [Outcome::Started, Outcome::Aborted]);
            assert_eq!(world.spent(session), Money::ZERO);
            assert_eq!(world.enforcer.doors(world.scope()).0, GrantSet::EMPTY);

            let again = world.begin(&mut application, "fetch");
            assert_eq!(again.decision, Decision::Allow, "a failure that is over is over");
            assert_eq!(world.enforcer.doors(world.scope()).0, FETCHES);
        });
    }
}

#[test]
fn a_begin_that_cannot_be_written_is_denied_and_changes_nothing() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let before = world.enforcer.calls();
        world.ledger.fail_after(0);
        let answer = world.begin(&mut application, "fetch");
        assert!(matches!(reason(answer), Some(Reason::LedgerUnavailable { .. })));
        assert_eq!((outcomes(&world.facts()), world.spent(session)), (Vec::new(), Money::ZERO));
        assert_eq!(world.enforcer.calls(), before, "and the kernel side was told nothing");
        assert_eq!(world.begin(&mut application, "fetch").decision, Decision::Allow);
    });
}

#[test]
fn an_abort_that_cannot_be_written_leaves_no_door_open_and_no_allow_said() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        world.begin(&mut application, "think");
        world.enforcer.fail_after(0);
        world.ledger.fail_after(1);
        let answer = world.begin(&mut application, "fetch");
        assert!(matches!(reason(answer), Some(Reason::EnforcementFailed { .. })));
        assert_eq!(world.enforcer.doors(world.scope()).0, GrantSet::EMPTY);
    });
}

#[test]
fn an_end_that_cannot_be_written_shuts_the_door_all_the_same_and_says_that_it_failed() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        let answer = world.begin(&mut application, "fetch");
        world.ledger.fail_after(0);
        let ended = world.end(&mut application, answer.action_id.unwrap(), Some(9));
        assert!(
            matches!(ended, Some(Reply::Refused(refused)) if refused.code == RefusalCode::Failed && refused.request == Some(9))
        );
        assert_eq!(world.enforcer.doors(world.scope()).0, GrantSet::EMPTY);
    });
}

#[test]
fn a_session_whose_door_cannot_be_shut_is_killed() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let answer = world.begin(&mut application, "fetch");
        world.enforcer.fail_after(0);
        world.end(&mut application, answer.action_id.unwrap(), Some(9));
        let kill = world.folder.join(session.to_string()).join("cgroup.kill");
        assert_eq!(std::fs::read_to_string(kill).unwrap(), "1");
    });
}

#[test]
fn three_dimes_fit_thirty_cents_a_fourth_does_not_and_the_spent_budget_closes_the_baseline_once() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        for _ in 0..3 {
            assert!(world.enforcer.baseline_network(session));
            let answer = world.begin(&mut application, "think");
            world.end(&mut application, answer.action_id.unwrap(), None);
        }
        assert!(matches!(
            reason(world.begin(&mut application, "think")),
            Some(Reason::BudgetExceeded { .. })
        ));
        assert!(!world.enforcer.baseline_network(session));
        let told = |call: &&Call| matches!(call, Call::SetBaselineNetwork { open: false, .. });
        assert_eq!(world.enforcer.calls().iter().filter(told).count(), 1, "what is known is not told again");
    });
}

#[test]
fn an_end_of_a_foreign_or_unknown_action_settles_nothing() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        let unknown = sentinel_proto::ActionId(uuid::Uuid::new_v4());
        let ended = world.end(&mut application, unknown, Some(5));
        assert!(matches!(ended, Some(Reply::Ended(ended)) if !ended.settled));

        let answer = world.begin(&mut application, "fetch");
        world.enforcer.forget_mark(std::process::id());
        let (_other, _its_launcher, mut stranger) = world.session();
        let ended = world.end(&mut stranger, answer.action_id.unwrap(), Some(5));
        assert!(matches!(ended, Some(Reply::Ended(ended)) if !ended.settled));
        assert_eq!(outcomes(&world.facts()), [Outcome::Started], "it goes on");
    });
}

#[test]
fn totals_are_what_the_session_spent_and_a_reset_begins_a_new_run() {
    run(async |mut world| {
        let (_session, _launcher, mut application) = world.session();
        let answer = world.begin(&mut application, "think");
        world.end(&mut application, answer.action_id.unwrap(), None);
        let ask = sentinel_proto::app::Ask { request: 3 };
        let dime = Money::from_decimal("0.1").unwrap();
        let totals = world.ask(&mut application, Request::Totals(ask));
        assert!(
            matches!(totals, Some(Reply::Totals(totals)) if totals.session_usd == dime && totals.run_usd == dime
            && totals.session_limit_usd == Money::from_decimal("0.3").ok() && totals.run_limit_usd.is_none())
        );
        let totals = world.ask(&mut application, Request::ResetRun(ask));
        assert!(
            matches!(totals, Some(Reply::Totals(totals)) if totals.session_usd == dime && totals.run_usd == Money::ZERO)
        );
    });
}
