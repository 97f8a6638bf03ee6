//! What stays when the agent goes, and what doesn't.

use std::net::Ipv4Addr;

use super::*;

/// Whether anything of the instance is there.
fn is_gone(places: &Places) -> bool {
    !places.cgroup.exists() && !places.pins.exists()
}

#[test]
fn a_clean_end_leaves_nothing() {
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let session = host.session(1, &policy(vec![Grant::default()]));
    let puppet = host.puppet(&session);
    assert_eq!(connect(&puppet, to), EPERM);
    host.enforcer.take().unwrap().shutdown().unwrap();
    assert_eq!(puppet.ending().unwrap(), KILLED, "its sessions end with it");
    assert!(is_gone(&host.places));
}

#[test]
fn without_an_agent_everything_is_denied_except_the_baseline() {
    let mut host = Host::new();
    let ((_baseline, baseline), (_granted, granted)) =
        (listener(Ipv4Addr::LOCALHOST), listener(Ipv4Addr::LOCALHOST));
    let (_never, never) = listener(Ipv4Addr::LOCALHOST);
    let grants = vec![network(&[(Protocol::Tcp, baseline)]), network(&[(Protocol::Tcp, granted)])];
    let session = host.session(1, &policy(grants));
    let command = host.command(&session);
    host.open(&session, &command, 1);
    assert_eq!(connect(&command, granted), 0);

    // As if the process had been killed: its descriptors are closed, its pins stay.
    drop(host.enforcer.take());
    assert_eq!((connect(&command, baseline), connect(&command, never)), (0, EPERM));
    wait_until("the open door closes", || {
        // Not so often that the listener's queue fills up.
        std::thread::sleep(Duration::from_millis(100));
        connect(&command, granted) == EPERM
    });
    let child = command.fork().unwrap();
    assert!(host.is_denied(&child, TRUE));
}

#[test]
fn a_start_ends_what_a_dead_instance_left_before_it_loads() {
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let session = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let inside = host.puppet(&session);
    let moved_out = host.puppet(&session);
    let root = host.places.cgroup.parent().unwrap().parent().unwrap().join("cgroup.procs");
    std::fs::write(root, moved_out.pid().to_string()).unwrap();
    drop(host.enforcer.take());

    host.restart();
    assert_eq!((inside.ending().unwrap(), moved_out.ending().unwrap()), (KILLED, KILLED));
    let again = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let fresh = host.puppet(&again);
    assert_eq!(connect(&fresh, to), 0, "and a new session works");
}

#[test]
fn what_a_dead_agent_left_is_taken_over_at_its_tier_and_never_was_off() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![programs(&[TRUE])]));
    let (one, two, three) = (host.command(&session), host.command(&session), host.command(&session));
    host.enforcer().note_build().unwrap();
    drop(host.enforcer.take());
    assert!(host.is_denied(&one, FALSE), "between the two");
    let adopted = EbpfEnforcer::adopt(&host.places).unwrap().expect("the same build can take it over");
    assert_eq!(adopted.enforcement().tier, host.tier);
    host.enforcer = Some(adopted);
    host.enforcer().adopt_session(session.id, session.cgroup.id(), true).unwrap();
    assert!(host.is_denied(&two, FALSE));
    assert!(host.comes_through(&three, TRUE));
}

#[test]
fn pins_are_roots_alone() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let mut host = Host::new();
    for folder in [&*host.places.pins, host.places.pins.parent().unwrap()] {
        let found = std::fs::metadata(folder).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o700), "{}", folder.display());
    }
    host.enforcer.take().unwrap().shutdown().unwrap();
    std::fs::create_dir_all(&host.places.cgroup).unwrap();
    host.places.make().unwrap();
    std::fs::set_permissions(&host.places.pins, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(host.places.make().is_err(), "a folder that others may look into is not ours");
}

#[test]
fn a_stopped_session_leaves_nothing_in_the_maps() {
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let cidr = Cidr { address: Ipv4Addr::new(10, 0, 0, 0).into(), prefix: 8 };
    let mut grant = network(&[(Protocol::Tcp, to)]);
    grant.network.push(NetworkRule { protocol: Protocol::Udp, cidr, port: None, line: 1 });
    grant.exec = programs(&[TRUE]).exec;
    let grants = policy(vec![grant.clone(), grant]);
    let counts = |host: &mut Host| {
        let maps = host.enforcer().maps();
        let prefixes = maps.prefixes.map.keys().count();
        [maps.sessions.map.keys().count(), maps.cgroups.map.keys().count(), maps.scopes.map.keys().count()]
            .into_iter()
            .chain([maps.network.map.keys().count(), prefixes, maps.exec.map.keys().count()])
            .collect::<Vec<_>>()
    };
    let session = host.session(1, &grants);
    let other = host.session(2, &grants);
    let command = host.command(&session);
    host.open(&session, &command, 1);
    assert_eq!(counts(&mut host), [2, 2, 1, 2, 2, 2]);
    session.cgroup.kill().unwrap();
    wait_until("it is empty", || !session.cgroup.is_populated().unwrap());
    host.enforcer().stop_session(session.id).unwrap();
    assert_eq!(counts(&mut host), [1, 1, 0, 1, 1, 1]);
    host.enforcer().stop_session(session.id).expect("what is stopped can be stopped");
    host.enforcer().stop_session(other.id).unwrap();
    assert_eq!(counts(&mut host), [0; 6]);
}

#[test]
fn a_policy_that_can_not_be_told_leaves_nothing_and_starts_no_session() {
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let mut grant = network(&[(Protocol::Tcp, to)]);
    grant.exec = programs(&["/nonexistent"]).exec;
    let id = SessionId(1);
    let cgroup = SessionCgroup::create(&host.places.cgroup, id).unwrap();
    let error = host.enforcer().start_session(id, cgroup.id(), &policy(vec![grant]), USER).unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    assert_eq!(host.enforcer().maps().network.map.keys().count(), 0);
}

#[test]
fn records_that_are_lost_are_counted() {
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let session = host.session(1, &policy(vec![Grant::default()]));
    let puppet = host.puppet(&session);
    let before = host.enforcer().dropped_records().unwrap();
    let tried: u64 = 12_000;
    for _ in 0..tried {
        assert_eq!(connect(&puppet, to), EPERM, "whether or not it can be reported");
    }
    let lost = host.enforcer().dropped_records().unwrap() - before;
    let mut kept = Vec::new();
    host.enforcer().drain_records(&mut kept, usize::MAX);
    assert_eq!(u64::try_from(kept.len()).unwrap() + lost, tried);
    assert!(lost > 0);
}
