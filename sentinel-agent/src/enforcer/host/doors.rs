//! Grants, scopes and leases: what is open, for whom, and for how long.

use std::net::Ipv4Addr;

use aya::maps::{HashMap, Map, MapData};
use sentinel_ebpf_common::TaskMark;
use sentinel_ebpf_common::verdict::Verdict;

use super::*;

/// A session whose grant 1 leads to a listener.
struct Scene {
    host: Host,
    session: Session,
    to: SocketAddr,
    _listener: TcpListener,
}

impl Scene {
    fn new() -> Self {
        let mut host = Host::new();
        let (listener, to) = listener(Ipv4Addr::LOCALHOST);
        let session = host.session(1, &policy(vec![Grant::default(), network(&[(Protocol::Tcp, to)])]));
        Self { host, session, to, _listener: listener }
    }

    fn verdicts(&mut self) -> Vec<Option<Verdict>> {
        self.host.records().iter().map(|record| Verdict::from_number(record.verdict)).collect()
    }
}

#[test]
fn a_door_is_open_between_two_writes_and_no_longer() {
    let mut scene = Scene::new();
    let command = scene.host.command(&scene.session);
    assert_eq!(connect(&command, scene.to), EPERM, "before");
    scene.host.open(&scene.session, &command, 1);
    assert_eq!(connect(&command, scene.to), 0, "during");
    scene.host.set_doors(&scene.session, 1, GrantSet::EMPTY, Duration::ZERO);
    assert_eq!(connect(&command, scene.to), EPERM, "after");
    assert_eq!(scene.verdicts(), [Some(Verdict::DoorClosed); 2]);
}

#[test]
fn a_child_forked_inside_shares_the_doors_and_earlier_children_and_siblings_do_not() {
    let mut scene = Scene::new();
    let command = scene.host.command(&scene.session);
    let earlier = command.fork().unwrap();
    scene.host.open(&scene.session, &command, 1);
    let inside = command.fork().unwrap();
    let grandchild = inside.fork().unwrap();
    let sibling = scene.host.command(&scene.session);
    assert_eq!((connect(&inside, scene.to), connect(&grandchild, scene.to)), (0, 0));
    assert_eq!((connect(&earlier, scene.to), connect(&sibling, scene.to)), (EPERM, EPERM));
    let mark = scene.host.enforcer().mark(grandchild.pid()).unwrap().unwrap();
    assert_eq!((mark.session, mark.scopes[0]), (scene.session.id, Some(ScopeId(1))));
}

#[test]
fn a_child_has_its_parents_mark_before_it_does_anything() {
    let mut scene = Scene::new();
    let command = scene.host.command(&scene.session);
    scene.host.open(&scene.session, &command, 1);
    let child = command.fork().unwrap();
    let mark = scene.host.enforcer().mark(child.pid()).unwrap().unwrap();
    assert_eq!((mark.session, mark.scopes[0]), (scene.session.id, Some(ScopeId(1))));
}

#[test]
fn a_child_whose_mark_was_not_made_makes_it_itself_at_tier_lsm_and_has_the_baseline_at_tier_kill() {
    let mut scene = Scene::new();
    let command = scene.host.command(&scene.session);
    let earlier = command.fork().unwrap();
    scene.host.open(&scene.session, &command, 1);
    let inside = command.fork().unwrap();
    for child in [&earlier, &inside] {
        // As where the kernel leaves `task_newtask` out.
        scene.host.enforcer().forget_ended(child.pid()).unwrap();
    }
    let is_lsm = scene.host.is_lsm();
    let grandchild = inside.fork().unwrap();
    for child in [&inside, &grandchild] {
        assert_eq!(connect(child, scene.to), if is_lsm { 0 } else { EPERM });
    }
    assert_eq!(connect(&earlier, scene.to), EPERM, "it was born before");
    for child in [&inside, &grandchild] {
        let mark = scene.host.enforcer().mark(child.pid()).unwrap();
        let scope = mark.map(|mark| (mark.session, mark.scopes[0]));
        assert_eq!(scope, is_lsm.then_some((scene.session.id, Some(ScopeId(1)))));
    }
}

#[test]
fn what_a_child_was_born_with_goes_with_it() {
    let mut scene = Scene::new();
    let command = scene.host.command(&scene.session);
    let born = |scene: &mut Scene| {
        let map = Map::HashMap(MapData::from_pin(scene.host.places.pins.join("CHILDREN")).unwrap());
        HashMap::<MapData, u64, TaskMark>::try_from(map).unwrap().keys().count()
    };
    let before = born(&mut scene);
    let child = command.fork().unwrap();
    assert_eq!(born(&mut scene) - before, usize::from(scene.host.is_lsm()));
    drop(child);
    let any = super::Given::Number(u64::MAX);
    let none = super::Given::Number(0);
    super::call(&command, libc::SYS_wait4, &[any, none, none, none]);
    wait_until("it is gone", || born(&mut scene) == before);
}

#[test]
fn a_childs_own_door_is_none_of_its_parents() {
    let mut scene = Scene::new();
    let parent = scene.host.command(&scene.session);
    let child = parent.fork().unwrap();
    scene.host.open(&scene.session, &child, 7);
    assert_eq!((connect(&child, scene.to), connect(&parent, scene.to)), (0, EPERM));
}

#[test]
fn the_farthest_of_five_scopes_falls_off() {
    let mut scene = Scene::new();
    let command = scene.host.command(&scene.session);
    scene.host.open(&scene.session, &command, 1);
    for scope in 2..=4 {
        scene.host.enforcer().put_scope_in_front(command.pid(), ScopeId(scope)).unwrap();
    }
    assert_eq!(connect(&command, scene.to), 0, "the fourth still counts");
    scene.host.enforcer().put_scope_in_front(command.pid(), ScopeId(5)).unwrap();
    assert_eq!(connect(&command, scene.to), EPERM);
    let mark = scene.host.enforcer().mark(command.pid()).unwrap().unwrap();
    assert_eq!(mark.scopes, [5, 4, 3, 2].map(|scope| Some(ScopeId(scope))));
}

#[test]
fn a_door_closes_by_itself_when_its_time_is_up() {
    let mut scene = Scene::new();
    let command = scene.host.command(&scene.session);
    scene.host.open(&scene.session, &command, 1);
    scene.host.set_doors(&scene.session, 1, GrantSet::of(1), Duration::from_millis(400));
    assert_eq!(connect(&command, scene.to), 0);
    std::thread::sleep(Duration::from_millis(450));
    assert_eq!(connect(&command, scene.to), EPERM);
}

#[test]
fn a_stale_heartbeat_closes_every_door_but_not_the_baseline() {
    let mut scene = Scene::new();
    let (_listener, baseline) = listener(Ipv4Addr::LOCALHOST);
    let grants = vec![network(&[(Protocol::Tcp, baseline)]), network(&[(Protocol::Tcp, scene.to)])];
    let session = scene.host.session(2, &policy(grants));
    let command = scene.host.command(&session);
    scene.host.open(&session, &command, 1);
    assert_eq!(connect(&command, scene.to), 0);
    let stale = since_boot() - Duration::from_secs(5);
    scene.host.enforcer().beat(stale).unwrap();
    assert_eq!((connect(&command, scene.to), connect(&command, baseline)), (EPERM, 0));
    assert_eq!(scene.verdicts(), [Some(Verdict::HeartbeatStale)]);
    scene.host.enforcer().beat(since_boot()).unwrap();
    assert_eq!(connect(&command, scene.to), 0);
}

#[test]
fn another_sessions_scope_opens_nothing() {
    let mut scene = Scene::new();
    let other = scene.host.session(2, &policy(vec![Grant::default(), network(&[(Protocol::Tcp, scene.to)])]));
    let command = scene.host.command(&scene.session);
    scene.host.enforcer().put_scope_in_front(command.pid(), ScopeId(1)).unwrap();
    scene.host.set_doors(&other, 1, GrantSet::of(1), Duration::from_secs(60));
    assert_eq!(connect(&command, scene.to), EPERM);
    scene.host.set_doors(&scene.session, 1, GrantSet::of(1), Duration::from_secs(60));
    assert_eq!(connect(&command, scene.to), 0);
}

#[test]
fn a_full_map_is_an_error_that_names_it_and_opens_nothing() {
    let mut scene = Scene::new();
    let until = since_boot() + Duration::from_secs(60);
    let id = scene.session.id;
    let enforcer = scene.host.enforcer();
    let mut opened = 0_u64;
    let error = loop {
        match enforcer.set_doors(id, ScopeId(opened + 1), GrantSet::of(1), until, &[]) {
            Ok(()) => opened += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "map `SCOPES`: it is full");
    assert_eq!(opened, 16_384);
    enforcer.set_doors(id, ScopeId(1), GrantSet::EMPTY, Duration::ZERO, &[]).unwrap();
    enforcer.set_doors(id, ScopeId(opened + 1), GrantSet::of(1), until, &[]).unwrap();
}

#[test]
fn only_a_session_that_is_there_has_members_and_only_a_member_has_scopes() {
    let mut scene = Scene::new();
    let outside = Puppet::start().unwrap();
    let enforcer = scene.host.enforcer();
    assert!(enforcer.enrol(SessionId(9), outside.pid(), NO_IMAGE).is_err());
    assert!(enforcer.put_scope_in_front(outside.pid(), ScopeId(1)).is_err());
    assert_eq!(enforcer.mark(outside.pid()).unwrap(), None);
    let launcher = scene.host.puppet(&scene.session);
    let early = scene.host.enforcer().put_scope_in_front(launcher.pid(), ScopeId(1));
    assert!(early.is_err(), "nothing that could ask has run yet");
    assert!(scene.host.enforcer().mark(launcher.pid()).unwrap().is_some());
}

#[test]
fn the_end_of_a_process_takes_its_mark() {
    let mut scene = Scene::new();
    let puppet = scene.host.puppet(&scene.session);
    let pid = puppet.pid();
    drop(puppet);
    let enforcer = scene.host.enforcer();
    wait_until("the mark is gone", || enforcer.maps().tasks.find(&pid).unwrap().is_none());
    assert!(enforcer.mark(pid).unwrap_or(None).is_none());
}
