//! An agent for the life of one command: `sentinel run` starts it from its own file, and it goes with its launcher.
//!
//! Invariant: it lives no longer than its standard input stays open, and nobody but root reaches its folders.

mod serve;
mod state;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use serve::{PrivateAgentArguments, serve};
pub use state::StateFolder;

use crate::daemon;

/// Where agents have their sockets, unless they are told otherwise.
pub const RUNTIME: &str = "/run/agent-sentinel";
/// What it says on its standard output when both sockets answer.
const READY: &[u8] = b"ready\n";
/// How long it may take to end its session and clean up.
const STOP_TIME: Duration = Duration::from_secs(20);

/// Why there is no private agent.
#[derive(Debug, thiserror::Error)]
pub enum PrivateAgentError {
    /// The system refused.
    #[error("an agent of its own can't be started: cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended before it was ready; it has said why itself.
    #[error("the agent didn't start; what it says stands above")]
    Ended(u8),
    /// Another agent has the folder.
    #[error("another agent uses the state folder `{}`; wait for its end, or name another with --state", .0.display())]
    Busy(PathBuf),
    /// Too many of them.
    #[error("more than {} private agents run; name a folder with --state", state::MOST_UNNAMED)]
    TooMany,
}

impl PrivateAgentError {
    /// What the launcher exits with.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Ended(code) => *code,
            Self::System { .. } | Self::Busy(_) | Self::TooMany => 69,
        }
    }
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> PrivateAgentError {
    let what = what.into();
    move |source| PrivateAgentError::System { what, source }
}

/// A private agent, seen from its launcher. It is stopped when this is dropped.
#[derive(Debug)]
pub struct PrivateAgent {
    process: Child,
    lifeline: Option<ChildStdin>,
    runtime: PathBuf,
}

impl PrivateAgent {
    /// Starts one with this policy, and waits until it answers. `runtime` is the folder below which it makes its own.
    ///
    /// # Errors
    /// It doesn't answer; it is gone.
    pub fn start(
        policy: &str,
        text: &[u8],
        state: &StateFolder,
        runtime: &Path,
    ) -> Result<Self, PrivateAgentError> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(system("resolve a path"));
        let mut command = Command::new("/proc/self/exe");
        command.arg0("sentinel").arg("private-agent").args(["--policy-name", policy]);
        let runtime = absolute(runtime)?;
        command.arg("--runtime").arg(&runtime);
        match state {
            StateFolder::Given(folder) => command.arg("--state").arg(absolute(folder)?),
            StateFolder::Named(name) => command.args(["--session", name.as_str()]),
            StateFolder::AnyFree => &mut command,
        };
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(system("start it"))?;
        let (lifeline, ready) = (process.stdin.take(), process.stdout.take());
        let runtime = instance_folder(&runtime, process.id());
        let mut agent = Self { process, lifeline, runtime };
        let told = agent.lifeline.as_mut().is_some_and(|lifeline| {
            let length = u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes();
            lifeline.write_all(&length).and_then(|()| lifeline.write_all(text)).is_ok()
        });
        let mut answer = vec![0; READY.len()];
        let answered = ready.is_some_and(|mut ready| ready.read_exact(&mut answer).is_ok());
        if told && answered && answer == READY {
            return Ok(agent);
        }
        agent.lifeline = None;
        let code = agent.process.wait().ok().and_then(|status| status.code());
        Err(PrivateAgentError::Ended(
            code.and_then(|code| u8::try_from(code).ok()).filter(|c| *c != 0).unwrap_or(69),
        ))
    }

    /// The folder of its sockets.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Lets it end its session and clean up, and waits for that.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for PrivateAgent {
    fn drop(&mut self) {
        self.lifeline = None;
        let deadline = Instant::now() + STOP_TIME;
        let stopped = loop {
            match self.process.try_wait() {
                Ok(Some(status)) => break status.success(),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                Ok(None) | Err(_) => {
                    let _gone = self.process.kill();
                    let _reaped = self.process.wait();
                    break false;
                }
            }
        };
        // One that died without a word has left what held its session. What resists, the next agent meets and tells.
        if !stopped && daemon::sweep(daemon::Dead::Private).is_ok() {
            let _left = fs::remove_dir_all(&self.runtime);
        }
    }
}

fn instance(pid: u32) -> String {
    format!("private-{pid}")
}

fn instance_folder(runtime: &Path, pid: u32) -> PathBuf {
    runtime.join(instance(pid))
}
