//! What holds when the agent dies: everything that was denied stays denied, and what was open closes by itself.

use std::time::{Duration, Instant};

use sentinel_tests::{Finished, Host, Server, wait_until};

#[test]
fn a_killed_agents_doors_close_within_five_seconds_and_nothing_else_ever_opens() {
    let (granted, never) = (Server::start(), Server::start());
    let mut host = Host::with_policy(format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"], exec: [/usr/bin/python3.11]}}}}\n",
        granted.address()
    ));
    let script = format!(
        r"
import socket, time, sys
def reached(address):
    # A door that shuts under a handshake eats its packets, and nobody is left who'd end it: so it doesn't wait long.
    try: socket.create_connection(address, 0.5).close(); return True
    except OSError: return False
granted, never = ('127.0.0.1', {}), ('127.0.0.1', {})
print('ready', flush=True)
start = time.monotonic(); closed = None; tries = 0
while time.monotonic() - start < float(sys.argv[1]):
    tries += 1
    if reached(never): print('REACHED', flush=True)
    if tries % 50 == 0:
        if reached(granted): closed = None
        elif closed is None: closed = time.monotonic(); print('closed', flush=True)
print('tries', tries)
",
        granted.address().port(),
        never.address().port()
    );
    // The python process is forked inside the action, so it shares its door.
    let probe = host.start_probe(&["begin=fetch", "say=begun", &format!("python={script}"), "say=over"]);
    probe.wait_for_line("ready");
    assert!(!probe.stdout().contains("closed"), "the door is open while the action is in flight");
    std::thread::sleep(Duration::from_secs(1));
    assert!(!probe.stdout().contains("closed"), "and stays open while the agent lives");
    host.kill_agent();
    let killed = Instant::now();
    probe.wait_for_line("closed");
    assert!(killed.elapsed() < Duration::from_secs(6), "closed after {:?}", killed.elapsed());
    wait_until("the probing's end", Duration::from_secs(40), || {
        never.accepted() > 0 || probe.stdout().contains("tries")
    });
    assert_eq!(never.accepted(), 0, "{}", probe.stdout());
}

#[test]
fn the_next_agent_takes_the_sessions_of_the_killed_one_over_and_interrupts_their_actions() {
    let (granted, baseline) = (Server::start(), Server::start());
    let mut host = Host::with_policy(format!(
        "budgets: {{session: 1}}\nactions:\n  call: {{grants: {{network: [\"{}\"]}}}}\nenforcement: {{network: {{allow: [\"{}\"]}}}}\n",
        granted.address(),
        baseline.address()
    ));
    let go = host.folder.join("go").display().to_string();
    let (to_granted, to_baseline) =
        (format!("connect={}", granted.address()), format!("connect={}", baseline.address()));
    let probe = host.start_probe(&[
        "begin=call,0.25",
        &to_granted,
        "say=up",
        &format!("await={go}"),
        &to_granted,
        &to_baseline,
        "end",
        "begin=call,0.5",
        &to_granted,
        "end",
        "begin=call,0.5",
        "totals",
    ]);
    probe.wait_for_line("up");
    host.kill_agent();
    host.start_agent();
    // At once: the heartbeat of the dead agent is younger than 5 s, and that of the new one is there.
    std::fs::write(&go, "").unwrap();
    let probe = probe.finish();
    let expected = [
        "begin=call,0.25 allow",
        &format!("{to_granted} ok"),
        "up",
        &format!("await={go} ok"),
        &format!("{to_granted} EPERM"),
        &format!("{to_baseline} ok"),
        "end",
        "begin=call,0.5 allow",
        &format!("{to_granted} ok"),
        "end",
        "begin=call,0.5 deny BUDGET_EXCEEDED",
        "totals session=0.75 run=0.75",
    ];
    assert_eq!(probe.lines(), expected, "{}\n{}", probe.stderr, host.log());
    let interrupted = host.ledger_of("call", "interrupted");
    assert_eq!(interrupted.len(), 1, "{:#?}", host.ledger());
    assert_eq!(interrupted[0]["cost_usd"], 0.25, "what was in flight is charged in full");
    let corrected = host.ledger_of("call", "corrected");
    assert_eq!(corrected.len(), 1, "its end came late");
    assert_eq!((&corrected[0]["ended"], &corrected[0]["id"]), (&"success".into(), &interrupted[0]["id"]));
    let verify =
        Finished::of(host.sentinel(&["ledger", "verify", &host.ledger_path().display().to_string()]));
    assert_eq!(verify.status, Some(0), "{}{}", verify.stdout, verify.stderr);
}

#[test]
fn an_agent_of_another_build_takes_the_sessions_over_without_a_gap() {
    let (named, never) = (Server::start(), Server::start());
    let mut host =
        Host::with_policy(format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", named.address()));
    let go = host.folder.join("go").display().to_string();
    let (to_named, to_never) =
        (format!("connect={}", named.address()), format!("connect={}", never.address()));
    let probe = host.start_probe(&["say=up", &format!("await={go}"), &to_named, &to_never]);
    probe.wait_for_line("up");
    host.kill_agent();
    let note = host.build_note();
    let (_object, format) = note.split_once(' ').expect("an object and a format");
    host.note_build(&format!("another {format}"));
    host.start_agent();
    wait_until("it is taken over", Duration::from_secs(10), || host.log().contains("session adopted"));
    assert!(host.log().contains("its programs are replaced, one by one"), "{}", host.log());
    assert_eq!(host.build_note(), note, "the kernel side is of this build now");
    std::fs::write(&go, "").unwrap();
    let expected = ["up", &format!("await={go} ok"), &format!("{to_named} ok"), &format!("{to_never} EPERM")];
    assert_eq!(probe.finish().lines(), expected);
}

#[test]
fn a_killed_launcher_takes_its_session_with_it() {
    let host = Host::with_policy("strict_mode: true\n");
    let marker = format!("sentinel-orphan-{}", std::process::id());
    let script = format!("import time; print('up', flush=True); time.sleep(60)  # {marker}");
    let mut run = sentinel_tests::Running::start(host.run_command(&[], &["/usr/bin/python3", "-c", &script]));
    run.wait_for_line("up");
    run.kill();
    wait_until("the end of its command", Duration::from_secs(10), || !is_running(&marker));
    wait_until("its ledger line", Duration::from_secs(5), || {
        !host.ledger_of("session.ended", "recorded").is_empty()
    });
}

#[test]
fn a_stopped_agent_leaves_no_session_behind() {
    let host = Host::with_policy("strict_mode: true\n");
    let marker = format!("sentinel-stopped-{}", std::process::id());
    let script = format!("import time; print('up', flush=True); time.sleep(60)  # {marker}");
    let run = sentinel_tests::Running::start(host.run_command(&[], &["/usr/bin/python3", "-c", &script]));
    run.wait_for_line("up");
    drop(host);
    assert!(!is_running(&marker));
    assert_ne!(run.finish().status, Some(0));
}

fn is_running(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("python3") && !line.contains("sentinel\0run") && line.contains(marker)
    })
}

#[test]
fn a_launcher_finds_the_next_agent_and_its_end_ends_the_session() {
    let mut host = Host::with_policy("strict_mode: true\n");
    let marker = format!("sentinel-adopted-{}", std::process::id());
    let script = format!("import time; print('up', flush=True); time.sleep(60)  # {marker}");
    let mut run = sentinel_tests::Running::start(host.run_command(&[], &["/usr/bin/python3", "-c", &script]));
    run.wait_for_line("up");
    host.kill_agent();
    host.start_agent();
    std::thread::sleep(Duration::from_secs(1));
    assert!(is_running(&marker), "{}", host.log());
    run.kill();
    wait_until("the end of its command", Duration::from_secs(10), || !is_running(&marker));
    wait_until("its ledger line", Duration::from_secs(10), || {
        host.ledger_of("session.ended", "recorded").len() == 1
    });
}

#[test]
fn an_agent_whose_policy_is_gone_ends_the_session_that_was_under_it() {
    let mut host = Host::builder().policy("test", "strict_mode: true\n").policy("other", "{}\n").start();
    let mut probe = host.start_probe(&["say=up", "sleep=60000"]);
    probe.wait_for_line("up");
    host.kill_agent();
    std::fs::remove_file(host.folder.join("policies/test.yaml")).unwrap();
    host.start_agent();
    wait_until("the end of the session", Duration::from_secs(10), || probe.has_ended());
    assert!(host.log().contains("its policy `test` is not there any more"), "{}", host.log());
}

#[test]
fn a_session_is_taken_over_under_the_policy_that_is_there_now() {
    let server = Server::start();
    let mut host =
        Host::with_policy(format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", server.address()));
    let go = host.folder.join("go").display().to_string();
    let connect = format!("connect={}", server.address());
    let probe = host.start_probe(&[&connect, "say=up", &format!("await={go}"), &connect]);
    probe.wait_for_line("up");
    host.kill_agent();
    host.write_policy("test", "strict_mode: true\n");
    host.start_agent();
    std::fs::write(&go, "").unwrap();
    let probe = probe.finish();
    assert_eq!(probe.lines()[3..], [format!("{connect} EPERM")], "{}", probe.stderr);
    assert_eq!(host.ledger_of("policy.changed", "recorded").len(), 1);
}

#[test]
fn a_wish_outlives_the_agent_and_the_application_goes_on_waiting_for_it() {
    let mut host = Host::with_policy("approvals: {actions: [pay], timeout_seconds: 60}\n");
    let probe = host.start_probe(&["begin=pay,0.5"]);
    let pending = |host: &Host| {
        let list = host.operate(&["approvals"]).stdout;
        let waits = list.lines().find(|line| line.contains(", waits, "));
        waits.and_then(|line| line.split_whitespace().next()).map(str::to_owned)
    };
    wait_until("a wish", Duration::from_secs(10), || pending(&host).is_some());
    let id = pending(&host).unwrap();
    host.kill_agent();
    host.start_agent();
    assert_eq!(pending(&host), Some(id.clone()));
    assert_eq!(host.operate(&["approvals", "approve", &id]).status, Some(0));
    assert_eq!(probe.finish().lines(), ["begin=pay,0.5 allow"]);
}

#[test]
fn a_paused_session_stays_paused_under_the_next_agent() {
    let mut host = Host::with_policy("strict_mode: true\n");
    let probe = host.start_probe(&["say=up", "sleep=300", "say=over"]);
    probe.wait_for_line("up");
    assert_eq!(host.operate(&["pause", "1"]).status, Some(0));
    host.kill_agent();
    host.start_agent();
    std::thread::sleep(Duration::from_secs(1));
    assert!(!probe.stdout().contains("over"));
    assert!(host.operate(&["status"]).stdout.contains("PAUSED"));
    assert_eq!(host.operate(&["resume", "1"]).status, Some(0));
    assert_eq!(probe.finish().lines(), ["up", "over"]);
}

#[test]
fn whenever_the_agent_is_killed_nothing_answered_is_lost_and_no_limit_exceeded() {
    kill_again_and_again(50);
}

#[test]
fn five_hundred_kills_lose_nothing_either() {
    kill_again_and_again(500);
}

/// Kills the agent so often while 8 processes begin and end actions without pause.
fn kill_again_and_again(kills: usize) {
    let never = Server::start();
    // Half of them soon spend what they may, the others go on to the end.
    let mut host = Host::with_policy("budgets: {actions: {call: 5}}\n");
    let stop = host.folder.join("stop").display().to_string();
    let (storm, endless) = (format!("storm={stop},call,0.01"), format!("storm={stop},endless,0.01"));
    let script = format!(
        "import os, socket, sys\nprint('up', flush=True)\nwhile not os.path.exists({stop:?}):\n    try: socket.create_connection(('127.0.0.1', {}), 1).close()\n    except OSError: pass\n",
        never.address().port()
    );
    let hammer = sentinel_tests::Running::start(
        host.run_command(&["--session", "hammer"], &["/usr/bin/python3", "-c", &script]),
    );
    hammer.wait_for_line("up");
    let pair = ["spawn", &storm, "done", "spawn", &endless, "done"];
    let steps: Vec<&str> = (0..3).flat_map(|_| pair).chain(["spawn", &storm, "done", &endless]).collect();
    let run = {
        let path = sentinel_tests::program("probe").display().to_string();
        let command: Vec<&str> = std::iter::once(path.as_str()).chain(steps).collect();
        sentinel_tests::Running::start(host.run_command(&["--session", "storm"], &command))
    };
    run.wait_for_line("started");
    for kill in 0..kills {
        // At another moment each time.
        std::thread::sleep(Duration::from_millis(20 + 7 * (kill as u64 % 9)));
        host.kill_agent();
        host.start_agent();
    }
    wait_until("a spent budget", Duration::from_secs(60), || !host.ledger_of("call", "blocked").is_empty());
    std::fs::write(&stop, "").unwrap();
    let (run, _hammer) = (run.finish(), hammer.finish());
    assert_eq!(never.accepted(), 0, "the address that was never granted was reached");

    let lines = host.ledger();
    let of = |outcome: &str| -> std::collections::BTreeSet<String> {
        let all = lines.iter().filter(|line| line["kind"] == "action" && line["outcome"] == outcome);
        all.map(|line| line["id"].as_str().unwrap().to_owned()).collect()
    };
    let started = of("started");
    let seen: Vec<&str> = run.stdout.lines().filter_map(|line| line.strip_prefix("started ")).collect();
    assert!(seen.len() > kills, "{} were let start: {}", seen.len(), run.stderr);
    let lost: Vec<&&str> = seen.iter().filter(|id| !started.contains(**id)).collect();
    assert!(lost.is_empty(), "answered but not in the ledger: {lost:?}");
    let mut endings = 0;
    let mut charged = 0.0;
    for line in &lines {
        let is_ending = !["started", "blocked", "corrected"].contains(&line["outcome"].as_str().unwrap());
        if line["kind"] == "action" && is_ending {
            assert!(started.contains(line["id"].as_str().unwrap()), "{line}");
            endings += 1;
        }
        if line["action"] == "call" {
            charged += line["cost_usd"].as_f64().unwrap();
        }
    }
    assert_eq!(endings, started.len(), "each that started ends once");
    assert!((4.99..=5.0 + 1e-6).contains(&charged), "{charged} dollars of 5");
    assert!(!of("interrupted").is_empty(), "no kill hit an action in flight");
    let ledger = host.ledger_path().display().to_string();
    let verify = Finished::of(host.sentinel(&["ledger", "verify", &ledger]));
    assert_eq!(verify.status, Some(0), "{}{}", verify.stdout, verify.stderr);
}

#[test]
fn a_full_disk_denies_with_that_reason_and_room_lets_it_go_on_by_itself() {
    let mut host = Host::with_policy("budgets: {session: 1000}\n");
    let disk = SmallDisk::tmpfs_under(&mut host);
    let fill = disk.0.join("fill");
    let break_it = || {
        let mut filler = std::fs::File::create(&fill).unwrap();
        while std::io::Write::write_all(&mut filler, &[0; 512]).is_ok() {}
    };
    goes_on_after_a_broken_disk(&host, break_it, || std::fs::remove_file(&fill).unwrap());
}

/// Begins actions, breaks the disk, is denied for it, mends the disk, and is let start again.
fn goes_on_after_a_broken_disk(host: &Host, break_it: impl FnOnce(), mend: impl FnOnce()) {
    let stop = host.folder.join("stop").display().to_string();
    let go = host.folder.join("go").display().to_string();
    let probe = host.start_probe(&[
        &format!("storm={stop},call,0.01"),
        "begin=call",
        &format!("await={go}"),
        "begin=call",
        "end",
    ]);
    probe.wait_for_line("started");
    break_it();
    std::thread::sleep(Duration::from_millis(200));
    std::fs::write(&stop, "").unwrap();
    probe.wait_for_line("begin=call deny LEDGER_UNAVAILABLE");
    mend();
    std::fs::write(&go, "").unwrap();
    let probe = probe.finish();
    assert_eq!(probe.lines()[probe.lines().len() - 2..], ["begin=call allow", "end"], "{}", probe.stderr);
    let ledger = host.ledger_path().display().to_string();
    let verify = Finished::of(host.sentinel(&["ledger", "verify", &ledger]));
    assert_eq!(verify.status, Some(0), "{}{}", verify.stdout, verify.stderr);
}

#[test]
fn a_stopped_agents_doors_close_and_open_again_when_it_goes_on() {
    let server = Server::start();
    let host = Host::with_policy(format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ));
    let (first, second) = (host.folder.join("first"), host.folder.join("second"));
    let connect = format!("connect={}", server.address());
    let probe = host.start_probe(&[
        "begin=fetch",
        &connect,
        "say=up",
        &format!("await={}", first.display()),
        &connect,
        "say=tried",
        &format!("await={}", second.display()),
        &connect,
        "end",
        &connect,
    ]);
    probe.wait_for_line("up");
    let agent = rustix::process::Pid::from_raw(host.agent_pid().cast_signed()).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    std::fs::write(&first, "").unwrap();
    probe.wait_for_line("tried");
    rustix::process::kill_process(agent, rustix::process::Signal::CONT).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    std::fs::write(&second, "").unwrap();
    let probe = probe.finish();
    let connects: Vec<&str> =
        probe.lines().into_iter().filter_map(|line| line.strip_prefix(&format!("{connect} "))).collect();
    assert_eq!(connects, ["ok", "EPERM", "ok", "EPERM"], "{}", probe.stderr);
}

#[test]
fn a_disk_that_stalls_shuts_the_doors_and_all_goes_on_when_it_answers_again() {
    let server = Server::start();
    let mut host = Host::with_policy(format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ));
    let disk = SmallDisk::ext4_under(&mut host);
    let (stalled, mended) =
        (host.folder.join("stalled").display().to_string(), host.folder.join("mended").display().to_string());
    let connect = format!("connect={}", server.address());
    let (await_stalled, await_mended) = (format!("await={stalled}"), format!("await={mended}"));
    let probe = host.start_probe(&[
        "begin=fetch",
        &connect,
        "say=up",
        &await_stalled,
        &connect,
        "say=tried",
        &await_mended,
        &connect,
        "end",
        "begin=fetch",
        &connect,
        "end",
    ]);
    probe.wait_for_line("up");
    disk.freeze();
    // Somebody else asks meanwhile, so that the agent has something to write.
    let other = host.start_probe(&["begin=fetch", &connect]);
    std::thread::sleep(Duration::from_secs(6));
    std::fs::write(&stalled, "").unwrap();
    probe.wait_for_line("tried");
    disk.thaw();
    std::thread::sleep(Duration::from_secs(2));
    std::fs::write(&mended, "").unwrap();
    let (probe, other) = (probe.finish(), other.finish());
    let connects: Vec<&str> =
        probe.lines().into_iter().filter_map(|line| line.strip_prefix(&format!("{connect} "))).collect();
    assert_eq!(connects, ["ok", "EPERM", "ok", "ok"], "{}\n{}\n{}", probe.stderr, host.log(), other.stdout);
    let ledger = host.ledger_path().display().to_string();
    let verify = Finished::of(host.sentinel(&["ledger", "verify", &ledger]));
    assert_eq!(verify.status, Some(0), "{}{}", verify.stdout, verify.stderr);
}

#[test]
fn a_disk_that_turns_read_only_denies_new_actions_and_shuts_the_doors_of_those_that_end() {
    let server = Server::start();
    let mut host = Host::with_policy(format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ));
    let disk = SmallDisk::ext4_under(&mut host);
    let go = host.folder.join("go").display().to_string();
    let (connect, await_go) = (format!("connect={}", server.address()), format!("await={go}"));
    let probe = host.start_probe(&[
        "begin=fetch",
        &connect,
        "say=up",
        &await_go,
        "end",
        &connect,
        "begin=fetch",
        &connect,
    ]);
    probe.wait_for_line("up");
    // What was written so far gets to the disk first: else the agent doesn't know what its ledger holds, and ends.
    std::thread::sleep(Duration::from_secs(2));
    disk.turn_read_only();
    std::fs::write(&go, "").unwrap();
    let probe = probe.finish();
    let after = &probe.lines()[4..];
    assert_eq!(after[0], "end", "{}", probe.stdout);
    assert_eq!(after[1], format!("{connect} EPERM"));
    assert!(
        ["begin=fetch deny LEDGER_UNAVAILABLE", "begin=fetch deny AGENT_UNAVAILABLE"].contains(&after[2]),
        "{}\n{}",
        probe.stdout,
        host.log()
    );
    assert_eq!(after[3], format!("{connect} EPERM"));
    assert!(host.log().contains("Read-only file system"), "{}", host.log());
}

/// A small disk under an agent's ledger, which goes at the end, also after a failure.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// One in memory, which is soon full. Starts the agent anew on it.
    fn tmpfs_under(host: &mut Host) -> Self {
        Self::under(host, |_| {
            ["-t", "tmpfs", "-o", "size=256k,mode=0700", "sentinel-test"].map(str::to_owned).to_vec()
        })
    }

    /// One like a real disk, which can stand still and turn read-only. Starts the agent anew on it.
    fn ext4_under(host: &mut Host) -> Self {
        Self::under(host, |host| {
            let image = host.folder.join("disk").display().to_string();
            std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
            command("mkfs.ext4", &["-q", "-F", &image]);
            ["-o", "loop", &image].map(str::to_owned).to_vec()
        })
    }

    fn under(host: &mut Host, mount: impl FnOnce(&Host) -> Vec<String>) -> Self {
        host.kill_agent();
        let mut arguments = mount(host);
        let disk = Self(host.folder.join("state"));
        arguments.push(disk.path());
        command("mount", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        std::fs::set_permissions(&disk.0, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        host.start_agent();
        disk
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }

    /// Whoever writes there waits.
    fn freeze(&self) {
        command("fsfreeze", &["--freeze", &self.path()]);
    }

    fn thaw(&self) {
        command("fsfreeze", &["--unfreeze", &self.path()]);
    }

    /// As ext4 does by itself after an error. A plain remount is refused while the ledger is open.
    fn turn_read_only(&self) {
        command("mount", &["-o", "remount,abort", &self.path()]);
    }
}

fn command(name: &str, arguments: &[&str]) {
    let status = std::process::Command::new(name).args(arguments).status();
    assert!(status.unwrap().success(), "{name} {arguments:?}");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A frozen one couldn't be left by those who wait for it.
        let mut thaw = std::process::Command::new("fsfreeze");
        drop(thaw.arg("--unfreeze").arg(&self.0).stderr(std::process::Stdio::null()).status());
        drop(std::process::Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}
