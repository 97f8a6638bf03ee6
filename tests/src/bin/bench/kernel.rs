//! What the kernel side costs: a process inside a session against one outside, in turns, on one CPU; and one outside with the hooks attached
//! against without.
//!
//! What the kernel asks of a host for having programs on any cgroup at all, as 0.1 µs for each `connect` of a UDP socket, is in the second table and
//! not in the first.
//!
//! The enforcer is this process's own, so that there can be as many sessions and rules as are asked for.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sentinel_agent::clock::since_boot;
use sentinel_agent::enforcer::{EbpfEnforcer, Enforcer as _, Places};
use sentinel_agent::session::cgroup::SessionCgroup;
use sentinel_engine::{Cidr, ExecRule, Grant, GrantSet, NetworkRule, Opening, Policy, Protocol, ScopeId};
use sentinel_proto::SessionId;

use crate::{execs, median, pin_to_cpu, timed};

const SESSION: SessionId = SessionId(1);
const SCOPE: ScopeId = ScopeId(1);
const USER: u32 = 54_321;
/// As many turns as it takes for what is added to be told from noise.
const TURNS: usize = 41;
const EXEC_TURNS: usize = 101;
const ATTACH_TURNS: usize = 15;
const RULES: u16 = 10_000;
const SESSIONS: u32 = 1_000;
/// Not more than wait to be accepted.
const CONNECTS: usize = 400;
const UDP_CONNECTS: usize = 5_000;
const EXECS: usize = 100;
const STREAM: Duration = Duration::from_millis(300);
/// Of the instance that is measured; not there before and after.
const RUNTIME: &str = "/run/sentinel-bench";
/// Turns it on while it is 1.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// A process that does what it is told by lines, and answers each with a number.
struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start() -> Self {
        let own = std::env::current_exe().expect("a program knows its own path");
        let mut command = Command::new(own);
        let mut child = command
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let orders = child.stdin.take().expect("its standard input is piped");
        let answers = BufReader::new(child.stdout.take().expect("its standard output is piped"));
        Self { child, orders, answers }
    }

    fn order(&mut self, order: &str) -> f64 {
        writeln!(self.orders, "{order}").expect("it reads its orders");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim().parse().unwrap_or_else(|_| panic!("{order}: {answer}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a worker runs.
pub(crate) fn worker() {
    pin_to_cpu(0);
    for line in std::io::stdin().lines() {
        let line = line.expect("its orders can be read");
        let (what, to) = line.split_once(' ').unwrap_or((&line, ""));
        let to = || -> SocketAddr { to.parse().expect("an address") };
        let answer = match what {
            "tcp" => tcp_connects(to()),
            "udp" => udp_connects(to()),
            "exec" => mean_exec(),
            "stream" => stream(to()),
            _ => panic!("no such order: {line}"),
        };
        println!("{answer}");
    }
}

/// The median time of `connect` alone, in nanoseconds.
fn tcp_connects(to: SocketAddr) -> f64 {
    let mut times = Vec::with_capacity(CONNECTS);
    for _ in 0..CONNECTS {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        // A port would be taken for a minute.
        let at_once = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&socket, at_once).expect("an option");
        let start = Instant::now();
        rustix::net::connect(&socket, &to).expect("it is let");
        times.push(start.elapsed().as_nanos() as f64);
    }
    median(times)
}

/// The same, of a UDP socket.
fn udp_connects(to: SocketAddr) -> f64 {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    let socket = socket.expect("a socket");
    timed(UDP_CONNECTS, || rustix::net::connect(&socket, &to).expect("it is let")) * 1_000.0
}

/// The mean CPU time of a fork and exec, in nanoseconds: what others run meanwhile is not in it.
fn mean_exec() -> f64 {
    let before = cpu_time();
    execs(EXECS);
    (cpu_time() - before).as_nanos() as f64 / EXECS as f64
}

/// What this process and its children have had of a CPU.
fn cpu_time() -> Duration {
    let mut sum = Duration::ZERO;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // SAFETY: all zeros is one, and it outlives the call.
        let used = unsafe {
            let mut used: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(who, &raw mut used), 0);
            used
        };
        for time in [used.ru_utime, used.ru_stime] {
            let micros = u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).expect("time goes on");
            sum += Duration::from_micros(micros);
        }
    }
    sum
}

/// Bytes a second.
fn stream(to: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect(to).expect("it is let");
    let chunk = vec![7; 1 << 17];
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < STREAM {
        stream.write_all(&chunk).expect("it is let");
        sent += chunk.len();
    }
    sent as f64 / start.elapsed().as_secs_f64()
}

/// A session with a worker in it.
struct Inside {
    enforcer: EbpfEnforcer,
    cgroup: SessionCgroup,
    worker: Worker,
    /// Since when its action runs.
    since: Duration,
}

/// Where workers connect to.
struct Servers {
    /// The baseline's.
    tcp: TcpListener,
    udp: UdpSocket,
    /// An action's.
    granted: TcpListener,
    /// An action's, and read.
    sink: SocketAddr,
}

impl Servers {
    fn start() -> Self {
        let sink = listener();
        let address = sink.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for mut stream in sink.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut bytes = vec![0; 1 << 20];
                    while stream.read(&mut bytes).is_ok_and(|length| length > 0) {}
                });
            }
        });
        let (tcp, granted) = (listener(), listener());
        for waiting in [&tcp, &granted] {
            waiting.set_nonblocking(true).expect("an option");
        }
        Self { tcp, udp: UdpSocket::bind("127.0.0.1:0").expect("a free port"), granted, sink: address }
    }

    /// Takes in what has connected.
    fn accept(&self) {
        for waiting in [&self.tcp, &self.granted] {
            while match waiting.accept() {
                Ok(_) => true,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            } {}
        }
    }

    /// With so many rules, of which the last lead to these.
    fn policy(&self, rules: u16) -> Policy {
        let rule = |protocol, to: SocketAddr| NetworkRule {
            protocol,
            cidr: Cidr { address: to.ip(), prefix: 32 },
            port: Some(to.port()),
            line: 1,
        };
        let other = |number: u16| {
            let [high, low] = number.to_be_bytes();
            rule(Protocol::Tcp, SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, high, low)), 443))
        };
        let mut network: Vec<NetworkRule> = (4..rules).map(other).collect();
        network.push(rule(Protocol::Tcp, address(&self.tcp)));
        network.push(rule(Protocol::Udp, self.udp.local_addr().expect("it is bound")));
        let exec = vec![ExecRule { path: "/bin/true".into(), writable_accepted: false, line: 1 }];
        let baseline = Grant { network, exec, ..Grant::default() };
        let granted = vec![rule(Protocol::Tcp, address(&self.granted)), rule(Protocol::Tcp, self.sink)];
        Policy { grants: vec![baseline, Grant { network: granted, ..Grant::default() }], ..Policy::empty() }
    }
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    // SAFETY: takes numbers. As many may wait as connect in a turn.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 4_096) }, 0);
    listener
}

fn address(of: &TcpListener) -> SocketAddr {
    of.local_addr().expect("it is bound")
}

fn start_enforcer() -> EbpfEnforcer {
    let places = Places::find(Path::new(RUNTIME), "bench").expect("there is a cgroup2");
    EbpfEnforcer::start(&places).unwrap_or_else(|error| panic!("{error}"))
}

impl Inside {
    fn start(servers: &Servers) -> Self {
        let mut enforcer = start_enforcer();
        let worker = Worker::start();
        let cgroup = SessionCgroup::create(&enforcer.places().cgroup, SESSION).expect("a new cgroup");
        enforcer.start_session(SESSION, cgroup.id(), &servers.policy(4), USER).expect("a new session");
        enforcer.enrol_running(SESSION, worker.child.id()).expect("it runs");
        cgroup.add(worker.child.id()).expect("it runs");
        enforcer.put_scope_in_front(worker.child.id(), SCOPE).expect("it is marked");
        Self { enforcer, cgroup, worker, since: since_boot() }
    }

    /// Opens the action's doors, and says that the agent lives.
    fn open(&mut self) {
        let now = since_boot();
        self.enforcer.beat(now).expect("a write");
        let openings = [Opening { grants: GrantSet::of(1), since: self.since }];
        let until = now + Duration::from_secs(60);
        self.enforcer.set_doors(SESSION, SCOPE, GrantSet::of(1), until, &openings).expect("a write");
    }

    /// Fills the kernel side's maps.
    fn crowd(&mut self, servers: &Servers) {
        self.enforcer.prepare_rules(SESSION, &servers.policy(RULES), USER).expect("there is room");
        self.enforcer.commit_rules(SESSION).expect("a write");
        for number in 2..=SESSIONS {
            let nowhere = u64::MAX - u64::from(number);
            let started = self.enforcer.start_session(SessionId(number), nowhere, &servers.policy(4), USER);
            started.expect("there is room");
        }
    }

    fn end(self) {
        drop(self.worker);
        self.enforcer.shutdown().expect("it leaves nothing");
        drop(self.cgroup);
    }
}

/// The medians of what both need, of the differences and of the ratios, and the ratios' quartiles.
struct Compared {
    without: f64,
    added: f64,
    ratio: f64,
    quartiles: [f64; 2],
}

fn compare(pairs: &[(f64, f64)]) -> Compared {
    let mut ratios: Vec<f64> = pairs.iter().map(|(without, with)| with / without).collect();
    ratios.sort_by(f64::total_cmp);
    Compared {
        without: median(pairs.iter().map(|(without, _)| *without).collect()),
        added: median(pairs.iter().map(|(without, with)| with - without).collect()),
        ratio: ratios[ratios.len() / 2],
        quartiles: [ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4]],
    }
}

/// Has both do the same in turns.
fn in_turns(
    servers: &Servers,
    outside: &mut Worker,
    inside: &mut Inside,
    turns: usize,
    order: &str,
) -> Compared {
    let mut pairs = Vec::with_capacity(turns);
    for turn in 0..=turns {
        inside.open();
        let without = outside.order(order);
        servers.accept();
        let with = inside.worker.order(order);
        servers.accept();
        // The first one warms up.
        if turn > 0 {
            pairs.push((without, with));
        }
    }
    compare(&pairs)
}

/// Measures, and prints the table.
pub(crate) fn measure() {
    pin_to_cpu(1);
    let servers = Servers::start();
    let mut outside = Worker::start();
    let orders = [
        (format!("tcp {}", address(&servers.tcp)), "connect, TCP, by the baseline"),
        (format!("tcp {}", address(&servers.granted)), "connect, TCP, by an action's grant"),
        (format!("udp {}", servers.udp.local_addr().expect("it is bound")), "connect, UDP"),
    ];
    println!(
        "\n{:<66} {:>10} {:>9} {:>7} {:>15}   target",
        "inside a session against outside", "outside", "added", "ratio", "half within"
    );
    let mut inside = Inside::start(&servers);
    for crowd in [false, true] {
        if crowd {
            inside.crowd(&servers);
        }
        let (rules, sessions) = if crowd { (RULES, SESSIONS) } else { (4, 1) };
        for (order, name) in &orders {
            let told = in_turns(&servers, &mut outside, &mut inside, TURNS, order);
            let name = format!("{name}; {rules} rules, {sessions} sessions");
            // A TCP connection's handshake is three packets, each of which is judged too.
            let target = if order.starts_with("udp") { "≤ 300 added" } else { "" };
            print(&format!("{name}, ns"), &told, target);
        }
        let told = in_turns(&servers, &mut outside, &mut inside, EXEC_TURNS, "exec");
        print(&format!("fork + exec of /bin/true; {sessions} sessions, ns"), &told, "≤ 1.01");
    }
    let told = in_turns(&servers, &mut outside, &mut inside, TURNS, &format!("stream {}", servers.sink));
    print("a TCP stream over loopback, bytes/s", &told, "≥ 0.95");
    run_times(&servers, &mut inside, &orders);
    inside.end();

    println!(
        "\n{:<66} {:>10} {:>9} {:>7} {:>15}   target",
        "outside every session: hooks attached against not", "without", "added", "ratio", "half within"
    );
    let mut pairs: [Vec<(f64, f64)>; 3] = Default::default();
    let alone = [orders[0].0.as_str(), orders[2].0.as_str(), "exec"];
    for _ in 0..ATTACH_TURNS {
        let mut both = [(0.0, 0.0); 3];
        for attached in [false, true] {
            let enforcer = attached.then(start_enforcer);
            for (order, pair) in alone.iter().zip(&mut both) {
                let taken = median(
                    (0..5)
                        .map(|_| {
                            let taken = outside.order(order);
                            servers.accept();
                            taken
                        })
                        .collect(),
                );
                *if attached { &mut pair.1 } else { &mut pair.0 } = taken;
            }
            if let Some(enforcer) = enforcer {
                enforcer.shutdown().expect("it leaves nothing");
            }
        }
        pairs.iter_mut().zip(both).for_each(|(pairs, pair)| pairs.push(pair));
    }
    for (name, pairs) in
        ["connect, TCP, ns", "connect, UDP, ns", "fork + exec of /bin/true, ns"].iter().zip(&pairs)
    {
        print(name, &compare(pairs), "1.00");
    }
    // Where the host has a bpffs, nothing was ever made there.
    drop(std::fs::remove_dir(RUNTIME));
}

fn print(name: &str, told: &Compared, target: &str) {
    let Compared { without, added, ratio, quartiles: [low, high] } = told;
    println!("{name:<66} {without:>10.0} {added:>9.0} {ratio:>7.3} {low:>7.3} {high:>7.3}   {target}");
}

/// What the kernel itself counts of each program, which costs something, too.
fn run_times(servers: &Servers, inside: &mut Inside, orders: &[(String, &str)]) {
    let before = std::fs::read_to_string(STATISTICS).expect("the kernel counts");
    std::fs::write(STATISTICS, "1").expect("root may have it count");
    let count = |inside: &mut Inside| -> BTreeMap<String, (u64, u64)> {
        let programs = inside.enforcer.examine().expect("it can be asked").programs;
        programs.into_iter().map(|program| (program.name, (program.runs, program.nanoseconds))).collect()
    };
    let earlier = count(inside);
    for order in orders.iter().map(|(order, _)| order.as_str()).chain(["exec"]) {
        for _ in 0..TURNS {
            inside.open();
            inside.worker.order(order);
            servers.accept();
        }
    }
    let later = count(inside);
    std::fs::write(STATISTICS, before.trim()).expect("root may");
    println!("\n{:<66} {:>10} {:>9}", "of each program, by the kernel's own count", "runs", "ns a run");
    for (name, (runs, time)) in later {
        let (runs_before, time_before) = earlier.get(&name).copied().unwrap_or_default();
        let (runs, time) = (runs - runs_before, time - time_before);
        if let Some(mean) = time.checked_div(runs) {
            println!("{name:<66} {runs:>10} {mean:>9}");
        }
    }
}
