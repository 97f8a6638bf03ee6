//! Tests on this host's kernel: real cgroups, real processes, real denials. They need root.
//!
//! Each has an instance of its own, which is ended and removed also when the test panics.

mod baseline;
mod cost;
mod doors;
mod egress;
mod elsewhere;
mod examination;
mod exec;
mod full;
mod inbound;
mod named;
mod names;
mod network;
mod outwards;
mod packets;
mod preemption;
mod processes;
mod resolver;
mod rings;
mod sockets;
mod stress;
mod surface;
mod survival;
mod takeover;
mod tls_names;
mod ways;

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sentinel_ebpf_common::record::{OPERATION_EXEC, OPERATION_EXEC_REFUSED};
use sentinel_engine::{Cidr, ExecRule, Grant, GrantSet, NetworkRule, Opening, Policy, Protocol, ScopeId};
use sentinel_proto::SessionId;

use super::puppet::{Argument, Deed, Ending, Puppet};
use super::testing::Folder;
use super::{EbpfEnforcer, Enforcer as _, FirstImage, KernelRecord, Places, Tier, leftovers};
use crate::clock::since_boot;
use crate::session::cgroup::SessionCgroup;

const EPERM: i32 = 1;
const KILLED: Ending = Ending::Killed(9);
const RAN: Ending = Ending::Exited(0);
/// The sessions' user: no file belongs to it.
const USER: u32 = 54_321;
const NO_IMAGE: FirstImage = FirstImage { dev: 0, ino: 0, generation: None };
const TRUE: &str = "/bin/true";
const FALSE: &str = "/bin/false";

/// An enforcer in an instance of its own.
struct Host {
    enforcer: Option<EbpfEnforcer>,
    places: Places,
    tier: Tier,
    launchers: Vec<Puppet>,
    _runtime: Folder,
    _claim: Claim,
}

/// What tells `sentinel-agent --sweep` of an instance, should the test be killed.
struct Claim {
    _locked: File,
    path: PathBuf,
}

impl Claim {
    fn new(instance: &str, runtime: &Path) -> Self {
        let folder = Path::new("/run/agent-sentinel/instances");
        let path = folder.join(instance);
        // The folder goes with the last instance in it, so it may have to be made again.
        let made = (0..100).find_map(|_| {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).unwrap();
            File::create(&path).ok()
        });
        let mut locked = made.expect("root can make a file in /run");
        flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
        locked.write_all(runtime.as_os_str().as_bytes()).unwrap();
        Self { _locked: locked, path }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
        drop(self.path.parent().map(std::fs::remove_dir));
    }
}

impl Host {
    fn new() -> Self {
        let mut host = Self::unstarted();
        host.restart();
        host
    }

    /// The places of an instance, with nothing in them.
    fn unstarted() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let runtime = Folder::new(&name);
        let places = Places::find(runtime.path(), &name).unwrap();
        let claim = Claim::new(&name, runtime.path());
        Self {
            enforcer: None,
            places,
            tier: Tier::None,
            launchers: Vec::new(),
            _runtime: runtime,
            _claim: claim,
        }
    }

    fn restart(&mut self) {
        let mut enforcer = EbpfEnforcer::start(&self.places).unwrap_or_else(|error| panic!("{error}"));
        enforcer.beat(since_boot()).unwrap();
        // What the test's kernel was started for must be what is found there.
        if let Some(wanted) = std::env::var_os("SENTINEL_VM_TIER") {
            assert_eq!(wanted, enforcer.enforcement().tier.as_str(), "it could not be proven at that tier");
        }
        self.tier = enforcer.enforcement().tier;
        self.enforcer = Some(enforcer);
    }

    fn is_lsm(&self) -> bool {
        self.tier == Tier::Lsm
    }

    /// What comes of a call that tier `lsm` refuses; elsewhere that comes of it.
    fn refused(&self, elsewhere: i32) -> i32 {
        if self.is_lsm() { -EPERM } else { elsewhere }
    }

    /// What was reported since the last look is of this operation and of this process alone, and something was; nothing at tier `kill`.
    fn expect_only(&mut self, operation: u32, puppet: &Puppet) -> Vec<KernelRecord> {
        let records = self.records();
        let fits = |record: &KernelRecord| record.operation == operation && record.tgid == puppet.pid();
        assert!(records.iter().all(fits), "{records:?}");
        assert_eq!(self.is_lsm(), !records.is_empty(), "{operation}");
        records
    }

    /// Whether a child of a puppet is let execute; if so, it ends.
    fn comes_through(&self, child: &Puppet, path: &str) -> bool {
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            child.send(Deed::Exec(Path::new(path))).unwrap();
            match child.refusal().unwrap() {
                Some(libc::ETXTBSY) => {}
                refusal => return refusal.is_none(),
            }
        }
        false
    }

    /// What becomes of a process that executes what it must not.
    fn denied(&self) -> Ending {
        if self.is_lsm() { Ending::Refused(EPERM) } else { KILLED }
    }

    /// As which operation a denied exec is reported.
    fn denied_exec(&self) -> u32 {
        if self.is_lsm() { OPERATION_EXEC_REFUSED } else { OPERATION_EXEC }
    }

    /// Has a child of a puppet execute what it must not.
    fn is_denied(&self, child: &Puppet, path: &str) -> bool {
        child.send(Deed::Exec(Path::new(path))).unwrap();
        if self.is_lsm() {
            return child.fate().unwrap() == self.denied();
        }
        wait_until("it is killed", || !child.is_alive());
        true
    }

    fn enforcer(&mut self) -> &mut EbpfEnforcer {
        self.enforcer.as_mut().unwrap()
    }

    /// A session with its cgroup, and nobody in it.
    fn session(&mut self, number: u32, policy: &Policy) -> Session {
        let id = SessionId(number);
        let cgroup = SessionCgroup::create(&self.places.cgroup, id).unwrap();
        self.enforcer()
            .start_session(id, cgroup.id(), policy, USER)
            .unwrap_or_else(|error| panic!("{error}"));
        Session { id, cgroup }
    }

    /// A process in a session, that has not executed anything.
    fn puppet(&mut self, session: &Session) -> Puppet {
        self.puppet_with(session, NO_IMAGE)
    }

    fn puppet_with(&mut self, session: &Session, first: FirstImage) -> Puppet {
        let puppet = Puppet::start().unwrap();
        self.enforcer().enrol(session.id, puppet.pid(), first).unwrap();
        session.cgroup.add(puppet.pid()).unwrap();
        puppet
    }

    /// A process in a session as a command is after its first exec: one that can have scopes.
    fn command(&mut self, session: &Session) -> Puppet {
        let launcher = self.puppet(session);
        // A fork leaves the right to the first exec behind.
        let command = launcher.fork().unwrap();
        self.launchers.push(launcher);
        command
    }

    /// Opens grant 1 to a new scope in front of the process's chain.
    fn open(&mut self, session: &Session, puppet: &Puppet, scope: u64) {
        self.enforcer().put_scope_in_front(puppet.pid(), ScopeId(scope)).unwrap();
        self.set_doors(session, scope, GrantSet::of(1), Duration::from_secs(60));
    }

    fn set_doors(&mut self, session: &Session, scope: u64, open: GrantSet, for_time: Duration) {
        let since = since_boot();
        let openings = [Opening { grants: open, since }];
        let openings = if open.is_empty() { &[] } else { &openings[..] };
        self.enforcer().set_doors(session.id, ScopeId(scope), open, since + for_time, openings).unwrap();
    }

    fn records(&mut self) -> Vec<KernelRecord> {
        let mut records = Vec::new();
        self.enforcer().drain_records(&mut records, 1_000);
        records
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.enforcer.take());
        let removed = leftovers::remove(&self.places);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

struct Session {
    id: SessionId,
    cgroup: SessionCgroup,
}

/// A policy whose baseline is the first grant, and whose others actions could have.
fn policy(grants: Vec<Grant>) -> Policy {
    Policy { grants, ..Policy::empty() }
}

fn network(endpoints: &[(Protocol, SocketAddr)]) -> Grant {
    let rule = |(protocol, to): &(Protocol, SocketAddr)| NetworkRule {
        protocol: *protocol,
        cidr: Cidr { address: to.ip(), prefix: if to.is_ipv4() { 32 } else { 128 } },
        port: Some(to.port()),
        line: 1,
    };
    Grant { network: endpoints.iter().map(rule).collect(), ..Grant::default() }
}

fn programs(paths: &[&str]) -> Grant {
    let rule = |path: &&str| ExecRule { path: path.into(), writable_accepted: false, line: 1 };
    Grant { exec: paths.iter().map(rule).collect(), ..Grant::default() }
}

fn listener(ip: impl Into<IpAddr>) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip.into(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn udp_receiver() -> (UdpSocket, SocketAddr) {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = receiver.local_addr().unwrap();
    (receiver, address)
}

fn connect(puppet: &Puppet, to: SocketAddr) -> i32 {
    puppet.order(Deed::ConnectTcp(to)).unwrap()
}

fn execute(puppet: &Puppet, path: &str) -> Ending {
    let started = std::time::Instant::now();
    loop {
        puppet.send(Deed::Exec(Path::new(path))).unwrap();
        match puppet.fate().unwrap() {
            // Another test's fork had the file that was just written still open.
            Ending::Refused(libc::ETXTBSY) if started.elapsed() < Duration::from_secs(10) => {}
            fate => return fate,
        }
    }
}

/// What a system call is given.
#[derive(Clone, Copy)]
enum Given {
    Number(u64),
    /// The address of the bytes that are given beside.
    Bytes,
}

/// What a system call came back with, or its error's number below 0.
fn call(puppet: &Puppet, number: libc::c_long, arguments: &[Given]) -> i32 {
    call_with(puppet, number, arguments, &[])
}

/// As [`call`], with bytes that an argument points to.
fn call_with(puppet: &Puppet, number: libc::c_long, arguments: &[Given], bytes: &[u8]) -> i32 {
    let given = arguments.iter().map(|argument| match argument {
        Given::Number(number) => Argument::Number(number.cast_signed()),
        Given::Bytes => Argument::Place(bytes),
    });
    puppet.order(Deed::Call(number, &given.collect::<Vec<_>>())).unwrap()
}

/// Waits, at most ten seconds.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
