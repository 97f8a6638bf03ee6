//! Who speaks.

use std::time::Duration;

use sentinel_proto::app::{Hello, RefusalCode, Refused, Reply, Request};
use sentinel_proto::{VERSION, admin};

use super::{Peer, World, run};
use crate::clock::since_boot;
use crate::connection::{Arrival, Door, Message};
use crate::enforcer::Mark;
use crate::intake::Lane;
use crate::peer::Sender;
use crate::server::MOST_OF_A_SESSION;

fn hello() -> Hello {
    Hello { version: VERSION, client: "test".to_owned() }
}

fn refusal(world: &mut World, peer: &mut Peer) -> Refused {
    match world.ask(peer, Request::Hello(hello())) {
        Some(Reply::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_process_without_a_mark_is_refused_and_told_the_way_out() {
    run(async |mut world| {
        let mut stranger = world.connect(Door::Application);
        let refused = refusal(&mut world, &mut stranger);
        assert_eq!(refused.code, RefusalCode::Identity);
        assert!(refused.message.contains("sentinel run"), "{}", refused.message);
    });
}

#[test]
fn a_mark_that_is_older_than_the_process_is_anothers() {
    run(async |mut world| {
        let (session, _launcher, _application) = world.session();
        let stale = Mark { session, scopes: [None; 4], marked_at: Duration::from_millis(1) };
        world.enforcer.set_mark(std::process::id(), stale);
        let mut stranger = world.connect(Door::Application);
        assert_eq!(refusal(&mut world, &mut stranger).code, RefusalCode::Identity);
    });
}

#[test]
fn a_sender_other_than_the_opener_speaks_for_itself_if_it_is_older_than_the_message() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let child = world.child();
        application.sender = Sender { pid: child, ..application.sender };
        assert_eq!(
            refusal(&mut world, &mut application).code,
            RefusalCode::Identity,
            "it has no mark of its own"
        );

        let before = since_boot();
        world.enforcer.set_mark(child, Mark { session, scopes: [None; 4], marked_at: since_boot() });
        assert!(matches!(world.ask(&mut application, Request::Hello(hello())), Some(Reply::Welcome(_))));

        let (connection, sender) = (std::rc::Rc::clone(&application.ours), application.sender);
        let message = Message::Application(Request::Hello(hello()));
        world.driver.handle(Arrival::Message { connection, sender, since: before, message });
        let Some(Reply::Refused(refused)) = application.receive() else {
            panic!("a later process was believed")
        };
        assert!(refused.message.contains("too young"), "{}", refused.message);
    });
}

#[test]
fn a_sender_that_is_gone_speaks_for_nobody() {
    run(async |mut world| {
        let (session, _launcher, mut application) = world.session();
        let child = world.child();
        world.enforcer.set_mark(child, Mark { session, scopes: [None; 4], marked_at: since_boot() });
        let mut process = world.children.pop().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        application.sender = Sender { pid: child, ..application.sender };
        assert_eq!(refusal(&mut world, &mut application).code, RefusalCode::Identity);
    });
}

#[test]
fn a_session_has_so_many_connections_and_no_more_until_one_is_closed() {
    run(async |mut world| {
        let (session, _launcher, _first) = world.session();
        let mut peers: Vec<Peer> = (1..MOST_OF_A_SESSION).map(|_| world.connect(Door::Application)).collect();
        for peer in &mut peers {
            assert!(matches!(world.ask(peer, Request::Hello(hello())), Some(Reply::Welcome(_))));
            assert_eq!(peer.ours.lane(), Some(Lane::Session(session)));
        }
        let mut one_more = world.connect(Door::Application);
        assert_eq!(refusal(&mut world, &mut one_more).code, RefusalCode::Busy);
        world.driver.handle(Arrival::Closed(peers.pop().unwrap().ours));
        let mut again = world.connect(Door::Application);
        assert!(matches!(world.ask(&mut again, Request::Hello(hello())), Some(Reply::Welcome(_))));
    });
}

fn operate(world: &mut World, peer: &mut Peer) -> admin::Reply {
    world.deliver(peer, Message::Operator(admin::Request::Hello(hello()), None));
    peer.receive().expect("an answer")
}

#[test]
fn an_operator_is_outside_every_session_and_has_the_right_by_uid_or_group() {
    run(async |mut world| {
        let mut operator = world.connect(Door::Operator);
        assert!(matches!(operate(&mut world, &mut operator), admin::Reply::Welcome(_)));

        let mut neither = world.connect(Door::Operator);
        world.driver.setting.operators = Some(4_000_000_000);
        let child = world.child();
        neither.sender = Sender { pid: child, uid: 4_000_000_000, gid: 1 };
        assert!(
            matches!(operate(&mut world, &mut neither), admin::Reply::Refused(refused) if refused.code == RefusalCode::Identity)
        );
        let mut by_group = world.connect(Door::Operator);
        by_group.sender = Sender { pid: child, uid: 4_000_000_000, gid: 4_000_000_000 };
        assert!(matches!(operate(&mut world, &mut by_group), admin::Reply::Welcome(_)));
    });
}

#[test]
fn an_operator_inside_a_session_is_refused_whatever_its_uid() {
    run(async |mut world| {
        let (_session, _launcher, _application) = world.session();
        let mut inside = world.connect(Door::Operator);
        assert!(
            matches!(operate(&mut world, &mut inside), admin::Reply::Refused(refused) if refused.code == RefusalCode::Identity)
        );

        world.enforcer.forget_mark(std::process::id());
        world.driver.setting.governed = crate::peer::cgroup_of(std::process::id()).unwrap();
        let mut below = world.connect(Door::Operator);
        assert!(
            matches!(operate(&mut world, &mut below), admin::Reply::Refused(refused) if refused.message.contains("session"))
        );
    });
}
