//! `sentinel run`: whose process the command becomes, and what it can't reach.

use std::time::Duration;

use sentinel_tests::{Finished, Host, Running, program, wait_until};

fn python(host: &Host, options: &[&str], script: &str) -> Finished {
    Running::start(host.run_command(options, &["/usr/bin/python3", "-c", script])).finish()
}

#[test]
fn the_commands_output_and_exit_status_are_its_own() {
    let host = Host::with_policy("strict_mode: true\n");
    let finished = python(&host, &[], "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)");
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(7), "out\n"));
    assert!(finished.stderr.contains("err"));
    assert_eq!(python(&host, &[], "import os; os.kill(os.getpid(), 15)").status, Some(128 + 15));
}

#[test]
fn a_command_that_is_not_there_or_no_program_has_the_shells_exit_status() {
    let host = Host::with_policy("strict_mode: true\n");
    assert_eq!(host.run(&["/no/such/program"]).status, Some(127));
    assert_eq!(host.run(&["/etc/passwd"]).status, Some(126));
}

#[test]
fn a_command_never_runs_as_root() {
    let host = Host::with_policy("strict_mode: true\n");
    let finished = python(&host, &[], "import os; print(os.getresuid(), os.getgroups())");
    assert!(!finished.stdout.contains("(0,"), "{}", finished.stdout);
    let finished = python(&host, &["--user", "nobody"], "import os; print(os.getuid())");
    assert_eq!(finished.stdout, "65534\n", "{}", finished.stderr);
    let refused = python(&host, &["--user", "root"], "print('ran')");
    assert!(
        refused.stdout.is_empty() && refused.status != Some(0) && refused.stderr.contains("root"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_command_has_no_capabilities_and_can_gain_none() {
    let host = Host::with_policy("strict_mode: true\n");
    let finished = python(&host, &[], "print(open('/proc/self/status').read())");
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(finished.stdout.contains(line), "`{line}` is missing:\n{}", finished.stdout);
    }
}

#[test]
fn what_belongs_to_the_agent_is_not_there() {
    let host = Host::with_policy("strict_mode: true\n");
    let script = format!(
        "import os\nfor path in ['{0}/state', '{0}/policies', '{0}/run', '/run', '/sys/fs/bpf']:\n  try: print(path, sorted(os.listdir(path)))\n  except OSError as e: print(path, e.errno)",
        host.folder.display()
    );
    let finished = python(&host, &[], &script);
    for forbidden in ["ledger.jsonl", "test.yaml", "admin.sock", "postgresql"] {
        assert!(!finished.stdout.contains(forbidden), "{}", finished.stdout);
    }
    assert_eq!(finished.lines().len(), 5, "{}", finished.stderr);
}

#[test]
fn a_command_can_not_leave_its_cgroup_or_its_namespaces() {
    let host = Host::with_policy("strict_mode: true\n");
    let script = r"
import ctypes, glob, os
libc = ctypes.CDLL(None, use_errno=True)
wrote = 0
for line in open('/proc/self/mountinfo'):
    if ' - cgroup' in line:
        for file in glob.glob(line.split()[4] + '/**/cgroup.procs', recursive=True):
            try: open(file, 'w').write(str(os.getpid())); wrote += 1
            except OSError: pass
print('wrote', wrote)
print('unshare', libc.unshare(0x10000000), libc.unshare(0x00020000))
print('bpf', libc.syscall(321, 0, 0, 0), 'ptrace', libc.ptrace(16, os.getppid(), 0, 0), 'io_uring', libc.syscall(425, 1, 0))
print('mount', libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0))
";
    let finished = python(&host, &[], script);
    assert_eq!(
        finished.stdout, "wrote 0\nunshare -1 -1\nbpf -1 ptrace -1 io_uring -1\nmount -1\n",
        "{}",
        finished.stderr
    );
}

#[test]
fn a_listening_socket_of_the_host_is_not_reachable() {
    let path = std::env::temp_dir().join(format!("sentinel-docker-{}.sock", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let host = Host::with_policy("strict_mode: true\n");
    let script = format!(
        "import socket\ntry: socket.socket(socket.AF_UNIX).connect('{}'); print('reached')\nexcept OSError: print('not')",
        path.display()
    );
    assert_eq!(python(&host, &[], &script).stdout, "not\n");
    drop(std::os::unix::net::UnixStream::connect(&path).expect("outside it is reached"));
    drop(listener);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_listening_socket_that_the_policy_names_is_reachable() {
    let path = std::env::temp_dir().join(format!("sentinel-named-{}.sock", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let host = Host::with_policy(format!("enforcement: {{unix: {{allow: [{}]}}}}\n", path.display()));
    let script = format!(
        "import socket\ntry: socket.socket(socket.AF_UNIX).connect('{}'); print('reached')\nexcept OSError as e: print('not', e)",
        path.display()
    );
    let finished = python(&host, &[], &script);
    assert_eq!(finished.stdout, "reached\n", "{}", finished.stderr);
    drop(listener);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_run_inside_a_session_is_refused() {
    let host = Host::with_policy(format!(
        "enforcement: {{exec: {{allow: [{{path: {}, writable: accept}}]}}}}\n",
        program("sentinel").display()
    ));
    let script = format!(
        "import subprocess\nprint(subprocess.run(['{}', 'run', '--policy', 'test', '--', '/bin/true']).returncode)",
        program("sentinel").display()
    );
    let finished = python(&host, &[], &script);
    assert!(
        !finished.stdout.starts_with('0') && !finished.stdout.is_empty(),
        "{}{}",
        finished.stdout,
        finished.stderr
    );
}

#[test]
fn a_signal_to_the_launcher_reaches_the_command() {
    let host = Host::with_policy("strict_mode: true\n");
    let script = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('term', flush=True), sys.exit(3)))\nprint('up', flush=True)\ntime.sleep(30)";
    let run = Running::start(host.run_command(&[], &["/usr/bin/python3", "-c", script]));
    run.wait_for_line("up");
    let pid = rustix::process::Pid::from_raw(run.pid().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let finished = run.finish();
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(3), "up\nterm\n"), "{}", finished.stderr);
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    let host = Host::with_policy("strict_mode: true\n");
    let marker = format!("sentinel-daemon-{}", std::process::id());
    let script = format!(
        "import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(60)  # {marker}\nprint('gone')"
    );
    assert_eq!(python(&host, &[], &script).stdout, "gone\n");
    wait_until("the end of what it left", Duration::from_secs(10), || {
        !std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).unwrap_or_default())
                .contains(&marker)
        })
    });
}

#[test]
fn eight_private_runs_at_once_each_have_their_own_agent() {
    let folder = std::env::temp_dir().join(format!("sentinel-eight-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let policy = folder.join("policy.yaml");
    std::fs::write(&policy, "budgets: {session: 0.1}\n").unwrap();
    let runs: Vec<Running> = (0..8)
        .map(|number| {
            let mut command = std::process::Command::new(program("sentinel"));
            command
                .args(["run", "--policy"])
                .arg(&policy)
                .arg("--state")
                .arg(folder.join(number.to_string()))
                .arg("--");
            command.arg(program("probe")).args(["begin=call,0.1", "end", "begin=call,0.1"]);
            Running::start(command)
        })
        .collect();
    for run in runs {
        let finished = run.finish();
        assert_eq!(
            finished.lines(),
            ["begin=call,0.1 allow", "end", "begin=call,0.1 deny BUDGET_EXCEEDED"],
            "{}",
            finished.stderr
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn without_an_agent_the_way_out_is_told() {
    let mut command = std::process::Command::new(program("sentinel"));
    command.args(["run", "--runtime", "/tmp/no-such-runtime", "--policy", "web", "--", "/bin/true"]);
    let finished = Finished::of(command);
    assert_eq!(finished.status, Some(69), "{}", finished.stderr);
    assert!(finished.stderr.contains("sentinel-agent"), "{}", finished.stderr);
}
