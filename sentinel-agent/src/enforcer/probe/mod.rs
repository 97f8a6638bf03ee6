//! The live proof: two scratch sessions in which things are tried that must fail in the one and must not in the other.
//!
//! Invariant: loaded is not enforcing. Only denials that really happened make a host count as enforcing, and only
//! beside the same things allowed, or nothing but breakage would be proven.

mod packets;
mod surface;
mod uncovered;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sentinel_ebpf_common::record::{OPERATION_CONNECT, OPERATION_EXEC, OPERATION_EXEC_REFUSED};
use sentinel_engine::{Cidr, ExecRule, NetworkRule, Policy, Protocol};
use sentinel_proto::SessionId;
use sentinel_proto::examination::{Hold, Proof, Row};

use super::ebpf::EbpfEnforcer;
use super::puppet::{Deed, Ending, Puppet};
use super::{Enforcer as _, EnforcerError, FirstImage, Tier};
use crate::session::cgroup::SessionCgroup;

/// What is executed: it does nothing, and every host has it.
const PROGRAM: &str = "/bin/true";
/// Numbers that no real session reaches.
const FORBIDDEN: SessionId = SessionId(u32::MAX);
const ALLOWED: SessionId = SessionId(u32::MAX - 1);
/// As which user the rules are resolved; the process is the agent's own.
const NOBODY: u32 = 65_534;
const SIGKILL: i32 = 9;
/// No file has this number.
const NO_IMAGE: FirstImage = FirstImage { dev: 0, ino: 0, generation: None };
const AF_INET: u8 = 2;
const SOCK_RAW: u8 = 3;
const ICMP: u8 = 1;

/// What is tried and lets its process live.
struct Trial {
    what: &'static str,
    deed: Deed<'static>,
    /// Whether a rule can allow it: then it is tried beside under one.
    has_twin: bool,
}

/// How the trials came out in one session.
struct Outcome {
    /// 0 or the error's number, in the order of the trials.
    answers: Vec<i32>,
    exec: Ending,
    /// What came of sending by an open door; nothing where none is.
    packets: Option<packets::Sent>,
    /// What came of what [`surface`] tries; nothing below tier `lsm`.
    surface: Vec<(&'static str, i32)>,
}

/// Tries out what the loaded kernel side refuses and allows, and adds what it is known not to cover.
///
/// # Errors
/// It could not be tried: this host must not count as enforcing.
pub(super) fn examine(enforcer: &mut EbpfEnforcer) -> Result<Vec<Row>, EnforcerError> {
    let targets = Targets::new()?;
    let trials = targets.trials();
    // Reports of others would hide the proof's own; the driver takes them when it has the records back.
    let mut records = Vec::new();
    enforcer.drain_records(&mut records, usize::MAX);
    let forbidden = scene(enforcer, FORBIDDEN, &Policy::empty(), &targets)?;
    let mut own = Vec::new();
    enforcer.drain_records(&mut own, usize::MAX);
    let allowed = scene(enforcer, ALLOWED, &targets.policy(), &targets)?;

    let mut rows: Vec<Row> = trials
        .iter()
        .zip(forbidden.answers.iter().zip(&allowed.answers))
        .map(|(trial, (forbidden, allowed))| row(trial, *forbidden, *allowed))
        .collect();
    let tier = enforcer.enforcement().tier;
    rows.push(exec_row(tier, forbidden.exec, allowed.exec));
    rows.extend(allowed.packets.map(packets::Sent::row));
    if !forbidden.surface.is_empty() {
        let outside = Puppet::start().map_err(|cause| untried("fork", cause))?;
        let outside = surface::attempts(&outside, enforcer.places(), &targets.unix)?;
        rows.extend(surface::rows(forbidden.surface, outside));
    }
    let told =
        |operation| own.iter().any(|record| record.session == FORBIDDEN.0 && record.operation == operation);
    let is_told = told(OPERATION_CONNECT)
        && told(if tier == Tier::Lsm { OPERATION_EXEC_REFUSED } else { OPERATION_EXEC });
    rows.push(Row {
        what: "a refusal that nobody hears of".to_owned(),
        hold: Hold::Detected,
        proof: if is_told { Proof::Tried } else { Proof::Failed("no report of a refusal came".to_owned()) },
    });
    rows.extend(uncovered::rows(tier));
    enforcer.drain_records(&mut own, usize::MAX);
    // What is others' is told in its turn, as if it had come after.
    records.extend(own.into_iter().filter(|record| ![FORBIDDEN.0, ALLOWED.0].contains(&record.session)));
    enforcer.put_back(records);
    Ok(rows)
}

fn row(trial: &Trial, forbidden: i32, allowed: i32) -> Row {
    let refused = Errno::PERM.raw_os_error();
    let proof = if forbidden != refused {
        Proof::Failed(format!("error {forbidden} instead of {refused} (EPERM) where no rule names it"))
    } else if trial.has_twin && allowed != 0 {
        Proof::Failed(format!("error {allowed} where a rule names it"))
    } else {
        Proof::Tried
    };
    Row { what: trial.what.to_owned(), hold: Hold::DeniedBeforeExecution, proof }
}

fn exec_row(tier: Tier, forbidden: Ending, allowed: Ending) -> Row {
    let (wanted, hold) = match tier {
        Tier::Lsm => (Ending::Refused(Errno::PERM.raw_os_error()), Hold::DeniedBeforeExecution),
        Tier::Kill | Tier::None => (Ending::Killed(SIGKILL), Hold::KilledBeforeFirstInstruction),
    };
    let proof = if forbidden != wanted {
        Proof::Failed(format!("{forbidden:?} instead of {wanted:?} where no rule names it"))
    } else if allowed != Ending::Exited(0) {
        Proof::Failed(format!("{allowed:?} where a rule names it"))
    } else {
        Proof::Tried
    };
    Row { what: "an exec of a file".to_owned(), hold, proof }
}

/// Where the trials go to.
struct Targets {
    tcp: TcpListener,
    udp: UdpSocket,
    /// None on a host without IPv6.
    tcp6: Option<TcpListener>,
    /// Abstract: it has a name and no file.
    unix: UnixListener,
}

impl Targets {
    fn new() -> Result<Self, EnforcerError> {
        let listen = |cause| untried("listen", cause);
        Ok(Self {
            tcp: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(listen)?,
            udp: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(listen)?,
            tcp6: TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok(),
            unix: surface::abstract_listener().map_err(listen)?,
        })
    }

    fn addresses(&self) -> [Option<(SocketAddr, Protocol)>; 3] {
        let tcp6 = self.tcp6.as_ref().and_then(|listener| listener.local_addr().ok());
        [
            self.tcp.local_addr().ok().map(|to| (to, Protocol::Tcp)),
            self.udp.local_addr().ok().map(|to| (to, Protocol::Udp)),
            tcp6.map(|to| (to, Protocol::Tcp)),
        ]
    }

    fn trials(&self) -> Vec<Trial> {
        let [tcp, udp, tcp6] = self.addresses().map(|target| target.map(|(to, _)| to));
        let with_twin = |what, deed| Trial { what, deed, has_twin: true };
        let mut trials = Vec::new();
        trials.extend(tcp.map(|to| with_twin("a TCP connect over IPv4", Deed::ConnectTcp(to))));
        trials.extend(tcp6.map(|to| with_twin("a TCP connect over IPv6", Deed::ConnectTcp(to))));
        trials.extend(udp.map(|to| with_twin("a UDP connect", Deed::ConnectUdp(to))));
        trials.extend(udp.map(|to| with_twin("a datagram to an address", Deed::SendUdp(to))));
        let raw = Deed::Socket(AF_INET, SOCK_RAW, ICMP);
        trials.push(Trial { what: "a raw socket", deed: raw, has_twin: false });
        trials
    }

    /// What lets all trials pass that can be let.
    fn policy(&self) -> Policy {
        let rule = |(to, protocol): (SocketAddr, Protocol)| {
            let prefix = if matches!(to.ip(), IpAddr::V4(_)) { 32 } else { 128 };
            NetworkRule { protocol, cidr: Cidr { address: to.ip(), prefix }, port: Some(to.port()), line: 0 }
        };
        let mut policy = Policy::empty();
        if let Some(baseline) = policy.grants.first_mut() {
            baseline.network = self.addresses().into_iter().flatten().map(rule).collect();
            baseline.exec = vec![ExecRule { path: PROGRAM.into(), writable_accepted: true, line: 0 }];
        }
        policy
    }
}

/// A session with a single process, which tries all and executes.
fn scene(
    enforcer: &mut EbpfEnforcer,
    session: SessionId,
    policy: &Policy,
    targets: &Targets,
) -> Result<Outcome, EnforcerError> {
    let parent = enforcer.places().cgroup.clone();
    let cgroup = SessionCgroup::create(&parent, session).map_err(|cause| untried("make a cgroup", cause))?;
    let outcome = play(enforcer, session, policy, targets, &cgroup);
    let stopped = enforcer.stop_session(session);
    let removed = cgroup
        .wait_until_empty(Instant::now() + Duration::from_secs(5))
        .and_then(|()| cgroup.remove())
        .map_err(|cause| untried("end the scratch session", cause));
    let outcome = outcome?;
    stopped?;
    removed?;
    Ok(outcome)
}

fn play(
    enforcer: &mut EbpfEnforcer,
    session: SessionId,
    policy: &Policy,
    targets: &Targets,
    cgroup: &SessionCgroup,
) -> Result<Outcome, EnforcerError> {
    enforcer.start_session(session, cgroup.id(), policy, NOBODY)?;
    let puppet = Puppet::start().map_err(|cause| untried("fork", cause))?;
    enforcer.enrol(session, puppet.pid(), NO_IMAGE)?;
    cgroup.add(puppet.pid()).map_err(|cause| untried("move a process", cause))?;
    enforcer.end_launch(puppet.pid())?;
    let surface = match enforcer.enforcement().tier {
        Tier::Lsm if session == FORBIDDEN => surface::attempts(&puppet, enforcer.places(), &targets.unix)?,
        Tier::Lsm | Tier::Kill | Tier::None => Vec::new(),
    };
    let packets = match targets.udp.local_addr() {
        Ok(to) if session == ALLOWED => Some(packets::send(&puppet, to)?),
        _ => None,
    };
    let trials = targets.trials();
    let answers =
        trials.iter().map(|trial| puppet.order(trial.deed).map_err(|cause| untried(trial.what, cause)));
    let answers = answers.collect::<Result<_, _>>()?;
    puppet.send(Deed::Exec(Path::new(PROGRAM))).map_err(|cause| untried("execute", cause))?;
    let exec = puppet.fate().map_err(|cause| untried(&format!("execute `{PROGRAM}`"), cause))?;
    Ok(Outcome { answers, exec, packets, surface })
}

fn untried(what: &str, cause: impl std::fmt::Display) -> EnforcerError {
    EnforcerError::Unavailable {
        what: "enforcement could not be tried out".to_owned(),
        cause: format!("{what}: {cause}"),
        way_out: format!(
            "see that loopback is up, that `{PROGRAM}` is there and that cgroup2 can be written"
        ),
    }
}
