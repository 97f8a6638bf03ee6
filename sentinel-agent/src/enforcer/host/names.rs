//! What is the agent's, by whatever name or call: not changed at tier `lsm`, and what is beside it is. At tier `kill` the launcher hides it.

use std::fs;

use sentinel_ebpf_common::record::OPERATION_WRITE;

use super::Given::{Bytes, Number};
use super::exec::script_of;
use super::surface::{HERE, c_path, open, two};
use super::*;
use crate::enforcer::images::command_image;

/// Two folders of the same content, of which the first is the agent's.
fn folders(host: &mut Host, folder: &Folder) -> (PathBuf, PathBuf) {
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    for folder in [&own, &other] {
        fs::create_dir_all(folder.join("deep/empty")).unwrap();
        fs::write(folder.join("deep/ledger"), "1").unwrap();
    }
    host.enforcer().keep_own(&[own.clone(), folder.path().join("missing")]).unwrap();
    (own, other)
}

/// A call that takes two names.
fn from_to(puppet: &Puppet, number: libc::c_long, from: &Path, to: &Path) -> i32 {
    let (from, to) = (c_path(from), c_path(to));
    let here = Argument::Number(-100);
    let arguments = [here, Argument::Place(&from), here, Argument::Place(&to), Argument::Number(0)];
    puppet.order(Deed::Call(number, &arguments)).unwrap()
}

#[test]
fn what_is_the_agents_is_not_changed_by_any_name_and_what_is_beside_it_is() {
    let mut host = Host::new();
    let folder = Folder::new("names-changed");
    let (own, other) = folders(&mut host, &folder);
    let (inside, outside) = two(&mut host);
    let deeds = |puppet: &Puppet, folder: &Path| {
        let (deep, ledger) = (folder.join("deep"), folder.join("deep/ledger"));
        let one = |number, path: &Path, more: &[Given]| {
            let arguments: Vec<_> = [HERE, Bytes].into_iter().chain(more.iter().copied()).collect();
            call_with(puppet, number, &arguments, &c_path(path))
        };
        [
            open(puppet, &ledger, libc::O_WRONLY),
            open(puppet, &deep.join("new"), libc::O_RDONLY | libc::O_CREAT),
            one(libc::SYS_mkdirat, &deep.join("folder"), &[Number(0o755)]),
            one(libc::SYS_unlinkat, &deep.join("empty"), &[Number(0x200)]),
            one(libc::SYS_mknodat, &deep.join("pipe"), &[Number(0o010_600), Number(0)]),
            call_with(puppet, libc::SYS_truncate, &[Bytes, Number(0)], &c_path(&ledger)),
            call_with(puppet, libc::SYS_symlinkat, &[Bytes, HERE, Bytes], &c_path(&deep.join("link"))),
            from_to(puppet, libc::SYS_linkat, &ledger, &deep.join("second name")),
            from_to(puppet, libc::SYS_renameat2, &ledger, &deep.join("other name")),
            one(libc::SYS_unlinkat, &deep.join("other name"), &[Number(0)]),
        ]
    };
    assert_eq!(deeds(&outside, &other), [0; 10]);
    fs::remove_dir_all(&other).unwrap();
    fs::create_dir_all(other.join("deep/empty")).unwrap();
    fs::write(other.join("deep/ledger"), "1").unwrap();
    assert_eq!(deeds(&inside, &other), [0; 10]);
    assert_eq!(open(&inside, &own.join("deep/ledger"), libc::O_RDONLY), 0);
    if host.is_lsm() {
        let mut expected = [-EPERM; 10];
        // What was not given another name can't be removed by it.
        expected[9] = -libc::ENOENT;
        assert_eq!(deeds(&inside, &own), expected);
        assert!(!own.join("deep/new").exists(), "not even an empty file is made");
        let unlinked = call_with(
            &inside,
            libc::SYS_unlinkat,
            &[HERE, Bytes, Number(0)],
            &c_path(&own.join("deep/ledger")),
        );
        assert_eq!(unlinked, -EPERM);
    }
    host.expect_only(OPERATION_WRITE, &inside);
}

#[test]
fn what_is_the_agents_gets_no_name_elsewhere_by_which_it_could_be_changed_and_nothing_takes_its_place() {
    let mut host = Host::new();
    let folder = Folder::new("names-elsewhere");
    let (own, other) = folders(&mut host, &folder);
    let (inside, outside) = two(&mut host);
    let (ledger, foreign) = (own.join("deep/ledger"), other.join("deep/ledger"));
    for (number, what) in [(libc::SYS_linkat, "link"), (libc::SYS_renameat2, "rename")] {
        let outwards = from_to(&inside, number, &ledger, &other.join(what));
        assert_eq!(outwards, host.refused(0), "{what}");
        if !host.is_lsm() {
            fs::rename(other.join(what), &ledger).unwrap();
        }
        let inwards = from_to(&inside, number, &foreign, &own.join(what));
        assert_eq!(inwards, host.refused(0), "{what}");
        if !host.is_lsm() {
            fs::rename(own.join(what), &foreign).unwrap();
        }
        host.expect_only(OPERATION_WRITE, &inside);
        assert_eq!(from_to(&outside, number, &ledger, &other.join(format!("{what} of outside"))), 0);
        fs::rename(other.join(format!("{what} of outside")), &ledger).unwrap();
    }
}

#[test]
fn a_sessions_first_process_is_held_as_soon_as_it_is_the_command() {
    let mut host = Host::new();
    let folder = Folder::new("names-command");
    let (own, other) = folders(&mut host, &folder);
    let write =
        |folder: &Path, status: u8| format!("echo 2 >{}/deep/ledger && exit {status}\n", folder.display());
    // The shell writes by itself: a child has none of the launcher's freedom in any case.
    let text = format!("#!/bin/sh\n{}{}", write(&own, 3), write(&other, 4));
    let command = script_of(&folder, "command", &text);
    let session = host.session(1, &policy(vec![Grant::default()]));
    let first = command_image(command.as_ref(), host.tier).unwrap();
    let puppet = host.puppet_with(&session, first);
    let written = if host.is_lsm() { (4, "1") } else { (3, "2\n") };
    assert_eq!(execute(&puppet, &command), Ending::Exited(written.0));
    assert_eq!(fs::read_to_string(own.join("deep/ledger")).unwrap(), written.1);
    host.expect_only(OPERATION_WRITE, &puppet);
}
