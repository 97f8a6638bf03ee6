//! `sentinel run`, from outside: whose process the command is, how it ends, and what is told of it.

mod agent;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use agent::{Agent, Behaviour};
use rustix::process::{Pid, Signal, kill_process};

fn finish(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it can be started");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// A command of the shell in a session of a well-behaved agent.
fn shell(test: &str, script: &str) -> (Option<i32>, String, String) {
    let agent = Agent::new(test, Behaviour::Serve);
    let finished = finish(agent.run(&["/bin/sh", "-c", script]));
    assert!(agent.asked().is_some());
    finished
}

/// Starts it and waits for its first line.
fn start(mut command: Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it can be started");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("it is piped"))
        .read_line(&mut line)
        .expect("it says something");
    (child, line.trim().to_owned())
}

fn has_ended(pid: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    let path = format!("/proc/{pid}/stat");
    // A zombie has ended, too: whoever inherited it has not looked yet.
    while fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z ")) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn the_exit_status_and_the_output_are_the_commands() {
    let (status, out, error) = shell("status", "echo out; echo error >&2; exit 7");
    assert_eq!((status, out.as_str()), (Some(7), "out\n"));
    assert!(error.contains("error\n"), "{error}");
    assert_eq!(shell("signal", "kill -TERM $$").0, Some(128 + 15));
}

#[test]
fn the_command_runs_as_the_agents_user_in_the_launchers_folder_with_a_cleaned_environment() {
    let agent = Agent::new("user", Behaviour::Serve);
    let script = "id -u; id -g; id -G; pwd; echo $AGENT_SENTINEL_SESSION $AGENT_SENTINEL_SOCKET $HOME ${SSH_AUTH_SOCK-none}";
    let mut command = agent.run(&["/bin/sh", "-c", script]);
    let (status, out, error) = finish({
        command.current_dir("/usr").env("SSH_AUTH_SOCK", "/tmp/agent");
        command
    });
    assert_eq!(status, Some(0), "{error}");
    assert_eq!(out, "4242\n4242\n4242\n/usr\ns1 /run/agent-sentinel/agent.sock / none\n");
    let asked = agent.asked().expect("a session was started");
    assert_eq!((asked.uid, asked.program.to_str()), (None, Some("/bin/sh")));
    assert_eq!(asked.command, ["/bin/sh", "-c", script]);
}

#[test]
fn without_root_the_command_is_held_in_a_user_namespace_as_the_caller() {
    let agent = Agent::new("rootless", Behaviour::Serve);
    let mut command = agent.run_by_copy(&[
        "/bin/sh",
        "-c",
        "id -u; ls -R /run; grep -E '^(CapBnd|Seccomp):' /proc/self/status",
    ]);
    let (status, out, error) = finish({
        command.uid(65_534).gid(65_534);
        command
    });
    assert_eq!(status, Some(0), "{error}");
    assert!(out.starts_with("65534\n/run:\nagent-sentinel\n\n/run/agent-sentinel:\nagent.sock\n"), "{out}");
    assert!(out.contains("CapBnd:\t0000000000000000\nSeccomp:\t2\n"), "{out}");
    assert_eq!(agent.asked().and_then(|asked| asked.uid), Some(65_534));
}

#[test]
fn a_denial_is_told_once_with_what_would_allow_it_and_no_control_characters() {
    let (status, _, error) = shell("notice", "sleep 0.2");
    assert_eq!(status, Some(0));
    assert_eq!(error.matches("connect to 192.0.2.1:443 (tcp)").count(), 1, "{error}");
    assert!(
        error.contains("sentinel why d1 --ledger ")
            && error.contains("  network:\nsentinel:         allow:\n"),
        "{error}"
    );
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn a_signal_to_the_launcher_reaches_the_command() {
    let agent = Agent::new("forward", Behaviour::Serve);
    let (mut launcher, ready) =
        start(agent.run(&["/bin/sh", "-c", "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done"]));
    assert_eq!(ready, "ready");
    kill_process(Pid::from_child(&launcher), Signal::USR1).expect("own child");
    assert_eq!(launcher.wait().expect("own child").code(), Some(3));
}

#[test]
fn a_command_goes_on_without_a_shared_agent_and_takes_all_that_it_started_with_it() {
    let agent = Agent::new("orphan", Behaviour::Die);
    let script = "setsid sleep 60 >/dev/null 2>&1 & echo $!; sleep 1; echo over; exit 4";
    let (mut launcher, pid) = start(agent.run(&["/bin/sh", "-c", script]));
    let mut rest = String::new();
    launcher.stdout.as_mut().expect("it is piped").read_to_string(&mut rest).expect("it says more");
    assert_eq!((launcher.wait().expect("own child").code(), rest.as_str()), (Some(4), "over\n"));
    assert!(has_ended(&pid), "{pid} lives on");
    assert!(agent.asked().is_some());
}

#[test]
fn the_command_and_all_that_it_started_are_killed_when_their_private_agent_dies() {
    let folder = std::env::temp_dir().join(format!("sentinel-run-{}-private", std::process::id()));
    fs::create_dir_all(&folder).expect("own folder");
    let policy = folder.join("policy.yaml");
    fs::write(&policy, "enforcement: {exec: {allow: [/usr/bin/setsid, /usr/bin/sleep]}}\n")
        .expect("own folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentinel"));
    command.args(["run", "--policy"]).arg(&policy).arg("--state").arg(folder.join("state"));
    command.args(["--", "/bin/sh", "-c", "setsid sleep 60 & echo $!; wait"]).env_remove("SUDO_UID");
    let (mut launcher, pid) = start(command);
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", launcher.id())).expect("it runs");
    let agent = children.split_whitespace().find(|child| {
        fs::read_to_string(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.contains("private-agent"))
    });
    let agent = agent.and_then(|pid| Pid::from_raw(pid.parse().ok()?)).expect("it has an agent");
    kill_process(agent, Signal::KILL).expect("root can kill");
    assert_eq!(launcher.wait().expect("own child").code(), Some(125));
    assert!(has_ended(&pid), "{pid} lives on");
    let instance = format!("/run/agent-sentinel/private-{}", agent.as_raw_nonzero());
    assert!(!fs::exists(&instance).expect("root can look"), "{instance} is left");
    fs::remove_dir_all(folder).expect("own folder");
}

#[test]
fn the_command_dies_with_its_launcher() {
    let agent = Agent::new("parent", Behaviour::Serve);
    let (mut launcher, pid) = start(agent.run(&["/bin/sh", "-c", "echo $$; exec sleep 60"]));
    launcher.kill().expect("own child");
    launcher.wait().expect("own child");
    assert!(has_ended(&pid), "{pid} lives on");
}

#[test]
fn streams_that_are_sockets_are_replaced_and_their_bytes_still_flow() {
    let agent = Agent::new("streams", Behaviour::Serve);
    let (mut outside, inside) = UnixStream::pair().expect("a pair of sockets");
    let inside = OwnedFd::from(inside);
    let mut command =
        agent.run(&["/bin/sh", "-c", "read line; readlink /proc/self/fd/0 /proc/self/fd/1; echo got $line"]);
    command.stdin(inside.try_clone().expect("an open socket")).stdout(inside).stderr(Stdio::null());
    let mut launcher = command.spawn().expect("it can be started");
    drop(command);
    outside.write_all(b"hello\n").expect("the launcher reads");
    let mut out = String::new();
    outside.read_to_string(&mut out).expect("the launcher writes");
    assert!(out.ends_with("got hello\n") && out.matches("pipe:").count() == 2, "{out}");
    assert!(launcher.wait().expect("own child").success());
}

#[test]
fn a_refusal_is_told_and_nothing_runs() {
    let agent = Agent::new("refused", Behaviour::Refuse);
    let (status, out, error) = finish(agent.run(&["/bin/echo", "it ran"]));
    assert_eq!((status, out.as_str()), (Some(69), ""));
    assert!(error.contains("no policy is called so") && !error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn a_working_folder_that_a_session_lacks_is_refused_before_the_command_runs() {
    let agent = Agent::new("folder", Behaviour::Serve);
    let mut command = agent.run(&["/bin/echo", "it ran"]);
    command.current_dir(
        fs::read_dir("/run")
            .expect("it is there")
            .flatten()
            .find(|entry| entry.path().is_dir())
            .expect("one is there")
            .path(),
    );
    let (status, out, error) = finish(command);
    assert_eq!((status, out.as_str()), (Some(125), ""));
    assert!(error.contains("working folder"), "{error}");
}

#[test]
fn what_can_not_be_run_is_told_by_its_exit_status_before_any_agent_is_asked() {
    let run = |variable: Option<&str>, policy: &str, user: &str, program: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sentinel"));
        command.args(["run", "--runtime", "/no/such", "--policy", policy, "--user", user, "--", program]);
        command.env_remove("AGENT_SENTINEL_SESSION");
        if let Some(session) = variable {
            command.env("AGENT_SENTINEL_SESSION", session);
        }
        let (status, out, error) = finish(command);
        assert_eq!(out, "");
        (status.expect("it exits"), error)
    };
    for (status, variable, policy, user, program, told) in [
        (127, None, "test", "nobody", "/no/such/program", "isn't there"),
        (126, None, "test", "nobody", "/etc/passwd", "can't be executed"),
        (77, Some("s1"), "test", "nobody", "/bin/true", "`s1`"),
        (64, None, "test", "root", "/bin/true", "tier `kill`"),
        (64, None, "test", "nobody at all", "/bin/true", "getent"),
        (66, None, "/no/such.yaml", "nobody", "/bin/true", "no/such.yaml"),
        (78, None, "/etc/passwd", "nobody", "/bin/true", "/etc/passwd:1:"),
        (69, None, "test", "nobody", "/bin/true", "sentinel-agent"),
    ] {
        let (found, error) = run(variable, policy, user, program);
        assert_eq!(found, status, "{error}");
        assert!(error.contains(told), "`{told}` is missing: {error}");
    }
}
