//! An agent for the life of one command: `sentinel run` starts it from its own file, and it goes with its launcher.
//!
//! Invariant: it lives no longer than its standard input stays open, and nobody but root reaches its folders.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use sentinel_proto::SessionName;

use crate::daemon::{self, LoadedPolicy, Options};

/// Where agents have their sockets, unless they are told otherwise.
pub const RUNTIME: &str = "/run/agent-sentinel";
/// Where agents keep what outlives them, unless they are told otherwise.
const STATE: &str = "/var/lib/agent-sentinel";
/// The most private agents without a folder of their own at once.
const MOST_UNNAMED: u32 = 1_024;
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
    #[error("more than {MOST_UNNAMED} private agents run; name a folder with --state")]
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

/// Where it keeps its ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFolder {
    /// There.
    Given(PathBuf),
    /// In the folder of a named session, which finds its totals again.
    Named(SessionName),
    /// In the first that no other uses.
    AnyFree,
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
        // A group of its own: Ctrl-C is for the command, and its agent must see the command's end.
        command.current_dir("/").process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
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
        if !stopped && daemon::sweep().is_ok() {
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

/// What the launcher calls `sentinel private-agent` with. The policy's text comes on standard input, which then stays
/// open as long as the launcher lives.
#[derive(Debug, clap::Args)]
pub struct PrivateAgentArguments {
    /// The policy's name.
    #[arg(long)]
    pub policy_name: String,
    /// The folder below which it makes the one for its sockets.
    #[arg(long)]
    pub runtime: PathBuf,
    /// Where it keeps its ledger.
    #[arg(long, conflicts_with = "session")]
    pub state: Option<PathBuf>,
    /// The named session whose folder it uses.
    #[arg(long)]
    pub session: Option<String>,
}

/// Is the private agent, until its launcher is gone.
#[must_use]
pub fn serve(arguments: &PrivateAgentArguments) -> ExitCode {
    match try_serve(arguments) {
        Ok(code) => code,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "sentinel: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn try_serve(arguments: &PrivateAgentArguments) -> Result<ExitCode, PrivateAgentError> {
    // The command's own output goes to the same terminal: only what matters is said.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let text = read_policy(&mut io::stdin().lock()).map_err(system("read the policy from its launcher"))?;
    let policy = match LoadedPolicy::parse(&text) {
        Ok((policy, _told_by_the_launcher)) => policy,
        Err(problems) => {
            let _closed =
                write!(io::stderr(), "{}", problems.render("policy", &String::from_utf8_lossy(&text)));
            return Ok(ExitCode::from(78));
        }
    };
    let (state, _lock) = match (&arguments.state, &arguments.session) {
        (Some(folder), _) => lock_or_busy(folder)?,
        (None, Some(name)) => lock_or_busy(&Path::new(STATE).join("named").join(name))?,
        (None, None) => first_free(&Path::new(STATE).join("private"))?,
    };
    let pid = std::process::id();
    make_folder(&arguments.runtime, 0o755)?;
    let runtime = instance_folder(&arguments.runtime, pid);
    make_folder(&runtime, 0o700)?;
    let options = Options {
        policies: [(arguments.policy_name.clone(), policy)].into(),
        state,
        runtime: runtime.clone(),
        instance: instance(pid),
        until_stdin_closes: true,
    };
    let result = daemon::run(&options, || {
        // A launcher that doesn't hear it is gone, and standard input says so.
        let _unheard = io::stdout().write_all(READY).and_then(|()| io::stdout().flush());
    });
    // What is in it is the daemon's; what it leaves on a failure tells why.
    let _left = fs::remove_dir(&runtime);
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "sentinel: {error}");
            error.exit_code()
        }
    })
}

fn read_policy(input: &mut impl io::Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    // The launcher has cut it already.
    let most = u64::try_from(sentinel_policy::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = Vec::new();
    input.take(u64::from_le_bytes(length).min(most)).read_to_end(&mut text)?;
    Ok(text)
}

fn make_folder(path: &Path, mode: u32) -> Result<(), PrivateAgentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(system(format!("make the folder `{}`", path.display())))
}

/// The folder, locked until the file is closed; none: another agent has it.
fn lock(folder: &Path) -> Result<Option<File>, PrivateAgentError> {
    make_folder(folder, 0o700)?;
    let path = folder.join("private.lock");
    let what = || system(format!("lock `{}`", path.display()));
    let file = File::create(&path).map_err(what())?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(what()(errno.into())),
    }
}

fn lock_or_busy(folder: &Path) -> Result<(PathBuf, File), PrivateAgentError> {
    match lock(folder)? {
        Some(file) => Ok((folder.to_owned(), file)),
        None => Err(PrivateAgentError::Busy(folder.to_owned())),
    }
}

fn first_free(parent: &Path) -> Result<(PathBuf, File), PrivateAgentError> {
    for number in 0..MOST_UNNAMED {
        let folder = parent.join(number.to_string());
        if let Some(file) = lock(&folder)? {
            return Ok((folder, file));
        }
    }
    Err(PrivateAgentError::TooMany)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_at_once_never_share_a_folder_and_a_free_one_is_used_again() {
        let parent = std::env::temp_dir().join(format!("sentinel-private-{}", std::process::id()));
        let (first, first_lock) = first_free(&parent).unwrap();
        let (second, _second_lock) = first_free(&parent).unwrap();
        assert_eq!(
            (first.as_path(), second.as_path()),
            (parent.join("0").as_path(), parent.join("1").as_path())
        );
        assert!(matches!(lock_or_busy(&first), Err(PrivateAgentError::Busy(_))));
        drop(first_lock);
        assert_eq!(first_free(&parent).unwrap().0, first);
        fs::remove_dir_all(parent).unwrap();
    }

    #[test]
    fn a_policy_comes_whole_from_a_stream_that_stays_open_behind_it() {
        let mut stream = 4_u64.to_le_bytes().to_vec();
        stream.extend(b"texX");
        stream.extend(b"behind");
        assert_eq!(read_policy(&mut stream.as_slice()).unwrap(), b"texX");
        assert!(read_policy(&mut [1_u8].as_slice()).is_err());
    }
}
