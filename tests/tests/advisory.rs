//! `sentinel run --advisory`, as an ordinary user without an agent: the SDK keeps to the policy, nothing else does, and it says so.

use std::process::Command;

use sentinel_tests::{Finished, Laptop, Running, Server, program};

/// `sentinel run --advisory OPTIONS -- COMMAND`.
fn advisory(laptop: &Laptop, options: &[&str], command: &[&str]) -> Command {
    laptop.command("sentinel", &[&["run", "--advisory"], options, &["--"], command].concat())
}

fn run(laptop: &Laptop, options: &[&str], command: &[&str]) -> Finished {
    Finished::of(advisory(laptop, options, command))
}

/// Runs the probe under the policy.
fn probe(laptop: &Laptop, steps: &[&str]) -> Finished {
    let probe = program("probe").display().to_string();
    run(laptop, &["--policy", "policy.yaml"], &[&[probe.as_str()], steps].concat())
}

#[test]
fn the_first_line_says_that_nothing_is_enforced() {
    let laptop = Laptop::with_policy("budgets: {session: 1}\n");
    let finished = run(&laptop, &["--policy", "policy.yaml"], &["/bin/sh", "-c", "id -u; exit 7"]);
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(7), "65534\n"), "{}", finished.stderr);
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert!(lines[0].starts_with("advisory: nothing is enforced: "), "{lines:?}");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("/.agent-sentinel/ledger.jsonl`"), "{lines:?}");
}

#[test]
fn every_line_of_its_own_says_advisory_and_what_is_not_enforced_is_named() {
    let laptop = Laptop::with_policy(
        "strict_mode: false\nenforcement: {exec: {allow: [/bin/true]}}\nactions:\n  fetch: {grants: {network: ['192.0.2.10:443']}}\n",
    );
    let finished = run(&laptop, &["--policy", "policy.yaml"], &["/bin/true"]);
    assert_eq!(finished.status, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.lines().all(|line| line.starts_with("advisory: ")), "{}", finished.stderr);
    for part in ["strict_mode", "`enforcement.exec.allow`, `actions.fetch.grants`"] {
        assert!(finished.stderr.contains(part), "`{part}` is missing in:\n{}", finished.stderr);
    }
    assert!(finished.stderr.starts_with("advisory: nothing is enforced"), "{}", finished.stderr);
}

#[test]
fn the_sdk_keeps_to_the_policy_by_itself_and_totals_outlive_the_command() {
    let laptop = Laptop::with_policy("budgets: {session: 1.0}\ndenied_actions: [delete]\n");
    let first = probe(&laptop, &["begin=delete", "begin=call,0.75", "end"]);
    assert_eq!(
        first.lines(),
        ["begin=delete deny DENIED_ACTION", "begin=call,0.75 allow", "end"],
        "{}",
        first.stderr
    );
    assert_eq!(probe(&laptop, &["begin=call,0.5"]).lines(), ["begin=call,0.5 deny BUDGET_EXCEEDED"]);
    let reset = Finished::of(laptop.command("sentinel", &["session", "reset"]));
    assert_eq!(reset.status, Some(0), "{}", reset.stderr);
    assert_eq!(probe(&laptop, &["begin=call,0.5"]).lines(), ["begin=call,0.5 allow"]);
    assert!(laptop.ledger().iter().all(|line| line["advisory"] == true));
}

#[test]
fn code_that_does_not_ask_goes_where_it_likes() {
    let server = Server::start();
    let laptop = Laptop::with_policy(&format!(
        "actions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n",
        server.address()
    ));
    let connect = format!("connect={}", server.address());
    assert_eq!(probe(&laptop, &[&connect]).lines(), [format!("{connect} ok")]);
}

#[test]
fn a_name_and_a_folder_can_be_given_and_the_folder_stays_where_the_command_goes() {
    let laptop = Laptop::with_policy("budgets: {session: 1.0}\n");
    let script = format!("cd / && exec {} begin=call,0.5 end", program("probe").display());
    let options = ["--policy", "policy.yaml", "--session", "daily", "--state", "elsewhere"];
    let finished = run(&laptop, &options, &["/bin/sh", "-c", &script]);
    assert_eq!(finished.lines(), ["begin=call,0.5 allow", "end"], "{}", finished.stderr);
    let ledger = std::fs::read_to_string(laptop.folder.join("elsewhere/ledger.jsonl")).unwrap();
    assert!(ledger.contains(r#""session":"daily""#), "{ledger}");
}

#[test]
fn an_agents_socket_in_the_environment_is_not_asked() {
    let laptop = Laptop::with_policy("budgets: {session: 1.0}\n");
    let probe = program("probe").display().to_string();
    let mut command = advisory(&laptop, &["--policy", "policy.yaml"], &[&probe, "begin=call,0.5", "end"]);
    command.env("AGENT_SENTINEL_SOCKET", "/no/such/agent.sock");
    assert_eq!(Finished::of(command).lines(), ["begin=call,0.5 allow", "end"]);
}

#[test]
fn without_a_policy_everything_is_recorded_and_that_is_said() {
    let laptop = Laptop::with_policy("denied_actions: [call]\n");
    let probe = program("probe").display().to_string();
    let finished = run(&laptop, &[], &[&probe, "begin=call", "end"]);
    assert_eq!(finished.lines(), ["begin=call allow", "end"], "{}", finished.stderr);
    assert!(finished.stderr.contains("advisory: there is no policy"), "{}", finished.stderr);
    let mut command = advisory(&laptop, &[], &[&probe, "begin=call"]);
    command.env("AGENT_SENTINEL_POLICY", "policy.yaml");
    let finished = Finished::of(command);
    assert_eq!(finished.lines(), ["begin=call deny DENIED_ACTION"], "{}", finished.stderr);
    assert!(!finished.stderr.contains("there is no policy"), "{}", finished.stderr);
}

#[test]
fn a_policy_that_is_none_runs_nothing() {
    let laptop = Laptop::with_policy("budget: {session: 1}\n");
    let finished = run(&laptop, &["--policy", "policy.yaml"], &["/bin/echo", "it ran"]);
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(78), ""), "{}", finished.stderr);
    assert!(finished.stderr.contains("policy.yaml:1:1"), "{}", finished.stderr);
    let finished = run(&laptop, &["--policy", "other.yaml"], &["/bin/echo", "it ran"]);
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(66), ""), "{}", finished.stderr);
    let mut command = advisory(&laptop, &[], &["/bin/echo", "it ran"]);
    command.env("AGENT_SENTINEL_POLICY", "other.yaml");
    assert_eq!(Finished::of(command).status, Some(66));
}

#[test]
fn a_command_that_is_not_there_or_no_program_has_the_shells_exit_status() {
    let laptop = Laptop::with_policy("strict_mode: true\n");
    assert_eq!(run(&laptop, &[], &["/no/such/program"]).status, Some(127));
    assert_eq!(run(&laptop, &[], &["/etc/passwd"]).status, Some(126));
    let of_root = laptop.folder.join("of-root");
    std::fs::copy("/bin/true", &of_root).unwrap();
    std::fs::set_permissions(&of_root, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let finished = run(&laptop, &[], &["./of-root"]);
    assert_eq!(finished.status, Some(126), "{}", finished.stderr);
    assert!(finished.stderr.lines().all(|line| line.starts_with("advisory: ")), "{}", finished.stderr);
}

#[test]
fn signals_reach_the_command_and_its_end_is_its_own() {
    let laptop = Laptop::with_policy("strict_mode: true\n");
    let script = "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let running = Running::start(advisory(&laptop, &[], &["/bin/sh", "-c", script]));
    running.wait_for_line("up");
    let pid = rustix::process::Pid::from_raw(running.pid().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let finished = running.finish();
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(3), "up\nterm\n"), "{}", finished.stderr);

    let sentinel = program("sentinel").display().to_string();
    let script = format!("{sentinel} run --advisory -- /bin/sh -c 'kill -TERM $$'; echo $?");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).current_dir(&laptop.folder);
    assert_eq!(Finished::of(shell).stdout, "143\n");
}

#[test]
fn inside_a_session_and_with_options_that_only_an_agent_could_keep_it_is_refused() {
    let laptop = Laptop::with_policy("strict_mode: true\n");
    let mut command = advisory(&laptop, &[], &["/bin/echo", "it ran"]);
    command.env("AGENT_SENTINEL_SESSION", "daily");
    let finished = Finished::of(command);
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(77), ""), "{}", finished.stderr);
    assert_eq!(run(&laptop, &["--user", "daemon"], &["/bin/true"]).status, Some(64));
    assert_eq!(run(&laptop, &["--runtime", "/run"], &["/bin/true"]).status, Some(64));
}

#[test]
fn without_an_agent_and_without_root_a_run_that_enforces_is_refused_and_the_ways_out_are_told() {
    let laptop = Laptop::with_policy("strict_mode: true\n");
    for options in
        [&["--policy", "./policy.yaml"][..], &["--policy", "web", "--runtime", "/tmp/no-such-runtime"]]
    {
        let arguments = [&["run"], options, &["--", "/bin/echo", "it ran"]].concat();
        let finished = Finished::of(laptop.command("sentinel", &arguments));
        assert_eq!((finished.status, finished.stdout.as_str()), (Some(69), ""), "{}", finished.stderr);
        for way_out in ["sudo", "the group `sentinel`", "--advisory", "embedded mode"] {
            assert!(finished.stderr.contains(way_out), "`{way_out}` is missing in:\n{}", finished.stderr);
        }
    }
}
