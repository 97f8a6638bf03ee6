//! The live proof: a scratch session in which forbidden things are tried and must fail, and allowed ones must not.
//!
//! Invariant: loaded is not enforcing. Only denials that really happened make a host count as enforcing, and only
//! beside the same things allowed, or nothing but breakage would be proven.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sentinel_ebpf_common::record::{OPERATION_CONNECT, OPERATION_EXEC};
use sentinel_engine::{Cidr, ExecRule, NetworkRule, Policy, Protocol};
use sentinel_proto::SessionId;

use super::ebpf::EbpfEnforcer;
use super::puppet::{Deed, Ending, Puppet};
use super::{Enforcer as _, EnforcerError, FirstImage};
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

/// Proves that the loaded kernel side refuses and allows.
///
/// # Errors
/// It doesn't, or it could not be tried: this host must not count as enforcing.
pub(super) fn prove(enforcer: &mut EbpfEnforcer) -> Result<(), EnforcerError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|cause| untried("listen", cause))?;
    let to = listener.local_addr().map_err(|cause| untried("listen", cause))?;

    let forbidden = scene(enforcer, FORBIDDEN, &Policy::empty(), to)?;
    expect("a connect that no rule names", forbidden.connect, Errno::PERM.raw_os_error())?;
    expect("an exec that no rule names", forbidden.exec, Ending::Killed(SIGKILL))?;
    expect("reports of both", reported(enforcer), [true, true])?;

    let allowed = scene(enforcer, ALLOWED, &policy_for(to), to)?;
    expect("a connect that a rule names", allowed.connect, 0)?;
    expect("an exec that a rule names", allowed.exec, Ending::Exited(0))?;
    expect("programs that the kernel left out", enforcer.missed_runs()?, 0)
}

#[derive(Debug)]
struct Outcome {
    connect: i32,
    exec: Ending,
}

/// A session with a single process, which connects and executes.
fn scene(
    enforcer: &mut EbpfEnforcer,
    session: SessionId,
    policy: &Policy,
    to: SocketAddr,
) -> Result<Outcome, EnforcerError> {
    let parent = enforcer.places().cgroup.clone();
    let cgroup = SessionCgroup::create(&parent, session).map_err(|cause| untried("make a cgroup", cause))?;
    let outcome = play(enforcer, session, policy, to, &cgroup);
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
    to: SocketAddr,
    cgroup: &SessionCgroup,
) -> Result<Outcome, EnforcerError> {
    enforcer.start_session(session, cgroup.id(), policy, NOBODY)?;
    let puppet = Puppet::start().map_err(|cause| untried("fork", cause))?;
    enforcer.enrol(session, puppet.pid(), NO_IMAGE)?;
    cgroup.add(puppet.pid()).map_err(|cause| untried("move a process", cause))?;
    let connect = puppet.order(Deed::ConnectTcp(to)).map_err(|cause| untried("connect", cause))?;
    puppet.send(Deed::Exec(Path::new(PROGRAM))).map_err(|cause| untried("execute", cause))?;
    let exec = puppet.ending().map_err(|cause| untried(&format!("execute `{PROGRAM}`"), cause))?;
    Ok(Outcome { connect, exec })
}

fn policy_for(to: SocketAddr) -> Policy {
    let cidr = Cidr { address: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 32 };
    let mut policy = Policy::empty();
    if let Some(baseline) = policy.grants.first_mut() {
        baseline.network =
            vec![NetworkRule { protocol: Protocol::Tcp, cidr, port: Some(to.port()), line: 0 }];
        baseline.exec = vec![ExecRule { path: PROGRAM.into(), writable_accepted: true, line: 0 }];
    }
    policy
}

/// Whether the scratch session's connect and exec came out of the ring buffer. Those of sessions that were taken over may stand before them.
fn reported(enforcer: &mut EbpfEnforcer) -> [bool; 2] {
    let mut is_reported = [false; 2];
    let mut records = Vec::new();
    // More than the buffer holds.
    for _ in 0..256 {
        records.clear();
        enforcer.drain_records(&mut records, 64);
        for (is_reported, operation) in is_reported.iter_mut().zip([OPERATION_CONNECT, OPERATION_EXEC]) {
            *is_reported |=
                records.iter().any(|record| record.session == FORBIDDEN.0 && record.operation == operation);
        }
        if records.is_empty() || is_reported == [true; 2] {
            break;
        }
    }
    is_reported
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), EnforcerError> {
    if found == wanted {
        return Ok(());
    }
    Err(EnforcerError::Unavailable {
        what: "this host does not enforce what it is told".to_owned(),
        cause: format!("{what}: {found:?} instead of {wanted:?}"),
        way_out: "don't run sessions here; report it with the kernel's version".to_owned(),
    })
}

fn untried(what: &str, cause: impl std::fmt::Display) -> EnforcerError {
    EnforcerError::Unavailable {
        what: "enforcement could not be tried out".to_owned(),
        cause: format!("cannot {what}: {cause}"),
        way_out: format!(
            "see that loopback is up, that `{PROGRAM}` is there and that cgroup2 can be written"
        ),
    }
}
