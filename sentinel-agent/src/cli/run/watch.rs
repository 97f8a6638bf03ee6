//! While the command runs: its signals, its denials, and the agent's life.
//!
//! Invariant: nothing of a session outlives its command, nor the private agent that was started for it. The death of a
//! shared agent opens nothing: its hooks stay, doors close by themselves, and the command goes on with its baseline.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use sentinel_proto::admin::{Reply, SessionStarted};
use sentinel_proto::{FrameReader, SessionId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::failure::Failure;
use super::notice::{say, tell_notice, tell_waits};
use super::operator::Operator;
use crate::denials::without_note;
use crate::session::cgroup::{CgroupError, SessionCgroup};
use crate::session::launch::{LAUNCH_FAILED, RunningCommand};

/// How long the agent may take to end a session whose command has ended.
const END_TIME: Duration = Duration::from_secs(10);
/// How long the last output may take once nothing writes any more.
const OUTPUT_TIME: Duration = Duration::from_secs(2);
/// A shared agent that is gone is looked for so often.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Denials that are told once; beyond, the ledger has them.
const MOST_NOTICES: usize = 1_000;

/// Signals that are for the command. What the operator's terminal sends doesn't reach it: it leads its own session.
const FORWARDED: &[Signal] = &[
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::TSTP,
];

/// Whose agent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This command's own, which shares its fate.
    Private,
    /// The host's.
    Shared,
}

enum End {
    /// The command ended; the agent is there to end the session, or it has.
    Command(u8),
    /// The shared agent went first, then the command.
    CommandAlone(u8),
    /// The private agent went first.
    Agent,
}

/// Ready to watch: from here on signals are kept for the command. To be made before the command runs, so that none is
/// lost; after its process is forked, so that it doesn't inherit the handlers.
pub(super) struct Watch {
    runtime: Runtime,
    signals: mpsc::UnboundedReceiver<Signal>,
}

impl Watch {
    pub(super) fn new() -> Result<Self, Failure> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Watch)?;
        let signals = runtime.block_on(async { forwarded_signals() }).map_err(Failure::Watch)?;
        Ok(Self { runtime, signals })
    }

    /// Watches the command to its end: its exit status.
    pub(super) fn until_end(
        self,
        command: RunningCommand,
        operator: Operator,
        started: &SessionStarted,
        ownership: Ownership,
    ) -> Result<u8, Failure> {
        let Self { runtime, mut signals } = self;
        let end = runtime.block_on(async {
            let mut agent = Agent::new(operator, &started.ledger).map_err(Failure::Watch)?;
            let end = until_end(&command, &mut agent, &mut signals, ownership, started.session).await?;
            if matches!(end, End::Command(_)) {
                agent.let_go().await;
            }
            Ok::<End, Failure>(end)
        });
        let status = match end {
            Ok(End::Command(status)) => status,
            Ok(End::CommandAlone(status)) => {
                tell_what_is_left(kill_session(started).and_then(|cgroup| clear(&cgroup)));
                status
            }
            Ok(End::Agent) => {
                say("the agent is gone: CMD and everything that it started is killed");
                kill(&command, started);
                LAUNCH_FAILED
            }
            Err(failure) => {
                kill(&command, started);
                return Err(failure);
            }
        };
        let deadline = Instant::now() + OUTPUT_TIME;
        for output in command.into_outputs() {
            while !output.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(status)
    }
}

async fn until_end(
    command: &RunningCommand,
    agent: &mut Agent<'_>,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
    ownership: Ownership,
    session: SessionId,
) -> Result<End, Failure> {
    let pidfd = command.pidfd().try_clone_to_owned().map_err(Failure::Watch)?;
    let ended = crate::watch::readable(pidfd).map_err(Failure::Watch)?;
    let mut is_alone = false;
    let mut next = None;
    loop {
        tokio::select! {
            ready = ended.readable() => {
                ready.map_err(Failure::Watch)?.retain_ready();
                let status = command.wait()?;
                return Ok(if is_alone { End::CommandAlone(status) } else { End::Command(status) });
            }
            Some(signal) = signals.recv() => forward(command, signal),
            heard = agent.hear(), if !is_alone => if !heard {
                // An agent that sees the command's end first ends the session and closes the connection.
                if command.has_ended()? {
                    return Ok(End::Command(command.wait()?));
                }
                if ownership == Ownership::Private {
                    return Ok(End::Agent);
                }
                say("the agent is gone: what was refused stays refused, and doors that are open close within 5 s");
                is_alone = true;
                next = Some(Box::pin(next_agent(agent.runtime.clone(), session)));
            },
            Some(operator) = found(&mut next) => {
                agent.follow(operator).map_err(Failure::Watch)?;
                is_alone = false;
                say("an agent is there again, and has taken the session over");
            }
        }
    }
}

/// Waits until an agent has taken the session over. None: it will not.
async fn next_agent(runtime: PathBuf, session: SessionId) -> Option<Operator> {
    loop {
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
        let runtime = runtime.clone();
        // On a thread of its own: signals are for the command meanwhile.
        let tried = tokio::task::spawn_blocking(move || Operator::connect(&runtime)?.attach(session)).await;
        match tried {
            Ok(Ok(operator)) => return Some(operator),
            // The session is none of that agent's.
            Ok(Err(Failure::Refused(_))) => return None,
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// What is waited for, if anything is.
async fn found<F: Future<Output = Option<Operator>> + Unpin>(next: &mut Option<F>) -> Option<Operator> {
    let Some(waiting) = next else { return std::future::pending().await };
    let operator = waiting.await;
    *next = None;
    if operator.is_none() {
        return std::future::pending().await;
    }
    operator
}

fn forwarded_signals() -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for forwarded in FORWARDED {
        let mut stream = signal(SignalKind::from_raw(forwarded.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(
            async move { while stream.recv().await.is_some() && sender.send(*forwarded).is_ok() {} },
        );
    }
    Ok(receiver)
}

fn forward(command: &RunningCommand, signal: Signal) {
    if signal != Signal::TSTP {
        return command.signal(signal);
    }
    // Nobody in the command's own session could continue it, so the kernel would ignore the terminal's stop there.
    command.signal(Signal::STOP);
    // Here the launcher stands still until the shell continues it. It can always send itself a signal.
    let _never_fails = kill_process(getpid(), Signal::STOP);
    command.signal(Signal::CONT);
}

/// The agent, as long as its connection lasts.
struct Agent<'run> {
    stream: UnixStream,
    reader: FrameReader,
    buffer: Vec<u8>,
    told: BTreeSet<String>,
    ledger: &'run Path,
    runtime: PathBuf,
}

impl<'run> Agent<'run> {
    fn new(operator: Operator, ledger: &'run Path) -> io::Result<Self> {
        let (stream, reader, runtime) = operator.into_parts();
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        Ok(Self { stream, reader, buffer: vec![0; 16 * 1024], told: BTreeSet::new(), ledger, runtime })
    }

    /// Goes on with another agent's connection.
    fn follow(&mut self, operator: Operator) -> io::Result<()> {
        let (stream, reader, _runtime) = operator.into_parts();
        stream.set_nonblocking(true)?;
        (self.stream, self.reader) = (UnixStream::from_std(stream)?, reader);
        Ok(())
    }

    /// Waits for the agent to say something, and tells it. False: it is gone, or makes no sense any more.
    async fn hear(&mut self) -> bool {
        loop {
            match self.reader.next_message() {
                Ok(Some(Reply::Notice(notice))) => {
                    let denial = &notice.denial;
                    let allow = without_note(denial.would_allow.as_deref());
                    let kind = format!("{}\0{}\0{}\0{allow}", notice.process, denial.attempt, denial.fate);
                    if self.told.len() < MOST_NOTICES && self.told.insert(kind) {
                        tell_notice(&notice, self.ledger);
                    }
                    return true;
                }
                Ok(Some(Reply::Waits(approval))) => {
                    tell_waits(&approval, &self.runtime);
                    return true;
                }
                Ok(Some(_not_for_us)) => return true,
                Ok(None) => {}
                Err(_garbage) => return false,
            }
            match self.stream.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(count) => self.reader.push(self.buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Says that the session has ended, and tells what comes until the agent has ended it too.
    async fn let_go(mut self) {
        let farewell = async {
            if self.stream.shutdown().await.is_ok() {
                while self.hear().await {}
            }
        };
        if tokio::time::timeout(END_TIME, farewell).await.is_err() {
            say("the agent takes long to end the session; see its log");
        }
    }
}

/// Kills the command and all else in the session, without the agent.
fn kill(command: &RunningCommand, started: &SessionStarted) {
    let killed = kill_session(started);
    if killed.is_err() {
        // Not root's launcher: what it started itself it can still kill.
        command.signal(Signal::KILL);
    }
    let _status = command.wait();
    tell_what_is_left(killed.and_then(|cgroup| clear(&cgroup)));
}

fn kill_session(started: &SessionStarted) -> Result<SessionCgroup, CgroupError> {
    let cgroup = SessionCgroup::open(started.cgroup.clone())?;
    cgroup.kill()?;
    Ok(cgroup)
}

fn clear(cgroup: &SessionCgroup) -> Result<(), CgroupError> {
    cgroup.wait_until_empty(Instant::now() + END_TIME)?;
    cgroup.remove()
}

fn tell_what_is_left(cleared: Result<(), CgroupError>) {
    match cleared {
        Ok(()) => {}
        // One that is gone has been ended by the next agent.
        Err(CgroupError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => say(&format!(
            "something of the session may be left ({error}); the next agent of this host ends it"
        )),
    }
}
