//! Tests on this host's kernel: real cgroups, real processes, real denials. They need root.
//!
//! Each has an instance of its own, which is ended and removed also when the test panics.

mod doors;
mod egress;
mod exec;
mod inbound;
mod network;
mod packets;
mod sockets;
mod survival;

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sentinel_engine::{Cidr, ExecRule, Grant, GrantSet, NetworkRule, Opening, Policy, Protocol, ScopeId};
use sentinel_proto::SessionId;

use super::puppet::{Deed, Ending, Puppet};
use super::testing::Folder;
use super::{EbpfEnforcer, Enforcer as _, FirstImage, KernelRecord, Places, leftovers};
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
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let runtime = Folder::new(&name);
        let places = Places::find(runtime.path(), &name).unwrap();
        let claim = Claim::new(&name, runtime.path());
        let mut host =
            Self { enforcer: None, places, launchers: Vec::new(), _runtime: runtime, _claim: claim };
        host.restart();
        host
    }

    fn restart(&mut self) {
        let mut enforcer = EbpfEnforcer::start(&self.places).unwrap_or_else(|error| panic!("{error}"));
        enforcer.beat(since_boot()).unwrap();
        self.enforcer = Some(enforcer);
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
    puppet.send(Deed::Exec(Path::new(path))).unwrap();
    puppet.ending().unwrap()
}

/// Waits, at most ten seconds.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
