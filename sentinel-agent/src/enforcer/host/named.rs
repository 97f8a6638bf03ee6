//! Doors by name: what is left of them when their time is over or other rules hold, and how many a session may have.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::ops::Range;

use super::baseline::is_told;
use super::egress::{SOON, Scene};
use super::resolver::{LONG, V4, host_rule, name, told};
use super::sockets::*;
use super::*;
use crate::enforcer::{EnforcerError, ToldAddress};

/// A session's share.
const SHARE: u32 = 16_384;
const SHORT: Duration = Duration::from_millis(300);

/// One address after the other of those that benchmarks are for.
fn addresses(which: Range<u32>, for_time: Duration) -> Vec<ToldAddress> {
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    which.map(|number| told(SocketAddr::from((Ipv4Addr::from(first + number), 1)), for_time)).collect()
}

/// Tells a session addresses for `a.example`, as many at once as one answer has at most.
fn tell(host: &mut Host, session: &Session, which: Range<u32>, for_time: Duration) {
    for some in addresses(which, for_time).chunks(64) {
        host.enforcer().open_name(session.id, &name("a.example"), some).unwrap();
    }
}

/// How many doors a session has.
fn doors(host: &mut Host, session: &Session) -> usize {
    host.enforcer().maps().named.keys(|key| key.session == session.id.0).unwrap().len()
}

/// A session whose baseline or, where `is_of_action`, whose action names the listener's host. Nobody else on this machine is connected to that.
fn scene(is_of_action: bool) -> Scene {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 77, 0, 0)) + std::process::id() % 65_536);
    let mut scene = Scene::at(ip.into(), |to| {
        let named = host_rule("a.example", to.port(), true);
        if is_of_action { vec![Grant::default(), named] } else { vec![named] }
    });
    if is_of_action {
        scene.begin();
    }
    scene
}

impl Scene {
    fn tell(&mut self, for_time: Duration) {
        let told = [told(self.to, for_time)];
        self.host.enforcer().open_name(self.session.id, &name("a.example"), &told).unwrap();
    }

    fn is_door_there(&mut self) -> bool {
        let port = self.to.port();
        let found = self.host.enforcer().maps().named.keys(|key| key.port == port && key.address[13] == 77);
        !found.unwrap().is_empty()
    }
}

#[test]
fn a_connection_outlives_its_names_time_in_which_nobody_connects_any_more() {
    for is_of_action in [false, true] {
        let mut scene = scene(is_of_action);
        scene.tell(SHORT);
        let (mut stream, mut peer) = scene.connect();
        std::thread::sleep(SHORT);
        scene.host.enforcer().sweep_names().unwrap();
        assert_eq!(connect(&scene.command, scene.to), EPERM, "of an action: {is_of_action}");
        stream.write_all(b"goes on").unwrap();
        assert_eq!(arrives(&mut peer, SOON), b"goes on", "of an action: {is_of_action}");
        scene.tell(LONG);
        assert_eq!(connect(&scene.command, scene.to), 0, "told anew");
    }
}

#[test]
fn a_connection_outlives_a_reload_if_the_new_rules_name_its_host_too() {
    for for_time in [LONG, SHORT] {
        let mut scene = scene(false);
        scene.tell(for_time);
        let (mut stream, mut peer) = scene.connect();
        if for_time == SHORT {
            std::thread::sleep(SHORT);
        }
        let (port, session) = (scene.to.port(), &scene.session);
        let mut with_another = host_rule("b.example", 443, false);
        with_another.names.extend(host_rule("a.example", port, true).names);
        scene.host.enforcer().commit(session, &policy(vec![with_another]));
        assert!(!is_told(&mut stream));
        stream.write_all(b"goes on").unwrap();
        assert_eq!(arrives(&mut peer, SOON), b"goes on");
        scene.host.enforcer().commit(session, &policy(vec![host_rule("b.example", port, true)]));
        assert!(is_told(&mut stream));
    }
}

#[test]
fn a_session_that_has_its_share_is_answered_no_more_and_leaves_others_theirs() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let mut named = host_rule("a.example", to.port(), true);
    named.names.extend(host_rule("a.example", 1, true).names);
    // Two doors an address.
    let (rules, most) = (policy(vec![named]), SHARE / 2);
    let (greedy, other) = (host.session(1, &rules), host.session(2, &rules));
    let puppet = host.puppet(&other);
    tell(&mut host, &greedy, 0..most - 2, LONG);
    let last = addresses(most - 2..most + 3, LONG);
    let refused = host.enforcer().open_name(greedy.id, &name("a.example"), &last).unwrap_err();
    assert!(matches!(refused, EnforcerError::Share(_)), "{refused}");
    assert_eq!(doors(&mut host, &greedy), SHARE as usize - 4, "an answer that isn't told opens nothing");
    host.enforcer().open_name(greedy.id, &name("a.example"), &last[..2]).unwrap();
    assert_eq!(doors(&mut host, &greedy), SHARE as usize);
    tell(&mut host, &greedy, 0..64, LONG);
    host.enforcer().open_name(other.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    assert_eq!(connect(&puppet, to), 0);
    for session in [&greedy, &other] {
        host.enforcer().commit(session, &rules);
    }
    assert_eq!((doors(&mut host, &greedy), doors(&mut host, &other)), (SHARE as usize, 2));
    assert_eq!(connect(&puppet, to), 0);
    host.enforcer().open_name(other.id, &name("a.example"), &addresses(0..64, LONG)).unwrap();
}

#[test]
fn new_rules_that_make_more_doors_than_a_session_may_have_hold_with_those_that_find_room() {
    let mut host = Host::new();
    let rules = |ports: Range<u16>| {
        let names = ports.flat_map(|port| host_rule("a.example", port, true).names).collect();
        policy(vec![Grant { names, ..Grant::default() }])
    };
    let session = host.session(1, &rules(1..2));
    tell(&mut host, &session, 0..SHARE, LONG);
    host.enforcer().commit(&session, &rules(1..3));
    assert_eq!(doors(&mut host, &session), SHARE as usize);
    host.enforcer().commit(&session, &rules(1..2));
    assert_eq!(doors(&mut host, &session), SHARE as usize, "what was left out was not forgotten");
}

#[test]
fn addresses_whose_time_is_over_make_room_but_for_one_by_which_somebody_is_connected() {
    let mut scene = scene(false);
    scene.tell(SHORT);
    let (mut stream, mut peer) = scene.connect();
    std::thread::sleep(SHORT);
    tell(&mut scene.host, &scene.session, 1..SHARE, Duration::ZERO);
    assert_eq!(doors(&mut scene.host, &scene.session), SHARE as usize);
    tell(&mut scene.host, &scene.session, SHARE..SHARE + 1, LONG);
    assert!(doors(&mut scene.host, &scene.session) < SHARE as usize);
    assert!(scene.is_door_there(), "it was the first of those that are over");
    let rules = policy(vec![host_rule("a.example", scene.to.port(), true)]);
    scene.host.enforcer().commit(&scene.session, &rules);
    stream.write_all(b"goes on").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"goes on");
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    drop(peer);
    tell(&mut scene.host, &scene.session, SHARE + 1..2 * SHARE, Duration::ZERO);
    assert!(!scene.is_door_there(), "nobody is connected by it any more");
}

#[test]
fn what_an_earlier_agent_told_makes_room_too_when_its_time_is_over() {
    let mut host = Host::new();
    let rules = policy(vec![host_rule("a.example", 1, true)]);
    let session = host.session(1, &rules);
    tell(&mut host, &session, 0..SHARE, Duration::ZERO);
    host.enforcer().note_build().unwrap();
    drop(host.enforcer.take());
    let enforcer = EbpfEnforcer::adopt(&host.places).unwrap().expect("it is the same build");
    host.enforcer = Some(enforcer);
    host.enforcer().adopt_session(session.id, session.cgroup.id(), true).unwrap();
    host.enforcer().commit(&session, &rules);
    assert_eq!(doors(&mut host, &session), SHARE as usize, "they are for whoever is connected by them");
    tell(&mut host, &session, SHARE..SHARE + 64, LONG);
    assert_eq!(doors(&mut host, &session), 64);
}
