//! The guide for Python developers, `sentinel-sdk/python/README.md`, as its reader follows it: its files are written and its commands run, one
//! after the other in one shell, and what it shows of their output comes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sentinel_tests::{Finished, program};

const GUIDE: &str = include_str!("../../sentinel-sdk/python/README.md");

/// Between the outputs of two blocks.
const NEXT: &str = "=== the next block ===";

/// A block of the guide.
#[derive(Debug, PartialEq)]
enum Block<'guide> {
    /// A file, and its name from the line before it.
    File(&'guide str, &'guide str),
    Commands(&'guide str),
    /// What the commands before it print, among other things.
    Output(&'guide str),
}

fn blocks() -> Vec<Block<'static>> {
    let mut parts = GUIDE.split("```");
    let mut before = parts.next().unwrap();
    let mut blocks = Vec::new();
    let mut names: Vec<(&str, &str)> = Vec::new();
    while let (Some(block), Some(after)) = (parts.next(), parts.next()) {
        let (language, text) = block.split_once('\n').unwrap();
        blocks.push(match language {
            "sh" => Block::Commands(text),
            "text" => Block::Output(text),
            "python" | "yaml" => {
                let named = before.trim_end().strip_suffix("`:").and_then(|line| line.rsplit_once('`'));
                // One that shows a file anew tells its name in the text.
                let name = named.map_or_else(
                    || names.iter().rev().find(|(of, _)| *of == language).expect("a file has a name").1,
                    |(_, name)| name,
                );
                names.push((language, name));
                Block::File(name, text)
            }
            other => panic!("`{other}` is no kind of block that this test knows"),
        });
        before = after;
    }
    blocks
}

/// The guide as one script, that says when a block's commands are done.
fn script(blocks: &[Block<'_>]) -> String {
    let mut script =
        "set -euo pipefail\nset -m\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for block in blocks {
        match block {
            Block::File(name, text) => writeln!(script, "cat > {name} <<'END OF FILE'\n{text}END OF FILE"),
            Block::Commands(text) => writeln!(script, "{text}echo '{NEXT}'"),
            Block::Output(_) => Ok(()),
        }
        .unwrap();
    }
    script
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sentinel-guide-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    // A session's user has to get at the program, as in a user's own folder.
    for folder in [&folder, &folder.join("bin")] {
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    // The tests run as root, maybe without a `sudo`.
    let sudo = folder.join("bin/sudo");
    std::fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n").unwrap();
    std::fs::set_permissions(&sudo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// Where the guide's `sentinel run` keeps its ledgers. What comes in goes with this.
struct PrivateLedgers(Vec<PathBuf>);

impl PrivateLedgers {
    const FOLDER: &str = "/var/lib/agent-sentinel/private";

    fn there() -> Vec<PathBuf> {
        let entries = std::fs::read_dir(Self::FOLDER).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

impl Drop for PrivateLedgers {
    fn drop(&mut self) {
        for new in Self::there().into_iter().filter(|ledger| !self.0.contains(ledger)) {
            drop(std::fs::remove_dir_all(new));
        }
        // Those that were made for them, where nobody else has put anything in.
        for folder in Path::new(Self::FOLDER).ancestors().take(2) {
            drop(std::fs::remove_dir(folder));
        }
    }
}

fn run(script: &str, folder: &Path) -> Finished {
    let wheels = std::env::var_os("SENTINEL_PYTHON_WHEELS")
        .expect("the wheel is built by `cargo xtask test`; run that instead of `cargo test` alone");
    let binaries = program("sentinel").parent().unwrap().to_owned();
    let path =
        std::env::join_paths([folder.join("bin"), binaries, "/usr/bin".into(), "/bin".into()]).unwrap();
    let mut command = Command::new("/bin/bash");
    command
        .args(["-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", wheels)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    for name in ["AGENT_SENTINEL_HOME", "AGENT_SENTINEL_POLICY", "AGENT_SENTINEL_MODE", "PYTHONPATH"] {
        command.env_remove(name);
    }
    Finished::of(command)
}

#[test]
fn a_reader_who_does_what_the_guide_says_gets_what_it_shows() {
    let (folder, blocks) = (folder(), blocks());
    let _ledgers = PrivateLedgers(PrivateLedgers::there());
    let finished = run(&script(&blocks), &folder);
    assert_eq!(finished.status, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    let mut outputs = finished.stdout.split(NEXT);
    let mut output = "";
    let mut compared = 0;
    for block in &blocks {
        match block {
            Block::File(..) => {}
            Block::Commands(_) => output = outputs.next().expect("each block's output ends"),
            Block::Output(expected) => {
                for line in expected.lines() {
                    assert!(output.contains(line), "`{line}` is not in\n{output}\n{}", finished.stderr);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 7, "{compared}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_guides_policies_are_valid_and_all_of_its_files_have_names() {
    let names: Vec<&str> = blocks()
        .iter()
        .filter_map(|block| if let Block::File(name, _) = block { Some(*name) } else { None })
        .collect();
    assert_eq!(names, ["agent.py", "policy.yaml", "policy.yaml"]);
}
