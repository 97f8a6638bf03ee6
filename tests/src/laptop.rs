//! A machine without an agent and without root, as a program sees it that decides for itself.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::{Finished, program};

/// An ordinary user.
pub const NOBODY: u32 = 65534;

/// A folder of that user's with a policy. Goes when dropped.
#[derive(Debug)]
pub struct Laptop {
    /// It.
    pub folder: PathBuf,
}

impl Laptop {
    /// A folder with this policy in `policy.yaml`.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn with_policy(yaml: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sentinel-laptop-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        std::os::unix::fs::chown(&folder, Some(NOBODY), Some(NOBODY)).expect("a test runs as root");
        std::fs::write(folder.join("policy.yaml"), yaml).expect("own folder");
        Self { folder }
    }

    /// A program of this workspace, as that user in that folder, and without anything of ours in its environment.
    #[must_use]
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command.args(arguments).current_dir(&self.folder).uid(NOBODY).gid(NOBODY);
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("AGENT_SENTINEL_") || name.starts_with("SUDO_") {
                command.env_remove(&variable);
            }
        }
        command
    }

    /// The probe, deciding for itself by the policy, with the ledger below its folder.
    #[must_use]
    pub fn probe(&self, steps: &[&str]) -> Command {
        let mut command = self.command("probe", steps);
        command.env("AGENT_SENTINEL_MODE", "embedded");
        command.env("AGENT_SENTINEL_POLICY", self.folder.join("policy.yaml"));
        command
    }

    /// Runs the probe with these steps: what it says.
    #[expect(clippy::must_use_candidate, reason = "some run it for what it leaves in the ledger")]
    pub fn run(&self, steps: &[&str]) -> String {
        Finished::of(self.probe(steps)).lines().join("\n")
    }

    /// The lines of the ledger in its usual place, whose chain is whole.
    ///
    /// # Panics
    /// If there is none, or it isn't.
    #[must_use]
    pub fn ledger(&self) -> Vec<Value> {
        let file = self.folder.join(".agent-sentinel/ledger.jsonl");
        sentinel_ledger::verify_parts(std::slice::from_ref(&file), None).expect("the chain is whole");
        let text = std::fs::read_to_string(file).expect("it was just read");
        text.lines().map(|line| serde_json::from_str(line).expect("a ledger line is JSON")).collect()
    }
}

impl Drop for Laptop {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
