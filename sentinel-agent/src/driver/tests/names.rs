//! Which names are admitted, and that none is told before its doors are open.

use sentinel_engine::{Fact, Mode, NamePattern, NameRule, Policy, Protocol};
use sentinel_proto::{HostName, SessionId};
use tokio::sync::oneshot;

use super::super::names::{AskingProcess, NameArrival};
use super::{World, policy, run};
use crate::connection::Arrival;
use crate::daemon::LoadedPolicy;
use crate::enforcer::recording::Call;
use crate::resolver::{Admission, Answer, Event, Kind, Question, Refusal, Ticket};

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn rule(pattern: NamePattern, allow_private: bool) -> NameRule {
    NameRule { protocol: Protocol::Tcp, name: pattern, port: Some(443), allow_private, line: 1 }
}

/// The baseline lists `open.example` and what is below `wild.example`; the action `fetch` lists `api.example` and, with private addresses, `open.example`.
fn with_names() -> Policy {
    let mut policy = policy();
    policy.grants[0].names = vec![
        rule(NamePattern::Exactly(name("open.example")), false),
        rule(NamePattern::OneBelow(name("wild.example")), false),
    ];
    policy.grants[1].names = vec![
        rule(NamePattern::Exactly(name("api.example")), false),
        rule(NamePattern::Exactly(name("open.example")), true),
    ];
    policy
}

impl World {
    fn with(mut self, policy: Policy) -> Self {
        let loaded = LoadedPolicy { policy, sha256: "0".repeat(64) };
        self.driver.setting.policies.insert("test".to_owned(), loaded);
        self
    }

    fn by(&self, session: SessionId) -> AskingProcess {
        AskingProcess { session, pid: std::process::id(), scopes: [self.scope().0, 0, 0, 0] }
    }

    fn asked(&mut self, by: AskingProcess, text: &str) -> Admission {
        let (reply, answer) = oneshot::channel();
        let question = Question { name: name(text), kind: Kind::A };
        self.driver.handle(Arrival::Name(Box::new(NameArrival::Asked { by, question, reply })));
        answer.blocking_recv_now()
    }

    fn answered(&mut self, ticket: Ticket, text: &str, address: &str) -> Result<Vec<Answer>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let answers = vec![Answer { address: address.parse().unwrap(), seconds: 5 }];
        self.driver.handle(Arrival::Name(Box::new(NameArrival::Answered {
            ticket,
            name: name(text),
            answers,
            reply,
        })));
        answer.blocking_recv_now()
    }

    /// What was refused of names, by target, with its verdict and fate.
    fn told(&self) -> Vec<(String, String, String)> {
        let facts = self.facts();
        let attempts = facts.iter().filter_map(|fact| match fact {
            Fact::KernelDenied { attempt, .. } => Some(attempt),
            _ => None,
        });
        attempts
            .map(|attempt| (attempt.target.clone(), attempt.verdict.clone(), attempt.fate.clone()))
            .collect()
    }
}

trait Now<T> {
    fn blocking_recv_now(self) -> T;
}

impl<T> Now<T> for oneshot::Receiver<T> {
    /// The driver answers at once, or never.
    fn blocking_recv_now(mut self) -> T {
        self.try_recv().expect("the driver has answered")
    }
}

fn ticket(admission: Admission) -> Ticket {
    match admission {
        Admission::Admitted(ticket) => ticket,
        Admission::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[test]
fn a_name_of_the_baseline_is_admitted_and_one_that_no_entry_lists_is_told_and_is_not() {
    run(async |world| {
        let mut world = world.with(with_names());
        let (session, _launcher, _application) = world.session();
        let by = world.by(session);
        let open = ticket(world.asked(by, "open.example"));
        assert_eq!((open.session, open.allow_private, open.is_wildcard), (session, false, false));
        assert!(ticket(world.asked(by, "a.wild.example")).is_wildcard);
        for unlisted in ["other.example", "wild.example", "a.b.wild.example"] {
            assert_eq!(world.asked(by, unlisted), Admission::Refused(Refusal::Unlisted), "{unlisted}");
        }
        let told = ("other.example".to_owned(), "no_rule".to_owned(), "refused".to_owned());
        assert_eq!(world.told().first(), Some(&told));
    });
}

#[test]
fn a_name_of_an_action_is_admitted_while_it_is_in_flight_to_its_own_scope() {
    run(async |world| {
        let mut world = world.with(with_names());
        let (session, _launcher, mut application) = world.session();
        let by = world.by(session);
        assert_eq!(world.asked(by, "api.example"), Admission::Refused(Refusal::Closed));
        let begun = world.begin(&mut application, "fetch");
        let by = world.by(session);
        assert!(!ticket(world.asked(by, "api.example")).allow_private);
        assert!(ticket(world.asked(by, "open.example")).allow_private, "the action's entry says so");
        let elsewhere = AskingProcess { scopes: [by.scopes[0] + 1, 0, 0, 0], ..by };
        assert_eq!(world.asked(elsewhere, "api.example"), Admission::Refused(Refusal::Closed));
        assert!(!ticket(world.asked(elsewhere, "open.example")).allow_private);
        world.end(&mut application, begun.action_id.unwrap(), Some(8));
        assert_eq!(world.asked(by, "api.example"), Admission::Refused(Refusal::Closed));
    });
}

#[test]
fn a_spent_budget_closes_the_names_of_the_baseline() {
    run(async |world| {
        let mut world = world.with(with_names());
        let (session, _launcher, mut application) = world.session();
        let by = world.by(session);
        assert!(matches!(world.asked(by, "open.example"), Admission::Admitted(_)));
        for _ in 0..3 {
            let begun = world.begin(&mut application, "think");
            world.end(&mut application, begun.action_id.unwrap(), None);
        }
        assert_eq!(world.asked(by, "open.example"), Admission::Refused(Refusal::Closed));
    });
}

#[test]
fn a_policy_that_only_audits_records_a_name_and_lets_it_be_asked() {
    run(async |world| {
        let mut world = world.with(Policy { mode: Mode::Audit, ..with_names() });
        let (session, _launcher, _application) = world.session();
        let by = world.by(session);
        assert!(ticket(world.asked(by, "other.example")).allow_private);
        let told = ("other.example".to_owned(), "no_rule".to_owned(), "recorded".to_owned());
        assert_eq!(world.told(), [told]);
    });
}

#[test]
fn who_is_in_no_session_is_refused() {
    run(async |world| {
        let mut world = world.with(with_names());
        let by = world.by(SessionId(77));
        assert_eq!(world.asked(by, "open.example"), Admission::Refused(Refusal::NotInSession));
        let nobody = Ticket {
            session: SessionId(77),
            allow_private: false,
            is_wildcard: false,
            pid: by.pid,
            scopes: by.scopes,
        };
        assert_eq!(world.answered(nobody, "open.example", "198.51.100.1"), Err(Refusal::NotInSession));
    });
}

#[test]
fn an_address_is_told_after_its_doors_are_open_and_not_where_they_can_not_be() {
    run(async |world| {
        let mut world = world.with(with_names());
        let (session, _launcher, _application) = world.session();
        let by = world.by(session);
        let open = ticket(world.asked(by, "open.example"));
        world.enforcer.fail_after(0);
        let failed = world.answered(open, "open.example", "198.51.100.1");
        assert!(matches!(failed, Err(Refusal::Unavailable(_))), "{failed:?}");
        let told = world.answered(open, "open.example", "198.51.100.1").unwrap();
        assert_eq!(told.len(), 1);
        let calls = world.enforcer.calls();
        let opened = calls.iter().rev().find_map(|call| match call {
            Call::OpenName { session, name, addresses } => Some((*session, name.clone(), addresses.clone())),
            _ => None,
        });
        let (of, opened, addresses) = opened.unwrap();
        assert_eq!((of, opened), (session, name("open.example")));
        assert!(!addresses[0].is_private);
    });
}

#[test]
fn what_the_resolver_refuses_itself_is_told_too() {
    run(async |world| {
        let mut world = world.with(with_names());
        let (session, _launcher, _application) = world.session();
        let by = world.by(session);
        let event = Event::Rebinding(vec!["127.0.0.1".parse().unwrap()]);
        let target = "open.example".to_owned();
        world.driver.handle(Arrival::Name(Box::new(NameArrival::Told { by, target, event })));
        let told =
            ("open.example as 127.0.0.1".to_owned(), "private_address".to_owned(), "refused".to_owned());
        assert_eq!(world.told(), [told]);
    });
}

#[test]
fn an_answer_that_comes_after_its_action_has_ended_is_not_told() {
    run(async |world| {
        let mut world = world.with(with_names());
        let (session, _launcher, mut application) = world.session();
        let begun = world.begin(&mut application, "fetch");
        let by = world.by(session);
        let (of_action, of_both) =
            (ticket(world.asked(by, "api.example")), ticket(world.asked(by, "open.example")));
        assert_eq!(world.answered(of_action, "api.example", "198.51.100.1").unwrap().len(), 1);
        world.end(&mut application, begun.action_id.unwrap(), Some(8));
        assert_eq!(world.answered(of_action, "api.example", "198.51.100.1"), Err(Refusal::Closed));
        let told = ("api.example".to_owned(), "door_closed".to_owned(), "refused".to_owned());
        assert_eq!(world.told(), [told]);
        // The baseline still lists this one, without private addresses.
        assert_eq!(world.answered(of_both, "open.example", "10.0.0.1"), Err(Refusal::Closed));
        assert_eq!(world.answered(of_both, "open.example", "198.51.100.1").unwrap().len(), 1);
        let told = world.told().pop().unwrap();
        assert_eq!((told.0.as_str(), told.1.as_str()), ("open.example as 10.0.0.1", "private_address"));
    });
}

#[test]
fn an_answer_that_comes_after_other_rules_hold_is_told_only_where_they_list_its_name_too() {
    run(async |world| {
        let mut world = world.with(with_names());
        let (session, _launcher, _application) = world.session();
        let by = world.by(session);
        let (gone, kept) =
            (ticket(world.asked(by, "open.example")), ticket(world.asked(by, "a.wild.example")));
        let mut policy = with_names();
        policy.grants[0].names.remove(0);
        policy.grants[1].names.clear();
        let loaded = LoadedPolicy { policy, sha256: "1".repeat(64) };
        let read = Ok([("test".to_owned(), loaded)].into());
        world.driver.handle(Arrival::PoliciesRead { read, asked: None });
        assert_eq!(world.answered(gone, "open.example", "198.51.100.1"), Err(Refusal::Closed));
        assert_eq!(world.answered(kept, "a.wild.example", "198.51.100.1").unwrap().len(), 1);
        let told = ("open.example".to_owned(), "no_rule".to_owned(), "refused".to_owned());
        assert_eq!(world.told(), [told]);
    });
}
