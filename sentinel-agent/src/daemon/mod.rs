//! The daemon: from options to a running driver, and back to a host on which nothing is left.
//!
//! Invariant: the sockets are there only while enforcement is proven and the ledger is open.

mod configuration;
mod instance;
mod policies;
mod stop;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU16;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sentinel_authority::{Authority, FileLedger};
use sentinel_policy::configuration::Configuration;
use sentinel_proto::examination::Examination;
use tokio::task::LocalSet;

use crate::clock::{Clock as _, SystemClock};
use crate::connection::Door;
use crate::driver::{BoundCgroup, Driver, DriverError, NameGate, Setting, ToDisk};
use crate::enforcer::{EbpfEnforcer, Enforcer as _, EnforcerError, Places, leftovers};
use crate::intake::Intake;
use crate::resolver::{self, ListenError, Listeners, Upstream, UpstreamError};
use crate::server::{Server, listen_at};
use crate::session::cgroup::SessionCgroup;
use crate::watch;
use configuration::ConfigurationError;
use instance::{Instance, InstanceError, Lock, make_folder};

pub use configuration::load as load_configuration;
pub use instance::{Dead, sweep};
pub use policies::{LoadedPolicy, PoliciesError, PoliciesSource, load_folder, read_bounded};

/// The group whose members may operate an agent.
const OPERATORS: &str = "sentinel";
/// The folder that sessions see: it holds the socket for applications and nothing else, and stays as long as sessions do.
const SOCKETS: &str = "sockets";
/// The socket for applications; `agent.sock` is a link to it.
const APPLICATION_SOCKET: &str = "sockets/agent.sock";
/// Where the policies of a shared agent are, which no session must see.
const CONFIGURATION: &str = "/etc/agent-sentinel";
/// The cgroup, as in /proc/PID/cgroup, below which all agents' sessions are.
const GOVERNED: &str = "/sentinel";

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policies by name; at least one.
    pub policies: BTreeMap<String, LoadedPolicy>,
    /// The folder that the policies are from, which no session must see; none where they are from elsewhere.
    pub policies_folder: Option<PathBuf>,
    /// What the host has to enforce, and which cgroups are bound.
    pub configuration: Configuration,
    /// The folder of the ledger; made, 0700, if it isn't there.
    pub state: PathBuf,
    /// The folder of the sockets and the lock; made, 0755, if it isn't there.
    pub runtime: PathBuf,
    /// The name of this agent among the host's: `host`, or `private-<pid>`.
    pub instance: String,
    /// Whether the end of standard input stops it.
    pub until_stdin_closes: bool,
    /// Whether sessions go on when it stops, for the next agent of this instance to take over.
    pub keep_sessions: bool,
}

/// Why the agent doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// There is no policy.
    #[error("an agent without a policy starts no session; give it one")]
    NoPolicy,
    /// This host can't enforce.
    #[error("this host can't enforce, so the agent doesn't start: {0}")]
    CannotEnforce(#[from] EnforcerError),
    /// Its configuration asks for what isn't there.
    #[error("the configuration can't be kept to: {0}")]
    Configuration(#[from] ConfigurationError),
    /// Its folders can't be had.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Its ledger can't be used.
    #[error("the ledger `{}` can't be used: {cause}", path.display())]
    Ledger {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A socket can't be made.
    #[error("cannot listen at `{}`: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The agent's own DNS resolver can't listen.
    #[error("the resolver can't start: {0}")]
    Listen(#[from] ListenError),
    /// Nor ask.
    #[error("the resolver can't start: {0}")]
    Upstream(#[from] UpstreamError),
    /// The system refused something else.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The driver hit a defect of its own.
    #[error("the driver panicked: {0}; please report it")]
    Panicked(String),
    /// The driver gave up.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl DaemonError {
    /// The exit status that tells it: 69 where the host can't enforce, 78 without a policy, else 71.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::CannotEnforce(_) => 69,
            Self::NoPolicy | Self::Configuration(_) | Self::Upstream(_) => 78,
            Self::Instance(_)
            | Self::Ledger { .. }
            | Self::Socket { .. }
            | Self::Listen(_)
            | Self::System { .. }
            | Self::Panicked(_)
            | Self::Driver(_) => 71,
        })
    }
}

/// Runs an agent until it is told to stop. `ready` is called once, when both sockets answer.
///
/// # Errors
/// It could not start, or could not go on; its sessions are killed, and nothing reopens.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), DaemonError> {
    if options.policies.is_empty() {
        return Err(DaemonError::NoPolicy);
    }
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| DaemonError::System { what: "resolve a path", source })
    };
    let bindings = configuration::bindings(&options.configuration, &options.policies)?;
    let (state, runtime) = (absolute(&options.state)?, absolute(&options.runtime)?);
    make_folder(&state, 0o700)?;
    make_folder(&runtime, 0o755)?;
    make_folder(&runtime.join(SOCKETS), 0o755)?;
    let lock = Lock::take(&runtime.join("agent.lock"))?;
    raise_descriptor_limit();
    if let Err(error) = sweep(Dead::Private) {
        tracing::error!(%error, "what a dead agent left stays; it is closed");
    }
    let instance = Instance::take(&options.instance, &runtime)?;
    let folders = Folders { ledger: state.join("ledger.jsonl"), state, runtime };
    let result = enforce_and_serve(options, bindings, &folders, &instance.places, ready);
    // What an earlier agent had started and this one could not take over for want of a ledger is held by its rules.
    let is_held = || {
        SessionCgroup::open(instance.places.cgroup.clone())
            .is_ok_and(|all| all.is_populated().unwrap_or(true))
    };
    let leaves_sessions = match &result {
        Ok(()) => options.keep_sessions,
        Err(error) => matches!(error, DaemonError::Ledger { .. }) && is_held(),
    };
    // Whatever the result: nothing of this instance may stay, unless that is wanted.
    for socket in [APPLICATION_SOCKET, "agent.sock", "admin.sock"] {
        let _never_made = std::fs::remove_file(folders.runtime.join(socket));
    }
    if !leaves_sessions {
        let _never_made = std::fs::remove_dir(folders.runtime.join(SOCKETS));
    }
    if leaves_sessions {
        tracing::info!("what runs goes on under its rules; the next start takes it over");
    } else if let Err(error) = leftovers::remove(&instance.places) {
        tracing::error!(%error, "something is left behind; the next start removes it");
    } else {
        instance.remove();
    }
    lock.remove();
    result
}

/// Tries out what this host enforces, without any session, for as long as that takes.
///
/// # Errors
/// It enforces nothing, or could not be tried.
pub fn examine(runtime: &Path) -> Result<Examination, DaemonError> {
    let instance = format!("private-{}", std::process::id());
    let runtime = std::path::absolute(runtime)
        .map_err(|source| DaemonError::System { what: "resolve a path", source })?
        .join(&instance);
    make_folder(&runtime, 0o700)?;
    let taken = Instance::take(&instance, &runtime);
    let examined = taken.map_err(DaemonError::from).and_then(|instance| {
        let examined = EbpfEnforcer::try_out(&instance.places);
        instance.remove();
        Ok(examined?)
    });
    let _not_empty = std::fs::remove_dir(&runtime);
    examined
}

struct Folders {
    state: PathBuf,
    runtime: PathBuf,
    ledger: PathBuf,
}

fn enforce_and_serve(
    options: &Options,
    bindings: Vec<BoundCgroup>,
    folders: &Folders,
    places: &Places,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    let unusable = |cause: &dyn std::fmt::Display| DaemonError::Ledger {
        path: folders.ledger.clone(),
        cause: cause.to_string(),
    };
    let clock = SystemClock;
    let opened = FileLedger::open(&folders.ledger, clock.now()).map_err(|error| unusable(&error))?;
    if let Some(torn) = &opened.torn {
        tracing::warn!(bytes = torn.bytes, kept_in = %torn.kept_in.display(), "the ledger's last line was torn");
    }
    if let Some(after) = opened.gap {
        tracing::error!(
            after,
            "the ledger's lines up to this one are gone: what was spent by then is unknown"
        );
    }
    let gap = opened.gap;
    let to_disk: ToDisk = Arc::new(opened.ledger.to_disk());
    let authority = Authority::going_on(opened.ledger, opened.state);
    let mut enforcer = start_or_adopt(places)?;
    configuration::check_tier(&options.configuration, enforcer.enforcement())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::System { what: "start the runtime", source })?;
    let unwatched = |source| DaemonError::System { what: "watch for reports", source };
    let reports = enforcer.as_fd().try_clone_to_owned().map_err(unwatched)?;
    let operators = operators();
    let own: Vec<PathBuf> = [
        Some(folders.state.as_path()),
        Some(&folders.runtime),
        places.pins.parent(),
        Some(Path::new(CONFIGURATION)),
        options.policies_folder.as_deref(),
    ]
    .into_iter()
    .flatten()
    .map(Path::to_owned)
    .collect();
    let setting = Setting {
        policies: options.policies.clone(),
        policies_source: options
            .policies_folder
            .clone()
            .map_or(PoliciesSource::Fixed, PoliciesSource::Folder),
        cgroups: places.cgroup.clone(),
        bindings,
        governed: GOVERNED.to_owned(),
        operators,
        keep_sessions: options.keep_sessions,
        agent_socket: folders.runtime.join(APPLICATION_SOCKET),
        ledger: folders.ledger.clone(),
        mask: own.clone(),
    };
    let programs = std::env::current_exe().map(|program| {
        ["sentinel-agent", "sentinel"].map(|name| program.with_file_name(name)).into_iter().chain([program])
    });
    let programs = programs.map_err(|source| DaemonError::System { what: "find its own program", source })?;
    enforcer.keep_own(&own.into_iter().chain(programs).collect::<Vec<_>>())?;
    // Before the sockets: whoever finds one of them there finds them all.
    let link = folders.runtime.join("agent.sock");
    let _never_there = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(APPLICATION_SOCKET, &link)
        .map_err(|source| DaemonError::Socket { path: link, source })?;
    let mut listeners = Vec::new();
    for (door, name, mode, group) in [
        (Door::Application, APPLICATION_SOCKET, 0o666, None),
        (Door::Operator, "admin.sock", 0o660, operators),
    ] {
        let path = folders.runtime.join(name);
        let listener = listen_at(&path, mode, group)
            .map_err(|source| DaemonError::Socket { path: path.clone(), source })?;
        if door == Door::Application {
            enforcer.let_connect(&listener)?;
        }
        listeners.push((door, path, listener));
    }
    let upstream = Upstream::new(&options.configuration.resolver)?;
    let questions = Listeners::bind(0)?;
    if !questions.has_ipv6() {
        tracing::warn!("the host has no ::1: programs that ask a DNS server over IPv6 find no names");
    }
    enforcer.let_resolve(NonZeroU16::new(questions.port()))?;
    let askers = enforcer.askers()?;
    LocalSet::new().block_on(&runtime, async {
        let intake = Rc::new(Intake::default());
        let names = Rc::new(NameGate::new(Rc::clone(&intake), askers));
        let server = Server::new(Rc::clone(&intake));
        let stop = stop::asked(options.until_stdin_closes)
            .map_err(|source| DaemonError::System { what: "wait for signals", source })?;
        let mut driver = Driver::new(authority, enforcer, clock, setting, intake);
        driver.announce(gap).map_err(|error| unusable(&error))?;
        // Before it says that it is ready: a unit that waits for that has nothing unheld beside it.
        driver.bind_cgroups();
        for (door, path, listener) in listeners {
            let listener =
                watch::readable(listener).map_err(|source| DaemonError::Socket { path, source })?;
            tokio::task::spawn_local(Rc::clone(&server).accept(door, listener));
        }
        // It ends with the runtime.
        let _answering = resolver::start(questions, upstream, names)
            .map_err(|source| DaemonError::System { what: "watch for questions", source })?;
        tracing::info!(runtime = %folders.runtime.display(), "ready");
        ready();
        let reports = watch::readable(reports).map_err(unwatched)?;
        // A task like the connections': what one hands to the other is handled without a look at the kernel between.
        let driving = tokio::task::spawn_local(async move { driver.run(stop, Some(reports), to_disk).await });
        Ok(driving.await.map_err(|panicked| DaemonError::Panicked(panicked.to_string()))??)
    })
}

/// The kernel side that an earlier agent of this instance left, if it can be taken over; else a new one, after all that it held was ended.
fn start_or_adopt(places: &Places) -> Result<EbpfEnforcer, EnforcerError> {
    match EbpfEnforcer::adopt(places) {
        Ok(Some(enforcer)) => {
            enforcer.note_build()?;
            return Ok(enforcer);
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(%error, "what an earlier agent left can't be taken over; its sessions are ended")
        }
    }
    let enforcer = EbpfEnforcer::start(places)?;
    enforcer.note_build()?;
    Ok(enforcer)
}

/// The id of the group whose members may operate an agent; without it, only root may.
fn operators() -> Option<u32> {
    match nix::unistd::Group::from_name(OPERATORS) {
        Ok(group) => group.map(|group| group.gid.as_raw()),
        Err(error) => {
            tracing::warn!(%error, "the list of groups can't be read: only root may operate this agent");
            None
        }
    }
}

/// A connection and a watched process each take a descriptor: as many as the system lets us have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}
