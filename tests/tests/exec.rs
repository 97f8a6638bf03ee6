//! Exec: what may become a process's image. At tier `kill` a forbidden image dies before its first instruction; at tier `lsm` it is refused.

use std::io::Read as _;
use std::os::fd::AsRawFd as _;

use sentinel_tests::{Host, denied_exec, first_syscall_writer};

#[test]
fn a_program_that_no_rule_names_is_denied() {
    let host = Host::with_policy("strict_mode: true\n");
    let probe = host.probe(&["exec=/bin/true"]);
    assert_eq!(probe.lines(), [format!("exec=/bin/true {}", denied_exec())], "{}", probe.stderr);
}

#[test]
fn a_program_that_the_policy_names_runs() {
    let host = Host::with_policy("enforcement: {exec: {allow: [/usr/bin/true]}}\n");
    assert_eq!(host.probe(&["exec=/bin/true"]).lines(), ["exec=/bin/true ok"]);
}

#[test]
fn a_tool_runs_inside_its_action_only() {
    let host = Host::with_policy("actions:\n  run_tool: {grants: {exec: [/usr/bin/true]}}\n");
    let probe = host.probe(&["exec=/bin/true", "begin=run_tool", "exec=/bin/true", "end", "exec=/bin/true"]);
    let denied = format!("exec=/bin/true {}", denied_exec());
    assert_eq!(
        probe.lines(),
        [&denied, "begin=run_tool allow", "exec=/bin/true ok", "end", &denied],
        "{}",
        probe.stderr
    );
}

#[test]
fn a_forbidden_image_writes_nothing_not_even_by_its_first_syscall() {
    let writer = first_syscall_writer();
    let path = writer.display().to_string();
    let twin = std::process::Command::new(&writer).output().unwrap();
    assert_eq!(twin.stdout, b"!", "outside it writes, so the test can fail");

    // The probe's own output goes elsewhere: the pipe on descriptor 1 is the writer's alone.
    let script = format!(
        "import os\nfor _ in range(200):\n  child = os.fork()\n  if child == 0: os.execv('{path}', ['w'])\n  os.waitpid(child, 0)\n"
    );
    for (policy, bytes) in [
        ("strict_mode: true\n".to_owned(), 0),
        (format!("enforcement: {{exec: {{allow: [{path}]}}}}\n"), 200),
    ] {
        let host = Host::with_policy(policy);
        let finished = host.run(&["/usr/bin/python3", "-c", &script]);
        assert_eq!(finished.stdout.len(), bytes, "{}", finished.stderr);
    }
    std::fs::remove_file(writer).unwrap();
}

#[test]
fn an_image_is_known_by_its_inode_and_not_by_its_path() {
    let folder = tempdir("inode");
    let copy = folder.join("harmless");
    std::fs::copy("/usr/bin/id", &copy).unwrap();
    let link = folder.join("true");
    std::os::unix::fs::symlink("/usr/bin/id", &link).unwrap();
    let host = Host::with_policy("enforcement: {exec: {allow: [/usr/bin/true]}}\n");
    for path in [copy.display().to_string(), link.display().to_string()] {
        let probe = host.probe(&[&format!("exec={path}")]);
        assert_eq!(probe.lines(), [format!("exec={path} {}", denied_exec())], "{}", probe.stderr);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_dynamic_loader_is_no_way_to_run_a_forbidden_program() {
    let host = Host::with_policy("enforcement: {exec: {allow: [/usr/bin/true]}}\n");
    let script = "import os; os.execv('/lib64/ld-linux-x86-64.so.2', ['ld', '/usr/bin/id'])";
    let finished = host.run(&["/usr/bin/python3", "-c", script]);
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(128 + 9), ""), "{}", finished.stderr);
}

#[test]
fn a_file_in_memory_is_no_way_to_run_a_forbidden_program() {
    let host = Host::with_policy("strict_mode: true\n");
    let script = "import os\nf = os.memfd_create('x')\nos.write(f, open('/usr/bin/id', 'rb').read())\nos.execve(f, ['id'], {})";
    let finished = host.run(&["/usr/bin/python3", "-c", script]);
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(128 + 9), ""), "{}", finished.stderr);
}

#[test]
fn the_command_itself_is_allowed_once_and_not_again() {
    let host = Host::with_policy("strict_mode: true\n");
    let script =
        "import os; print('first', flush=True); os.execv('/usr/bin/python3', ['python3', '-c', 'print(2)'])";
    let finished = host.run(&["/usr/bin/python3", "-c", script]);
    assert_eq!(
        (finished.status, finished.stdout.as_str()),
        (Some(128 + 9), "first\n"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_denied_exec_says_what_would_allow_it() {
    let host = Host::with_policy("strict_mode: true\n");
    let probe = host.probe(&["exec=/usr/bin/id", "exec=/usr/bin/id"]);
    assert!(probe.stderr.contains("/usr/bin/id"), "{}", probe.stderr);
    assert_eq!(probe.stderr.matches("sentinel: killed").count(), 1, "once for each kind: {}", probe.stderr);
    assert!(probe.stderr.contains("exec:") && probe.stderr.contains("allow"), "{}", probe.stderr);
}

#[test]
fn a_denied_script_is_told_as_its_interpreter_and_that_this_host_sees_no_more() {
    let folder = tempdir("script");
    let script = folder.join("tool");
    std::fs::write(&script, "#!/usr/bin/perl\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let host = Host::with_policy("strict_mode: true\n");
    let finished = host.probe(&[&format!("exec={}", script.display())]);
    let note = format!("- /usr/bin/perl  # `{}` is a script", script.display());
    assert!(finished.stderr.contains(&note), "{}", finished.stderr);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_program_that_was_called_from_where_it_is_is_told_by_its_whole_path() {
    let folder = tempdir("relative");
    std::fs::copy("/usr/bin/id", folder.join("tool")).unwrap();
    let host = Host::with_policy("strict_mode: true\n");
    let script = format!(
        "import os, subprocess\nos.chdir('{}')\nprint(subprocess.run(['./tool']).returncode)",
        folder.display()
    );
    let finished = host.run(&["/usr/bin/python3", "-c", &script]);
    assert_eq!(finished.stdout, "-9\n", "{}", finished.stderr);
    let line = format!("- {}/tool\n", folder.display());
    assert!(finished.stderr.contains(&line), "`{line}` is missing in {}", finished.stderr);
    std::fs::remove_dir_all(folder).unwrap();
}

fn tempdir(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("sentinel-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_descriptor_of_the_launcher_is_not_inherited() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
    let host = Host::with_policy("strict_mode: true\n");
    let script = format!(
        "import os\ntry: os.write({}, b'leak')\nexcept OSError as e: print(e.errno)",
        writer.as_raw_fd()
    );
    let finished = host.run(&["/usr/bin/python3", "-c", &script]);
    // Not to its end: processes that other tests start meanwhile may hold the writing end.
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let leaked = reader.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(
        (finished.stdout.as_str(), leaked),
        ("9\n", Err(std::io::ErrorKind::WouldBlock)),
        "{}",
        finished.stderr
    );
    drop(writer);
}
