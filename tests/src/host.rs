//! A host agent of a test's own: its own instance, folders, sockets and ledger.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{program, wait_until};

/// How long an agent may take to start. In an emulated machine each hook of tier `lsm` takes half a second to attach.
const START: Duration = Duration::from_secs(120);

/// A running agent. Ends in good order when dropped.
#[derive(Debug)]
pub struct Host {
    /// All its folders are in this one, which any uid may enter.
    pub folder: PathBuf,
    instance: String,
    agent: Option<Child>,
    log: Arc<Mutex<String>>,
}

/// What an agent is started with.
#[derive(Debug)]
pub struct HostBuilder {
    policies: Vec<(String, String)>,
    configuration: Option<String>,
}

impl HostBuilder {
    /// Adds a policy that sessions can be started with.
    #[must_use]
    pub fn policy(mut self, name: &str, yaml: impl Into<String>) -> Self {
        self.policies.push((name.to_owned(), yaml.into()));
        self
    }

    /// Sets the agent's configuration.
    #[must_use]
    pub fn configuration(mut self, yaml: impl Into<String>) -> Self {
        self.configuration = Some(yaml.into());
        self
    }

    /// Starts the agent and waits until it answers.
    ///
    /// # Panics
    /// If it doesn't; with its log.
    #[must_use]
    pub fn start(self) -> Host {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let instance = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let folder = std::env::temp_dir().join(format!("sentinel-{instance}"));
        std::fs::create_dir_all(folder.join("policies")).expect("the temporary folder is writable");
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("own folder");
        for (name, yaml) in &self.policies {
            std::fs::write(folder.join(format!("policies/{name}.yaml")), yaml).expect("own folder");
        }
        if let Some(yaml) = &self.configuration {
            std::fs::write(folder.join("agent.yaml"), yaml).expect("own folder");
        }
        let mut host = Host { folder, instance, agent: None, log: Arc::default() };
        host.start_agent();
        host
    }
}

impl Host {
    /// An agent to be, with no policy yet.
    #[must_use]
    pub fn builder() -> HostBuilder {
        HostBuilder { policies: Vec::new(), configuration: None }
    }

    /// An agent with one policy, `test`.
    #[must_use]
    pub fn with_policy(yaml: impl Into<String>) -> Self {
        Self::builder().policy("test", yaml).start()
    }

    /// Starts the agent, or starts it again after [`Host::kill_agent`], in the same folders.
    ///
    /// # Panics
    /// If it doesn't answer in time; with its log.
    pub fn start_agent(&mut self) {
        let mut agent = self
            .agent_command()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent can be started");
        let stderr = agent.stderr.take().expect("its standard error is piped");
        let log = Arc::clone(&self.log);
        let earlier = self.log().len();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().expect("no writer panics");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let deadline = Instant::now() + START;
        // Its sockets are there before it has taken over what an earlier agent left, and before its first line is in the ledger.
        while !self.log()[earlier..].contains(" ready runtime=") {
            let gone = agent.try_wait().expect("own child");
            assert!(
                gone.is_none() && Instant::now() < deadline,
                "the agent didn't start ({gone:?}):\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self.agent = Some(agent);
    }

    /// The agent's command line, for tests of its start.
    #[must_use]
    pub fn agent_command(&self) -> Command {
        let mut command = Command::new(program("sentinel-agent"));
        command
            .arg("--policies")
            .arg(self.folder.join("policies"))
            .arg("--state")
            .arg(self.folder.join("state"))
            .arg("--runtime")
            .arg(self.runtime())
            .args(["--instance", &self.instance, "--until-stdin-closes"]);
        let configuration = self.folder.join("agent.yaml");
        if configuration.exists() {
            command.arg("--config").arg(configuration);
        }
        command
    }

    /// The folder with its sockets.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Its ledger.
    #[must_use]
    pub fn ledger_path(&self) -> PathBuf {
        self.folder.join("state/ledger.jsonl")
    }

    /// The parts of its ledger, oldest first.
    #[must_use]
    pub fn ledger_parts(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.join("state")).into_iter().flatten().flatten();
        let mut parts: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        parts.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ledger-") && name.ends_with(".jsonl")
        });
        parts.sort();
        parts.push(self.ledger_path());
        parts
    }

    /// Its ledger's lines so far.
    ///
    /// # Panics
    /// If one is no JSON.
    #[must_use]
    pub fn ledger(&self) -> Vec<serde_json::Value> {
        let parts = self.ledger_parts();
        let text: String = parts.iter().filter_map(|part| std::fs::read_to_string(part).ok()).collect();
        text.lines().map(|line| serde_json::from_str(line).expect("a ledger line is JSON")).collect()
    }

    /// The ledger's lines of this action with this outcome.
    #[must_use]
    pub fn ledger_of(&self, action: &str, outcome: &str) -> Vec<serde_json::Value> {
        self.ledger()
            .into_iter()
            .filter(|line| line["action"] == action && line["outcome"] == outcome)
            .collect()
    }

    /// What the agent has written to its log.
    ///
    /// # Panics
    /// Never: its writer doesn't.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("no writer panics").clone()
    }

    /// What its agent noted of the build of its kernel side.
    ///
    /// # Panics
    /// If it noted nothing.
    #[must_use]
    pub fn build_note(&self) -> String {
        std::fs::read_to_string(self.build_note_path()).expect("the agent notes its build")
    }

    /// Notes another build, as if an agent of that had been there.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn note_build(&self, note: &str) {
        std::fs::write(self.build_note_path(), note).expect("root may write it");
    }

    fn build_note_path(&self) -> PathBuf {
        Path::new("/run/agent-sentinel/builds").join(&self.instance)
    }

    /// The agent's pid.
    ///
    /// # Panics
    /// If it isn't running.
    #[must_use]
    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("the agent is running").id()
    }

    /// Kills the agent, as `kill -9` does.
    ///
    /// # Panics
    /// If it isn't running.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("the agent is running");
        agent.kill().expect("own child");
        agent.wait().expect("own child");
    }

    /// `sentinel` with these arguments and this agent's runtime folder.
    #[must_use]
    pub fn sentinel(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("sentinel"));
        command.args(arguments).env_remove("SUDO_UID").env_remove("SUDO_GID");
        command
    }

    /// Runs `sentinel` with these arguments, an operator's, against this agent.
    #[must_use]
    pub fn operate(&self, arguments: &[&str]) -> Finished {
        let mut command = self.sentinel(arguments);
        command.arg("--runtime").arg(self.runtime());
        Finished::of(command)
    }

    /// Writes a policy anew. It holds after a `sentinel reload`.
    ///
    /// # Panics
    /// Never: the folder is its own.
    pub fn write_policy(&self, name: &str, yaml: &str) {
        std::fs::write(self.folder.join(format!("policies/{name}.yaml")), yaml).expect("own folder");
    }

    /// `sentinel run --policy test -- COMMAND`, not started yet.
    #[must_use]
    pub fn run_command(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.sentinel(&["run", "--runtime"]);
        run.arg(self.runtime());
        if !options.contains(&"--policy") {
            run.args(["--policy", "test"]);
        }
        run.args(options).arg("--").args(command);
        run
    }

    /// Runs a command in a session to its end.
    #[must_use]
    pub fn run(&self, command: &[&str]) -> Finished {
        Finished::of(self.run_command(&[], command))
    }

    /// Runs `probe` with these steps in a session to its end.
    ///
    /// # Panics
    /// If the probe isn't built.
    #[must_use]
    pub fn probe(&self, steps: &[&str]) -> Finished {
        self.run(&probe(steps).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts `probe` with these steps in a session.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn start_probe(&self, steps: &[&str]) -> Running {
        Running::start(self.run_command(&[], &probe(steps).iter().map(String::as_str).collect::<Vec<_>>()))
    }
}

/// The command line of `probe` with these steps.
fn probe(steps: &[&str]) -> Vec<String> {
    let path = program("probe").display().to_string();
    std::iter::once(path).chain(steps.iter().map(|step| (*step).to_owned())).collect()
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.agent.is_none() {
            // Killed: what it left still holds its sessions.
            let sweep = Command::new(program("sentinel-agent"))
                .args(["--sweep", "--instance", &self.instance])
                .status();
            assert!(
                sweep.is_ok_and(|status| status.success()) || std::thread::panicking(),
                "the sweep failed"
            );
        }
        if let Some(mut agent) = self.agent.take() {
            drop(agent.stdin.take());
            let deadline = Instant::now() + START;
            while Instant::now() < deadline && matches!(agent.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            if matches!(agent.try_wait(), Ok(None)) {
                drop(agent.kill());
                drop(agent.wait());
                assert!(std::thread::panicking(), "the agent didn't stop:\n{}", self.log());
            }
        }
        if std::thread::panicking() {
            eprint(&format!(
                "the agent's log:\n{}\nits ledger: kept in {}\n",
                self.log(),
                self.folder.display()
            ));
        } else {
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its agent said")]
fn eprint(text: &str) {
    eprint!("{text}");
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; none where a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn of(mut command: Command) -> Self {
        let output = command.stdin(Stdio::null()).output().expect("the command can be started");
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The lines that `probe` printed.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command can be started");
        let stdout = Arc::new(Mutex::new(String::new()));
        let pipe = child.stdout.take().expect("its standard output is piped");
        let reader = std::thread::spawn({
            let stdout = Arc::clone(&stdout);
            move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let mut stdout = stdout.lock().expect("no writer panics");
                    stdout.push_str(&line);
                    stdout.push('\n');
                }
            }
        });
        Self { child, stdout, reader: Some(reader) }
    }

    /// What it has printed so far.
    ///
    /// # Panics
    /// Never: its writer doesn't.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("no writer panics").clone()
    }

    /// Waits until it has printed a line that begins so.
    pub fn wait_for_line(&self, beginning: &str) {
        wait_until(&format!("a line `{beginning}…`"), START, || {
            self.stdout().lines().any(|line| line.starts_with(beginning))
        });
    }

    /// The pid of the command that was started: of `sentinel`, where a session was.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// Never: it is an own child.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("own child").is_some()
    }

    /// Kills it, as `kill -9` does.
    ///
    /// # Panics
    /// Never: it is an own child.
    pub fn kill(&mut self) {
        self.child.kill().expect("own child");
        // What it held is let go of by then.
        self.child.wait().expect("own child");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Never: it is an own child.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        drop(self.child.stdin.take());
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            drop(pipe.read_to_string(&mut stderr));
        }
        let status = self.child.wait().expect("own child");
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        Finished { status: status.code(), stdout: self.stdout(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Whether a folder has anything in it.
#[must_use]
pub fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
