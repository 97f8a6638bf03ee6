//! Cgroups that the configuration binds: what one look does with them.
//!
//! The cgroup is a folder with plain files in it: what the driver writes there can be read again, and nothing is stopped or killed by it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use sentinel_proto::SessionName;

use super::{World, run};
use crate::driver::bound::{Bound, BoundCgroup, Unheld};
use crate::enforcer::recording::Call;
use crate::session::cgroup::SessionCgroup;

const UID: u32 = 54_242;

impl World {
    /// A bound cgroup, in which these processes are.
    fn bind(&mut self, processes: &[u32]) -> PathBuf {
        let cgroup = self.folder.join("bound");
        fs::create_dir(&cgroup).unwrap();
        let pids: String = processes.iter().map(|pid| format!("{pid}\n")).collect();
        // As the kernel says it of one whose processes have all stopped.
        for (file, text) in [("cgroup.procs", pids.as_str()), ("cgroup.events", "populated 1\nfrozen 1\n")] {
            fs::write(cgroup.join(file), text).unwrap();
        }
        self.driver.bindings.push(Bound::new(BoundCgroup {
            cgroup: cgroup.clone(),
            shown: "/bound".to_owned(),
            session: SessionName::new("bound").unwrap(),
            policy: "test".to_owned(),
            uid: UID,
        }));
        cgroup
    }

    /// A process of the bound cgroup's user.
    fn process_of_its_user(&mut self) -> u32 {
        let child = Command::new("/bin/sleep").arg("60").uid(UID).gid(UID).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }
}

/// Whether it is frozen, and whether it was killed.
fn state_of(cgroup: &std::path::Path) -> (bool, bool) {
    let written = |file: &str| fs::read_to_string(cgroup.join(file)).is_ok_and(|text| text == "1");
    (written("cgroup.freeze"), written("cgroup.kill"))
}

#[test]
fn what_can_be_held_is_marked_and_goes_on_at_the_first_look() {
    run(async |mut world| {
        let pid = world.process_of_its_user();
        let cgroup = world.bind(&[pid]);
        world.driver.bind_cgroups();
        assert_eq!(state_of(&cgroup), (false, false));
        let calls = world.enforcer.calls();
        assert!(matches!(calls[2], Call::EnrolRunning { tgid, .. } if tgid == pid), "{calls:?}");
    });
}

#[test]
fn a_process_that_never_can_be_held_has_all_killed_at_the_first_look_without_being_let_go_on() {
    run(async |mut world| {
        let pid = world.process_of_its_user();
        // Root's, and not the service manager's program.
        let cgroup = world.bind(&[pid, std::process::id()]);
        world.driver.bind_cgroups();
        assert_eq!(state_of(&cgroup), (true, true));
        assert_eq!(world.enforcer.calls(), []);
    });
}

#[test]
fn what_the_service_manager_is_making_its_users_goes_on_for_two_looks_and_is_killed_at_the_third() {
    run(async |mut world| {
        let path = world.bind(&[]);
        let cgroup = SessionCgroup::open_bound(path.clone()).unwrap();
        for killed in [false, false, true] {
            cgroup.freeze(true).unwrap();
            world.driver.note_binding(0, &cgroup, Err(Unheld::Starting("it is root's".to_owned())));
            assert_eq!(state_of(&path), (killed, killed));
        }
    });
}

#[test]
fn what_something_else_keeps_from_being_held_stands_still_until_it_is_or_is_killed_at_the_third_look() {
    for failures in [1, 3] {
        run(async |mut world| {
            let pid = world.process_of_its_user();
            let cgroup = world.bind(&[pid]);
            for look in 1..=failures {
                world.enforcer.fail_after(0);
                world.driver.bind_cgroups();
                assert_eq!(state_of(&cgroup), (true, look == 3));
            }
            if failures == 1 {
                world.driver.bind_cgroups();
                assert_eq!(state_of(&cgroup), (false, false));
            }
        });
    }
}
