//! `cargo xtask bench`: what a guarded action, a connect and an exec cost, as ratios in one run on one CPU.
//!
//! Each repetition measures the bare thing and the governed one after the other; a ratio is the median over the repetitions. The
//! program calls itself with `inside` as the command of a session.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod hellos;
mod kernel;
mod names;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sentinel_authority::{Authority, FileLedger, Limits};
use sentinel_engine::{ActionRequest, Event, Now, Policy, ScopeId};
use sentinel_ledger::{segments, verify_parts};
use sentinel_proto::{ActionId, ActionName, ApprovalId, Money, Outcome, Payload, SessionId, SessionName};
use sentinel_tests::{Finished, Host, Running};
use uuid::Uuid;

const REPETITIONS: usize = 5;
const ROUND_TRIPS: usize = 5_000;
const CONNECTS: usize = 1_000;
const EXECS: usize = 200;
const LINES: u64 = 1_000_000;
/// As long as a `begin` with small inputs.
const MESSAGE_BYTES: usize = 128;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "inside", server] => return inside(server.parse().expect("an address")),
        [_, "flood"] => return flood(),
        [_, "worker"] => return kernel::worker(),
        [_, "kernel"] => return kernel::measure(),
        [_, "hellos"] => return hellos::measure(),
        [_, "hellos-inside", port] => return hellos::inside(port.parse().expect("a port")),
        [_, "names"] => return names::measure(),
        [_, "names-flood", server] => return names::flood(server.parse().expect("an address")),
        [_, "names-inside", first, count] => {
            return names::inside(first.parse().expect("a number"), count.parse().expect("a number"));
        }
        [_, "names-doors"] => return names::doors(),
        [_, "plain"] => return println!("{}", cycle("plain")),
        _ => {}
    }
    pin_to_cpu(0);
    let server = accepting_server();
    let host = Host::with_policy(format!(
        "actions:\n  plain: {{}}\n  granted: {{grants: {{network: [\"192.0.2.1:1\"]}}}}\nenforcement:\n  network: {{allow: [\"{server}\"]}}\n  exec: {{allow: [/usr/bin/true]}}\n"
    ));
    let own = std::env::current_exe().expect("a program knows its own path").display().to_string();
    let idle = resident_kib(host.agent_pid());

    let mut rows: Vec<Vec<f64>> = vec![Vec::new(); 9];
    for _ in 0..REPETITIONS {
        let ping = ping_pong();
        let (connect, exec) = (connects(server), execs(EXECS));
        let finished: Finished = host.run(&[&own, "inside", &server.to_string()]);
        let numbers: Vec<f64> =
            finished.stdout.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [plain, granted, connect_inside, exec_inside] = numbers[..] else { panic!("{finished:?}") };
        let values =
            [ping, plain, plain / ping, granted, granted / ping, connect, connect_inside, exec, exec_inside];
        for (row, value) in rows.iter_mut().zip(values) {
            row.push(value);
        }
    }
    let [ping, plain, plain_ratio, granted, granted_ratio, connect, connect_inside, exec, exec_inside] =
        <[Vec<f64>; 9]>::try_from(rows).expect("nine rows").map(median);
    let loaded = resident_kib(host.agent_pid());

    println!("median of {REPETITIONS} repetitions, all processes on one CPU\n");
    println!("{:<52} {:>10} {:>9}   target", "", "µs", "ratio");
    println!("{:<52} {ping:>10.1} {:>9}", "bare unix-socket ping-pong", "1.00");
    println!("{:<52} {plain:>10.1} {plain_ratio:>9.2}   ≤ 2.5", "begin + one-way end, no grants");
    println!(
        "{:<52} {granted:>10.1} {granted_ratio:>9.2}   ≤ 4",
        "begin + acknowledged end, a grant opened and closed"
    );
    println!("{:<52} {connect:>10.2} {:>9}", "connect to loopback, outside a session", "1.00");
    println!(
        "{:<52} {connect_inside:>10.2} {:>9.2}",
        "connect to loopback, inside, rule open",
        connect_inside / connect
    );
    println!("{:<52} {exec:>10.1} {:>9}", "fork + exec of /bin/true, outside a session", "1.00");
    println!(
        "{:<52} {exec_inside:>10.1} {:>9.2}",
        "fork + exec of /bin/true, inside, rule open",
        exec_inside / exec
    );
    let [quiet, flooded] = beside_a_flood(&host, &own);
    println!("{:<52} {quiet:>10.1} {:>9}", "begin + one-way end, nobody else there", "1.00");
    println!(
        "{:<52} {flooded:>10.1} {:>9.2}   ≤ 2",
        "the same while another session is refused 20,000/s",
        flooded / quiet
    );
    drop(host);
    let Ledger { lines_a_second, verify, start, grown_kib } = long_ledger();
    println!("{:<52} {:>10.2} {:>9}", "a ledger line, appended by the authority", 1e6 / lines_a_second, "");
    println!("{:<52} {verify:>10.0} {:>9}", format!("verifying {LINES} lines"), "1.00");
    println!("{:<52} {start:>10.0} {:>9.4}   ≤ 0.02", "starting on them", start / verify);
    println!("{:<52} {:>10.1}", "memory that writing them took, MiB", grown_kib / 1024.0);
    println!("{:<52} {:>10.1} {:>9}   ≤ 15", "agent's resident memory when idle, MiB", idle / 1024.0, "");
    println!(
        "{:<52} {:>10.1} {:>9}   ≤ 15",
        "agent's resident memory after the run, MiB",
        loaded / 1024.0,
        ""
    );
    kernel::measure();
    names::measure();
    hellos::measure();
}

/// An action's cost without anybody else, and while another session, on the other CPU, tries to reach what it must not.
fn beside_a_flood(host: &Host, own: &str) -> [f64; 2] {
    let plain = || -> f64 {
        let finished = host.run(&[own, "plain"]);
        finished.stdout.trim().parse().unwrap_or_else(|_| panic!("{finished:?}"))
    };
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        quiet.push(plain());
        let flood = Running::start(host.run_command(&[], &[own, "flood"]));
        flood.wait_for_line("up");
        flooded.push(plain());
        drop(flood);
    }
    [median(quiet), median(flooded)]
}

/// What a long ledger costs.
struct Ledger {
    lines_a_second: f64,
    /// In µs.
    verify: f64,
    /// In µs, with a last part that is nearly full.
    start: f64,
    grown_kib: f64,
}

/// Writes a long ledger as an agent does, verifies it, and starts on it.
fn long_ledger() -> Ledger {
    let folder = std::env::temp_dir().join(format!("sentinel-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a new folder");
    let path = folder.join("ledger.jsonl");
    let now = || Now {
        wall_micros: SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
        elapsed: Duration::from_secs(1_000),
    };
    let opened = FileLedger::open(&path, now()).expect("a new ledger");
    let mut authority = Authority::going_on(opened.ledger, opened.state);
    let session = SessionId(1);
    authority.bind(session, Arc::new(Policy::empty()));
    let started = Event::SessionStart {
        session,
        name: SessionName::new("bench").ok(),
        policy: "bench".to_owned(),
        policy_sha256: String::new(),
        command: vec!["agent".to_owned()],
        uid: 1000,
        tier: "kill".to_owned(),
    };
    authority.step(started, now()).expect("it is written");
    let before = resident_kib(std::process::id());
    let start = Instant::now();
    let (mut id, mut is_last_part) = (0_u128, false);
    // To where the last part is nearly full: the longest that a start can take.
    while authority.last_seq() < LINES || !is_last_part {
        id += 1;
        let (action_id, inputs) =
            (ActionId(Uuid::from_u128(id)), Payload::of(&["some", "inputs"]).expect("JSON"));
        let request = ActionRequest {
            action_id,
            session,
            scope: ScopeId(1),
            action: ActionName::new("call").expect("a name"),
            cost: Money::ZERO,
            tags: Vec::new(),
            risk: None,
            needs_approval: false,
            approval_id: ApprovalId(Uuid::nil()),
            inputs,
            annotations: None,
            pid: 1,
        };
        authority.step(Event::Begin(Box::new(request)), now()).expect("it is written");
        let outputs = Payload::of(&"some output").expect("JSON");
        let end = Event::End {
            action_id,
            session,
            outcome: Outcome::Success,
            cost: None,
            outputs,
            annotations: None,
        };
        authority.step(end, now()).expect("it is written");
        is_last_part =
            path.metadata().expect("it is there").len() > Limits::default().segment_bytes * 98 / 100;
        if authority.last_seq() < LINES {
            authority.rotate_if(false, now()).expect("a new part");
        }
    }
    let lines_a_second = authority.last_seq() as f64 / start.elapsed().as_secs_f64();
    let grown_kib = resident_kib(std::process::id()) - before;
    drop(authority);
    let parts = segments(&path).expect("its parts");
    let verify = timed(REPETITIONS, || drop(verify_parts(&parts, None).expect("the chain is whole")));
    let start = timed(REPETITIONS, || drop(FileLedger::open(&path, now()).expect("it goes on")));
    std::fs::remove_dir_all(&folder).expect("it is ours");
    Ledger { lines_a_second, verify, start, grown_kib }
}

/// The command of a hostile session: 20,000 times a second another address, until it is killed.
fn flood() {
    pin_to_cpu(1);
    println!("up");
    let start = Instant::now();
    for tries in 0_u64.. {
        let address: SocketAddr = ([192, 0, 2, 1], u16::try_from(tries % 60_000 + 1).unwrap_or(1)).into();
        drop(TcpStream::connect(address));
        let due = Duration::from_micros(50 * tries);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

/// The median time of an action in microseconds.
fn cycle(action: &'static str) -> f64 {
    // The first of a kind pays for the connection and the scope.
    sentinel_sdk::action(action).begin_blocking().expect("the policy allows it").success(&());
    timed(ROUND_TRIPS, || {
        sentinel_sdk::action(action).begin_blocking().expect("the policy allows it").success(&());
    })
}

/// The command of the session: prints its four medians in microseconds.
fn inside(server: SocketAddr) {
    println!("{} {} {} {}", cycle("plain"), cycle("granted"), connects(server), execs(EXECS));
}

/// The median time of a call, in microseconds.
fn timed(count: usize, mut call: impl FnMut()) -> f64 {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_nanos() as f64 / 1_000.0);
    }
    median(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ping_pong() -> f64 {
    let (mut near, mut far) = UnixStream::pair().expect("a pair of sockets");
    let echo = std::thread::spawn(move || {
        let mut message = [0; MESSAGE_BYTES];
        while far.read_exact(&mut message).is_ok() {
            far.write_all(&message).expect("the near end reads");
        }
    });
    let mut message = [7; MESSAGE_BYTES];
    let result = timed(ROUND_TRIPS, || {
        near.write_all(&message).expect("the far end reads");
        near.read_exact(&mut message).expect("the far end answers");
    });
    drop(near);
    echo.join().expect("the echo ends with its socket");
    result
}

fn connects(server: SocketAddr) -> f64 {
    timed(CONNECTS, || drop(TcpStream::connect(server).expect("the server accepts")))
}

fn execs(count: usize) -> f64 {
    timed(count, || {
        let status = Command::new("/bin/true").status().expect("there is /bin/true");
        assert!(status.success(), "/bin/true: {status}");
    })
}

fn accepting_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a listener has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    address
}

fn resident_kib(pid: u32) -> f64 {
    // Let it settle: the session before has just been taken down.
    std::thread::sleep(Duration::from_millis(500));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// All processes started from here inherit it.
fn pin_to_cpu(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).expect("there are two CPUs");
}
