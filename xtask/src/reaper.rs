//! Cleans up after a test run that is killed.
//!
//! A child process holds the read end of a pipe and outlives the run, whatever ends it: once the write end is gone, it has the agent's
//! own sweep remove what killed agents have left, as the next start of an agent would.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

/// The process that waits for the run's end. Dropping it ends the wait, and waits for the sweep.
#[derive(Debug)]
pub(crate) struct Reaper(Child);

impl Reaper {
    /// Starts it, out of reach of a signal to the run's process group.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn start(root: &Path) -> anyhow::Result<Self> {
        let agent = root.join("target/debug/sentinel-agent");
        Command::new("setsid")
            .args(["sh", "-c", "cat >/dev/null; sleep 1; exec \"$0\" --sweep"])
            .arg(agent)
            .stdin(Stdio::piped())
            .spawn()
            .map(Self)
            .context("`setsid` can't be started")
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // A sweep that fails shows in the comparison of what is left.
        drop(self.0.wait());
    }
}
