//! Exec: a forbidden image dies before its first instruction.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sentinel_ebpf_common::record::OPERATION_EXEC;

use super::*;
use crate::enforcer::images::first_image;

#[test]
fn an_image_without_a_rule_is_killed_and_one_with_a_rule_runs() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![programs(&[TRUE])]));
    let allowed = host.puppet(&session);
    assert_eq!(execute(&allowed, TRUE), RAN);
    let forbidden = host.puppet(&session);
    assert_eq!(execute(&forbidden, FALSE), KILLED);
    let outside = Puppet::start().unwrap();
    assert_eq!(execute(&outside, FALSE), Ending::Exited(1), "outside, it runs");
    let records = host.records();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].operation, records[0].tgid), (OPERATION_EXEC, forbidden.pid()));
    assert!(records[0].path.starts_with(b"/bin/false\0"));
}

#[test]
fn another_path_to_a_forbidden_file_is_forbidden_and_to_an_allowed_one_allowed() {
    let mut host = Host::new();
    let folder = Folder::new("exec-links");
    let (good, bad) = (folder.path().join("good"), folder.path().join("true"));
    std::os::unix::fs::symlink(TRUE, &good).unwrap();
    std::os::unix::fs::symlink(FALSE, &bad).unwrap();
    let session = host.session(1, &policy(vec![programs(&[TRUE])]));
    let (one, two) = (host.puppet(&session), host.puppet(&session));
    assert_eq!(execute(&one, good.to_str().unwrap()), RAN);
    assert_eq!(execute(&two, bad.to_str().unwrap()), KILLED);
}

#[test]
fn a_copy_of_an_allowed_file_is_another_file() {
    let mut host = Host::new();
    let folder = Folder::new("exec-copy");
    let copy = folder.path().join("true");
    fs::copy(TRUE, &copy).unwrap();
    let session = host.session(1, &policy(vec![programs(&[TRUE])]));
    let puppet = host.puppet(&session);
    assert_eq!(execute(&puppet, copy.to_str().unwrap()), KILLED);
}

#[test]
fn the_first_image_is_allowed_once_and_only_it() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let first = first_image(TRUE.as_ref()).unwrap();
    let command = host.puppet_with(&session, first);
    assert_eq!(execute(&command, TRUE), RAN);
    let other = host.puppet_with(&session, first);
    assert_eq!(execute(&other, FALSE), KILLED);
    let parent = host.puppet_with(&session, first);
    let child = parent.fork().unwrap();
    child.send(Deed::Exec(TRUE.as_ref())).unwrap();
    wait_until("the child is killed: the right is not inherited", || !child.is_alive());
    assert!(host.records().iter().any(|record| record.tgid == child.pid()));
}

#[test]
fn a_script_is_judged_by_its_interpreter() {
    let mut host = Host::new();
    let folder = Folder::new("exec-script");
    let script = |name: &str, interpreter: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!{interpreter}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, bad) = (script("good", TRUE), script("bad", FALSE));
    let session = host.session(1, &policy(vec![programs(&[TRUE])]));
    let (one, two) = (host.puppet(&session), host.puppet(&session));
    assert_eq!((execute(&one, &good), execute(&two, &bad)), (RAN, KILLED));
    let command = host.puppet_with(&session, first_image(bad.as_ref()).unwrap());
    assert_eq!(execute(&command, &bad), Ending::Exited(1), "as the session's command it runs");
}

#[test]
fn a_process_in_the_cgroup_without_a_mark_has_the_baseline_only() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![programs(&[TRUE]), programs(&[FALSE])]));
    let (one, two) = (Puppet::start().unwrap(), Puppet::start().unwrap());
    session.cgroup.add(one.pid()).unwrap();
    session.cgroup.add(two.pid()).unwrap();
    assert_eq!((execute(&one, TRUE), execute(&two, FALSE)), (RAN, KILLED));
}

#[test]
fn an_executable_of_a_grant_runs_while_it_is_open() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default(), programs(&[TRUE])]));
    let opened = host.command(&session);
    host.open(&session, &opened, 1);
    opened.send(Deed::Exec(TRUE.as_ref())).unwrap();
    wait_until("it has run", || !opened.is_alive());
    assert!(host.records().is_empty());
    let closed = host.puppet(&session);
    assert_eq!(execute(&closed, TRUE), KILLED);
}

#[test]
fn none_of_many_at_once_runs() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![programs(&[TRUE])]));
    let forbidden: Vec<Puppet> = (0..100).map(|_| host.puppet(&session)).collect();
    let allowed: Vec<Puppet> = (0..100).map(|_| host.puppet(&session)).collect();
    for (forbidden, allowed) in forbidden.iter().zip(&allowed) {
        forbidden.send(Deed::Exec(FALSE.as_ref())).unwrap();
        allowed.send(Deed::Exec(TRUE.as_ref())).unwrap();
    }
    assert!(forbidden.iter().all(|puppet| puppet.ending().unwrap() == KILLED));
    assert!(allowed.iter().all(|puppet| puppet.ending().unwrap() == RAN));
    assert_eq!(host.enforcer().missed_runs().unwrap(), 0, "no program was left out");
}
