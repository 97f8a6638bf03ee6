//! Bad input: says what, where and what would be right; starts nothing, disturbs nothing.

use sentinel_tests::{Finished, Host, program};

fn check(yaml: &str) -> Finished {
    let file =
        std::env::temp_dir().join(format!("sentinel-check-{}-{}.yaml", std::process::id(), yaml.len()));
    std::fs::write(&file, yaml).unwrap();
    let mut command = std::process::Command::new(program("sentinel"));
    command.args(["policy", "check"]).arg(&file);
    let finished = Finished::of(command);
    std::fs::remove_file(file).unwrap();
    finished
}

#[test]
fn all_problems_of_a_policy_are_told_at_once_with_line_and_column() {
    let finished = check(
        "budget: {session: 1}\ndenied_actions: drop_table\nrate_limits:\n  a: {max: 3}\nenforcement: {mode: lax}\n",
    );
    assert_eq!(finished.status, Some(1), "{}", finished.stdout);
    let all = format!("{}{}", finished.stdout, finished.stderr);
    for (place, right) in
        [("1:1", "budgets"), ("2:17", "[drop_table]"), ("4:7", "max_count"), ("5:21", "enforce")]
    {
        assert!(all.contains(place) && all.contains(right), "`{place}` and `{right}` are missing:\n{all}");
    }
}

#[test]
fn an_empty_a_missing_and_an_unreadable_policy_are_errors() {
    assert_eq!(check("").status, Some(1));
    assert_eq!(check("# only a comment\n").status, Some(1));
    for path in ["/no/such/policy.yaml", "/"] {
        let mut command = std::process::Command::new(program("sentinel"));
        command.args(["policy", "check", path]);
        let finished = Finished::of(command);
        assert_eq!(finished.status, Some(66), "{}", finished.stderr);
        assert!(finished.stderr.contains(path), "{}", finished.stderr);
    }
}

#[test]
fn a_valid_policy_passes() {
    assert_eq!(
        check("budgets: {session: 5.0, run: 1.0}\ndenied_actions: [a]\nstrict_mode: true\n").status,
        Some(0)
    );
}

#[test]
fn an_agent_with_an_invalid_policy_starts_nothing() {
    let host = Host::with_policy("strict_mode: true\n");
    std::fs::write(host.folder.join("policies/broken.yaml"), "budgets:\n  sesion: 1\n").unwrap();
    let mut command = std::process::Command::new(program("sentinel-agent"));
    command.args(["--instance", &format!("broken-{}", std::process::id())]);
    command.arg("--policies").arg(host.folder.join("policies"));
    command.arg("--state").arg(host.folder.join("state2")).arg("--runtime").arg(host.folder.join("run2"));
    let finished = Finished::of(command);
    assert_eq!(finished.status, Some(78), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("broken.yaml") && finished.stderr.contains("2:3"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_session_of_an_unknown_policy_is_refused() {
    let host = Host::with_policy("strict_mode: true\n");
    let finished =
        sentinel_tests::Running::start(host.run_command(&["--policy", "nope"], &["/bin/true"])).finish();
    assert_ne!(finished.status, Some(0));
    assert!(
        finished.stderr.contains("`nope`") && finished.stderr.contains("test"),
        "names those that there are: {}",
        finished.stderr
    );
}

#[test]
fn a_private_run_with_a_bad_policy_shows_the_problems_and_runs_nothing() {
    let file = std::env::temp_dir().join(format!("sentinel-private-bad-{}.yaml", std::process::id()));
    std::fs::write(&file, "denied_action: [a]\n").unwrap();
    let mut command = std::process::Command::new(program("sentinel"));
    command.args(["run", "--policy"]).arg(&file).args(["--", "/bin/echo", "it ran"]);
    let finished = Finished::of(command);
    std::fs::remove_file(file).unwrap();
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(78), ""), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("1:1") && finished.stderr.contains("denied_actions"),
        "{}",
        finished.stderr
    );
}

#[test]
fn control_characters_never_reach_the_terminal_raw() {
    let host = Host::with_policy("strict_mode: true\n");
    let script = "import os, shutil\np = '/tmp/\\x1b[31mred'\nopen(p, 'w').write('x')\nos.unlink(p)\nshutil.copy('/usr/bin/id', p)\nif os.fork() == 0: os.execv(p, ['x'])\nos.wait(); os.unlink(p)";
    let finished = host.run(&["/usr/bin/python3", "-c", script]);
    assert!(finished.stderr.contains("red"), "the denial is told: {}", finished.stderr);
    assert!(!finished.stderr.contains('\u{1b}'), "{:?}", finished.stderr);
    let tail = Finished::of(host.sentinel(&["ledger", "tail", &host.ledger_path().display().to_string()]));
    assert!(!tail.stdout.contains('\u{1b}'));
}
