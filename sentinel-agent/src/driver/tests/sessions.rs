//! How sessions begin and end.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use sentinel_engine::{Fact, SessionEnding};
use sentinel_proto::admin::{self, StartSession};
use sentinel_proto::app::RefusalCode;
use sentinel_proto::{Decision, Money};

use super::{World, run};
use crate::clock::since_boot;
use crate::connection::{Arrival, Door, Message};
use crate::enforcer::recording::Call;
use crate::enforcer::{Enforcer as _, Mark};

fn endings(world: &World) -> Vec<SessionEnding> {
    let facts = world.facts();
    let endings = facts.iter().filter_map(|fact| match fact {
        Fact::SessionEnded { ending, .. } => Some(ending.clone()),
        _ => None,
    });
    endings.collect()
}

#[test]
fn a_session_has_rules_mark_and_cgroup_before_it_is_answered() {
    run(async |mut world| {
        let (_launcher, started) = world.start(None);
        let started = started.unwrap();
        let child = world.children[0].id();
        assert!(matches!(world.facts()[..], [Fact::SessionStarted { .. }]));
        let calls = world.enforcer.calls();
        assert!(
            matches!(calls[..2], [Call::StartSession { .. }, Call::Enrol { tgid, .. }] if tgid == child),
            "{calls:?}"
        );
        let held = std::fs::read_to_string(started.cgroup.join("cgroup.procs")).unwrap();
        assert_eq!(held, child.to_string());
        assert_eq!((started.name.as_str(), started.uid), ("s1", 1_990_000_001));
    });
}

#[test]
fn whichever_step_of_a_start_fails_nothing_stays_and_the_cause_is_told() {
    for failing in 0..2 {
        run(async |mut world| {
            world.enforcer.fail_after(failing);
            let (_launcher, started) = world.start(None);
            let refused = started.unwrap_err();
            assert_eq!((refused.code, refused.request), (RefusalCode::Failed, Some(1)));
            assert!(refused.message.contains("fails as the test asked"), "{}", refused.message);
            assert!(matches!(endings(&world)[..], [SessionEnding::StartFailed { .. }]));
            assert!(world.driver.sessions.is_empty());
            assert!(world.enforcer.calls().iter().any(|call| matches!(call, Call::StopSession { .. })));
            assert!(world.start(None).1.is_ok(), "the next one starts");
        });
    }
}

#[test]
fn a_mark_that_outlived_its_process_is_forgotten_and_that_of_a_zombie_is_not() {
    run(async |mut world| {
        let session = world.start(None).1.unwrap().session;
        let (gone, zombie) = (world.child(), world.child());
        for child in &mut world.children[1..] {
            child.kill().unwrap();
        }
        world.children[1].wait().unwrap();
        for tgid in [gone, zombie] {
            world.enforcer.set_mark(tgid, Mark { session, scopes: [None; 4], marked_at: since_boot() });
        }
        // The kernel side may still be about to do it.
        world.driver.end_strays();
        let is_marked = |tgid: u32| world.enforcer.mark(tgid).unwrap().is_some();
        assert!(is_marked(gone));
        world.driver.end_strays();
        assert!(!is_marked(gone) && is_marked(zombie));
        assert!(is_marked(world.children[0].id()), "who lives keeps it");
    });
}

#[test]
fn a_child_without_a_mark_gets_one_and_who_was_moved_in_is_killed() {
    run(async |mut world| {
        // This process bears the session's mark.
        let (session, _launcher, _application) = world.session();
        let user = 1_990_000_000 + session.0;
        let mut born = Command::new("/bin/sleep").arg("60").uid(user).gid(user).spawn().unwrap();
        let orphaned = Command::new("/bin/sh")
            .args(["-c", "sleep 60 >/dev/null 2>&1 & echo $!"])
            .uid(user)
            .gid(user)
            .output()
            .unwrap();
        let moved: u32 = String::from_utf8(orphaned.stdout).unwrap().trim().parse().unwrap();
        let inside = [world.children[0].id(), born.id(), moved].map(|pid| pid.to_string()).join("\n");
        let cgroup = world.driver.sessions[&session].cgroup.path();
        std::fs::write(cgroup.join("cgroup.procs"), inside).unwrap();
        world.driver.end_strays();
        let is_marked = |pid: u32| world.enforcer.mark(pid).unwrap().is_some();
        assert!(!is_marked(born.id()), "whoever is being forked has none for a moment");
        world.driver.end_strays();
        assert_eq!((is_marked(born.id()), is_marked(moved)), (true, false));
        assert!(born.try_wait().unwrap().is_none());
        let stat = format!("/proc/{moved}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            std::thread::sleep(Duration::from_millis(5));
        }
        born.kill().unwrap();
        born.wait().unwrap();
    });
}

#[test]
fn a_session_that_cannot_be_written_does_not_start() {
    run(async |mut world| {
        world.ledger.fail_after(0);
        let (_launcher, started) = world.start(None);
        assert_eq!(started.unwrap_err().code, RefusalCode::Failed);
        assert!(world.enforcer.calls().is_empty() && world.driver.sessions.is_empty());
    });
}

#[test]
fn a_policy_that_is_not_there_is_named_with_those_that_are() {
    run(async |mut world| {
        let mut launcher = world.connect(Door::Operator);
        let start = StartSession {
            request: 3,
            policy: "tset".to_owned(),
            name: None,
            command: Vec::new(),
            program: "/bin/true".into(),
            uid: None,
        };
        world.deliver(&launcher, Message::Operator(admin::Request::StartSession(Box::new(start)), None));
        let Some(admin::Reply::Refused(refused)) = launcher.receive() else { panic!("not refused") };
        assert_eq!((refused.code, refused.request), (RefusalCode::NotFound, Some(3)));
        assert!(
            refused.message.contains("`tset`") && refused.message.ends_with("test"),
            "{}",
            refused.message
        );
    });
}

#[test]
fn a_session_ends_with_its_launcher() {
    run(async |mut world| {
        let (session, launcher, mut application) = world.session();
        world.begin(&mut application, "fetch");
        world.driver.handle(Arrival::Closed(launcher.ours));
        assert_eq!(endings(&world), [SessionEnding::LauncherGone]);
        assert!(world.driver.sessions.is_empty() && world.driver.actions.is_empty());
        assert!(world.enforcer.calls().contains(&Call::StopSession { session }));
    });
}

#[test]
fn a_session_ends_when_its_command_and_all_its_processes_are_gone() {
    run(async |mut world| {
        let (_launcher, started) = world.start(None);
        started.unwrap();
        world.driver.tick();
        assert!(endings(&world).is_empty(), "its command runs");
        let mut command = world.children.pop().unwrap();
        command.kill().unwrap();
        command.wait().unwrap();
        world.clock.advance(std::time::Duration::from_secs(1));
        world.driver.tick();
        assert_eq!(endings(&world), [SessionEnding::Exited]);
    });
}

#[test]
fn a_named_session_is_one_at_a_time_and_goes_on_with_its_totals() {
    run(async |mut world| {
        let (launcher, started) = world.start(Some("daily"));
        let session = started.unwrap().session;
        let (_second, refused) = world.start(Some("daily"));
        assert!(refused.unwrap_err().message.contains("`daily` is running"));

        let mark =
            crate::enforcer::Mark { session, scopes: [None; 4], marked_at: crate::clock::since_boot() };
        world.enforcer.set_mark(std::process::id(), mark);
        let mut application = world.connect(Door::Application);
        assert_eq!(world.begin(&mut application, "think").decision, Decision::Allow);
        world.driver.handle(Arrival::Closed(application.ours));
        world.driver.handle(Arrival::Closed(launcher.ours));
        world.enforcer.forget_mark(std::process::id());
        // A cgroup in a temporary folder has files that don't go with it.
        std::fs::remove_dir_all(world.folder.join(session.to_string())).unwrap();
        let (_launcher, started) = world.start(Some("daily"));
        assert_eq!(started.unwrap().session, session);
        assert_eq!(world.spent(session), Money::from_decimal("0.1").unwrap(), "a restart doesn't refill it");
    });
}

#[test]
fn a_process_that_the_sender_may_not_speak_for_gets_no_session() {
    run(async |mut world| {
        let mut launcher = world.connect(Door::Operator);
        let start = StartSession {
            request: 3,
            policy: "test".to_owned(),
            name: None,
            command: Vec::new(),
            program: "/bin/true".into(),
            uid: None,
        };
        // The sender's parent: not its child. Its uid is another's, as far as the kernel's word goes.
        let stranger = world.child();
        launcher.sender.pid = stranger;
        launcher.sender.uid = 4_000_000_000;
        let pidfd = crate::peer::open_pidfd(std::process::id()).unwrap();
        let message = Message::Operator(admin::Request::StartSession(Box::new(start)), Some(pidfd));
        world.deliver(&launcher, message);
        let Some(admin::Reply::Refused(refused)) = launcher.receive() else { panic!("not refused") };
        assert!(refused.message.contains("neither a child"), "{}", refused.message);
        assert!(world.facts().is_empty());
    });
}

#[test]
fn while_the_host_is_found_not_to_enforce_no_session_starts_and_the_ledger_says_so() {
    run(async |mut world| {
        world.enforcer.fail_examinations(Some("error 0 instead of 1"));
        world.driver.tick();
        world.clock.advance(Duration::from_secs(601));
        world.driver.tick();
        let refused = world.start(None).1.unwrap_err();
        assert!(
            refused.message.contains("does not enforce what it is told (a connect: error 0"),
            "{}",
            refused.message
        );

        world.enforcer.fail_examinations(None);
        world.clock.advance(Duration::from_secs(601));
        world.driver.tick();
        assert!(world.start(None).1.is_ok(), "it enforces again");
        let facts = world.facts();
        let found = facts.iter().filter_map(|fact| match fact {
            Fact::Examined { failure } => Some(failure.is_some()),
            _ => None,
        });
        assert_eq!(found.collect::<Vec<_>>(), [true, false], "only changes are told");
    });
}
