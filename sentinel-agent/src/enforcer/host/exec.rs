//! Exec: a forbidden image is refused at tier `lsm`, and at tier `kill` dies before its first instruction.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::enforcer::images::{command_image, file_image, first_image};

#[test]
fn an_image_without_a_rule_is_denied_and_one_with_a_rule_runs() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![programs(&[TRUE])]));
    let allowed = host.puppet(&session);
    assert_eq!(execute(&allowed, TRUE), RAN);
    let forbidden = host.puppet(&session);
    assert_eq!(execute(&forbidden, FALSE), host.denied());
    let outside = Puppet::start().unwrap();
    assert_eq!(execute(&outside, FALSE), Ending::Exited(1), "outside, it runs");
    let records = host.records();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].operation, records[0].tgid), (host.denied_exec(), forbidden.pid()));
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
    assert_eq!(execute(&two, bad.to_str().unwrap()), host.denied());
}

#[test]
fn a_copy_of_an_allowed_file_is_another_file() {
    let mut host = Host::new();
    let folder = Folder::new("exec-copy");
    let copy = folder.path().join("true");
    fs::copy(TRUE, &copy).unwrap();
    let session = host.session(1, &policy(vec![programs(&[TRUE])]));
    let puppet = host.puppet(&session);
    assert_eq!(execute(&puppet, copy.to_str().unwrap()), host.denied());
}

#[test]
fn the_first_image_is_allowed_once_and_only_it() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let first = first_image(TRUE.as_ref()).unwrap();
    let command = host.puppet_with(&session, first);
    assert_eq!(execute(&command, TRUE), RAN);
    let other = host.puppet_with(&session, first);
    assert_eq!(execute(&other, FALSE), host.denied());
    let parent = host.puppet_with(&session, first);
    let child = parent.fork().unwrap();
    assert!(host.is_denied(&child, TRUE), "the right is not inherited");
    assert!(host.records().iter().any(|record| record.tgid == child.pid()));
}

fn script(folder: &Folder, name: &str, interpreter: &str) -> String {
    script_of(folder, name, &format!("#!{interpreter}\n"))
}

pub(super) fn script_of(folder: &Folder, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_script_needs_its_interpreter_allowed_and_at_tier_lsm_itself_too() {
    let mut host = Host::new();
    let folder = Folder::new("exec-script");
    let (listed, unlisted) = (script(&folder, "listed", TRUE), script(&folder, "unlisted", TRUE));
    let bad = script(&folder, "bad", FALSE);
    let session = host.session(1, &policy(vec![programs(&[TRUE, &listed])]));
    let (one, two, three) = (host.puppet(&session), host.puppet(&session), host.puppet(&session));
    assert_eq!((execute(&one, &listed), execute(&two, &bad)), (RAN, host.denied()));
    let by_interpreter = if host.is_lsm() { host.denied() } else { RAN };
    assert_eq!(execute(&three, &unlisted), by_interpreter);
}

#[test]
fn a_session_may_execute_its_command_though_it_is_a_script_and_only_once() {
    let mut host = Host::new();
    let folder = Folder::new("exec-command-script");
    // A script whose interpreter is a script, whose interpreter is the command's image.
    let inner = script(&folder, "inner", FALSE);
    let outer = script(&folder, "outer", &inner);
    let session = host.session(1, &policy(vec![Grant::default()]));
    let first = command_image(outer.as_ref(), host.tier).unwrap();
    let command = host.puppet_with(&session, first);
    assert_eq!(execute(&command, &outer), Ending::Exited(1));
    let other = host.puppet_with(&session, first);
    assert_eq!(execute(&other, TRUE), host.denied());
    if host.is_lsm() {
        // One that was refused lives on, and has had its turn.
        assert_eq!(execute(&other, &outer), host.denied());
        let other = host.puppet_with(&session, first);
        assert_eq!(execute(&other, &inner), host.denied(), "an interpreter by itself");
    }
}

#[test]
fn the_commands_own_image_is_executed_once_and_not_again_without_a_rule() {
    const SHELL: &str = "/bin/sh";
    let mut host = Host::new();
    let folder = Folder::new("exec-again");
    let again = script_of(&folder, "again", "#!/bin/sh\nexec /bin/sh -c 'exit 3'\n");
    let first = command_image(again.as_ref(), host.tier).unwrap();
    let without = host.session(1, &policy(vec![Grant::default()]));
    let command = host.puppet_with(&without, first);
    // What a shell exits with that isn't let execute.
    let refused = if host.is_lsm() { Ending::Exited(126) } else { KILLED };
    assert_eq!(execute(&command, &again), refused);
    let with = host.session(2, &policy(vec![programs(&[SHELL])]));
    let command = host.puppet_with(&with, first);
    assert_eq!(execute(&command, &again), Ending::Exited(3));
}

#[test]
fn what_an_exec_that_failed_was_allowed_is_allowed_to_no_other() {
    let mut host = Host::new();
    if !host.is_lsm() {
        // At tier `kill` an exec that fails is not seen, and the right stays for the one that doesn't.
        let session = host.session(1, &policy(vec![Grant::default()]));
        let command = host.puppet_with(&session, first_image(TRUE.as_ref()).unwrap());
        assert_eq!(execute(&command, "/nonexistent"), Ending::Refused(libc::ENOENT));
        assert_eq!(execute(&command, TRUE), RAN);
        return;
    }
    let folder = Folder::new("exec-failed");
    let broken = script(&folder, "broken", "/nonexistent");
    let session = host.session(1, &policy(vec![Grant::default()]));
    let command = host.puppet_with(&session, file_image(broken.as_ref()).unwrap());
    assert_eq!(execute(&command, &broken), Ending::Refused(libc::ENOENT));
    assert_eq!(execute(&command, TRUE), host.denied());
    let script_of_false = script(&folder, "other", FALSE);
    assert_eq!(execute(&command, &script_of_false), host.denied());
}

#[test]
fn a_process_in_the_cgroup_without_a_mark_has_the_baseline_only() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![programs(&[TRUE]), programs(&[FALSE])]));
    let (one, two) = (Puppet::start().unwrap(), Puppet::start().unwrap());
    session.cgroup.add(one.pid()).unwrap();
    session.cgroup.add(two.pid()).unwrap();
    assert_eq!((execute(&one, TRUE), execute(&two, FALSE)), (RAN, host.denied()));
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
    assert_eq!(execute(&closed, TRUE), host.denied());
}

#[test]
fn an_executable_of_a_grant_is_denied_while_the_heartbeat_is_stale_and_one_of_the_baseline_is_not() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![programs(&[TRUE]), programs(&[FALSE])]));
    let (one, two) = (host.command(&session), host.command(&session));
    host.open(&session, &one, 1);
    host.enforcer().beat(since_boot() - Duration::from_secs(5)).unwrap();
    assert!(host.is_denied(&one, FALSE));
    assert!(host.comes_through(&two, TRUE));
    // At tier `kill` a puppet's child that ran to its end is gone like one that was killed: the report tells.
    let denied: Vec<(u32, u32)> = host.records().iter().map(|record| (record.tgid, record.verdict)).collect();
    assert_eq!(denied, [(one.pid(), sentinel_ebpf_common::verdict::Verdict::HeartbeatStale as u32)]);
}

#[test]
fn the_mark_of_a_dead_process_with_the_same_pid_holds_nobody() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    // In no cgroup of a session: it is held by its mark alone.
    let (marked, like_reused) = (Puppet::start().unwrap(), Puppet::start().unwrap());
    for puppet in [&marked, &like_reused] {
        host.enforcer().enrol_running(session.id, puppet.pid()).unwrap();
    }
    host.enforcer().make_mark_old(like_reused.pid()).unwrap();
    assert_eq!((execute(&marked, TRUE), execute(&like_reused, TRUE)), (host.denied(), RAN));
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
    assert!(forbidden.iter().all(|puppet| puppet.fate().unwrap() == host.denied()));
    assert!(allowed.iter().all(|puppet| puppet.fate().unwrap() == RAN));
    assert_eq!(host.enforcer().missed_runs().unwrap(), 0, "no program was left out");
}
