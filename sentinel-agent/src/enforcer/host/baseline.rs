//! The connections of the baseline, and of rules that are no more: they end when what let them go does.

use std::io::Read as _;
use std::net::TcpStream;

use super::egress::{SOON, Scene, V4};
use super::sockets::*;
use super::*;

/// Whether whoever waits on the connection hears that it is over: at once, for it is destroyed before the door counts as shut.
pub(super) fn is_told(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.read(&mut [0]).unwrap_err().raw_os_error() == Some(libc::ECONNABORTED)
}

#[test]
fn a_connection_of_the_baseline_is_told_at_once_when_that_shuts() {
    for ip in [IpAddr::from(V4), std::net::Ipv6Addr::LOCALHOST.into()] {
        let mut scene = Scene::at(ip, |to| vec![network(&[(Protocol::Tcp, to)])]);
        let (mut stream, _peer) = scene.connect();
        let outside = TcpStream::connect(scene.to).unwrap();
        assert!(!is_told(&mut stream));
        scene.host.enforcer().set_baseline_network(scene.session.id, false).unwrap();
        assert!(is_told(&mut stream));
        assert!(!is_told(&mut { outside }), "whoever isn't in the session is left alone");
    }
}

#[test]
fn a_connection_of_an_action_in_flight_outlives_the_baseline() {
    let mut scene = Scene::with(|to| vec![network(&[(Protocol::Tcp, to)]), network(&[(Protocol::Tcp, to)])]);
    scene.begin();
    let (mut stream, mut peer) = scene.connect();
    scene.host.enforcer().set_baseline_network(scene.session.id, false).unwrap();
    assert!(!is_told(&mut stream));
    std::io::Write::write_all(&mut stream, b"goes on").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"goes on");
}

#[test]
fn an_accepted_connection_is_told_when_its_rule_is_the_shut_baselines() {
    let own = listener(V4).1;
    let mut host = Host::new();
    let grant = Grant { listen: network(&[(Protocol::Tcp, own)]).network, ..Grant::default() };
    let session = host.session(1, &policy(vec![grant]));
    let puppet = host.command(&session);
    let number = socket(&puppet, own, TCP);
    assert_eq!((bind_socket(&puppet, number, own), listen_on(&puppet, number)), (0, 0));
    let _client = TcpStream::connect(own).unwrap();
    let (mut accepted, _) = TcpListener::from(puppet.descriptor(number)).accept().unwrap();
    assert!(!is_told(&mut accepted));
    host.enforcer().commit(&session, &policy(vec![Grant::default()]));
    assert!(is_told(&mut accepted));
}

#[test]
fn a_reload_ends_what_it_lets_send_no_more_and_leaves_the_rest() {
    let mut scene = Scene::with(|to| vec![network(&[(Protocol::Tcp, to)])]);
    let (mut stream, _peer) = scene.connect();
    let kept = policy(vec![network(&[(Protocol::Tcp, scene.to)])]);
    scene.host.enforcer().commit(&scene.session, &kept);
    assert!(!is_told(&mut stream), "the rule is there still");
    scene.host.enforcer().commit(&scene.session, &policy(vec![Grant::default()]));
    assert!(is_told(&mut stream));
}

impl EbpfEnforcer {
    pub(super) fn commit(&mut self, session: &Session, policy: &Policy) {
        self.prepare_rules(session.id, policy, USER).unwrap();
        self.commit_rules(session.id).unwrap();
    }
}
