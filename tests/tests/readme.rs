//! What the README shows works as it stands there: its policy is valid, and each of its `sentinel` commands is run.

use std::path::Path;
use std::process::Command;

use sentinel_tests::{Finished, Host, program};

const README: &str = include_str!("../../README.md");

/// The contents of the README's code blocks of this language.
fn blocks(language: &str) -> Vec<String> {
    README
        .split("```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.strip_prefix(&format!("{language}\n")))
        .map(str::to_owned)
        .collect()
}

/// The README's command lines that begin with this word, without comments and `sudo`.
fn commands(beginning: &str) -> Vec<Vec<String>> {
    let lines = blocks("sh");
    let lines = lines
        .iter()
        .flat_map(|block| block.lines())
        .map(|line| line.split(" #").next().unwrap_or(line).trim());
    lines
        .map(|line| line.strip_prefix("sudo ").unwrap_or(line))
        .filter(|line| line.split(' ').next() == Some(beginning))
        .map(|line| line.split_whitespace().skip(1).map(str::to_owned).collect())
        .collect()
}

/// A folder with the README's policy, and a program called `my-agent`.
fn scene(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("policy.yaml"), &blocks("yaml")[0]).unwrap();
    std::fs::copy("/usr/bin/true", folder.join("my-agent")).unwrap();
}

#[test]
fn its_policy_is_valid_and_its_commands_without_a_daemon_work() {
    let folder = std::env::temp_dir().join(format!("sentinel-readme-{}", std::process::id()));
    scene(&folder);
    // A ledger is only kept where the session's user can't move it: nowhere below the temporary folder.
    let home = std::path::PathBuf::from(format!("/run/sentinel-readme-{}", std::process::id()));
    let ours: Vec<Vec<String>> = commands("sentinel")
        .into_iter()
        .filter(|command| command.iter().any(|word| word.contains("policy.yaml")))
        .collect();
    assert_eq!(ours.len(), 3, "the README shows `policy check`, `run` and `run --advisory`: {ours:?}");
    for arguments in ours {
        let mut command = Command::new(program("sentinel"));
        command.current_dir(&folder).env("AGENT_SENTINEL_HOME", &home).args(&arguments);
        let finished = Finished::of(command);
        assert_eq!(finished.status, Some(0), "{arguments:?}: {}{}", finished.stdout, finished.stderr);
    }
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn its_commands_with_a_daemon_work() {
    assert_eq!(commands("sentinel-agent").len(), 1, "the harness starts it with the same option");
    let host = Host::builder().policy("NAME", blocks("yaml")[0].clone()).start();
    let folder = host.folder.join("readme");
    scene(&folder);
    let ours: Vec<Vec<String>> = commands("sentinel")
        .into_iter()
        .filter(|command| !command.iter().any(|word| word.contains("policy.yaml")))
        .collect();
    assert_eq!(
        ours.len(),
        4,
        "the README shows `run`, `status`, `ledger verify` and `ledger tail`: {ours:?}"
    );
    for mut arguments in ours {
        // The test's own agent instead of the host's.
        match arguments[0].as_str() {
            "run" => arguments
                .splice(1..1, ["--runtime".to_owned(), host.runtime().display().to_string()])
                .for_each(drop),
            "status" => arguments.extend(["--runtime".to_owned(), host.runtime().display().to_string()]),
            _ => arguments.push(host.ledger_path().display().to_string()),
        }
        let mut command = Command::new(program("sentinel"));
        command.current_dir(&folder).args(&arguments);
        let finished = Finished::of(command);
        assert_eq!(finished.status, Some(0), "{arguments:?}: {}{}", finished.stdout, finished.stderr);
    }
}

#[test]
fn every_key_of_its_policy_table_is_known() {
    let keys = README
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|line| line.contains("` |") || line.contains("`, `"));
    let known = [
        "budgets.",
        "denied_actions",
        "allowed_actions",
        "rate_limits.",
        "limits.",
        "hours",
        "approvals",
        "strict_mode",
        "tls_names",
        "actions.",
        "enforcement.",
    ];
    for key in keys {
        assert!(known.iter().any(|known| key.starts_with(known)), "`{key}`");
    }
}

#[test]
fn help_names_every_command_that_the_readme_shows() {
    let mut command = Command::new(program("sentinel"));
    command.arg("--help");
    let help = Finished::of(command);
    for arguments in commands("sentinel") {
        assert!(help.stdout.contains(&arguments[0]), "`{}` is missing in:\n{}", arguments[0], help.stdout);
    }
}
