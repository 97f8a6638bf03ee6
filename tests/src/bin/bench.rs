//! `cargo xtask bench`: what a guarded action, a connect and an exec cost, as ratios in one run on one CPU.
//!
//! Each repetition measures the bare thing and the governed one after the other; a ratio is the median over the repetitions. The
//! program calls itself with `inside` as the command of a session.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use sentinel_tests::{Finished, Host};

const REPETITIONS: usize = 5;
const ROUND_TRIPS: usize = 5_000;
const CONNECTS: usize = 1_000;
const EXECS: usize = 200;
/// As long as a `begin` with small inputs.
const MESSAGE_BYTES: usize = 128;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, server] = arguments.as_slice()
        && mode == "inside"
    {
        return inside(server.parse().expect("an address"));
    }
    pin_to_first_cpu();
    let server = accepting_server();
    let host = Host::with_policy(format!(
        "actions:\n  plain: {{}}\n  granted: {{grants: {{network: [\"192.0.2.1:1\"]}}}}\nenforcement:\n  network: {{allow: [\"{server}\"]}}\n  exec: {{allow: [/usr/bin/true]}}\n"
    ));
    let own = std::env::current_exe().expect("a program knows its own path").display().to_string();
    let idle = resident_kib(host.agent_pid());

    let mut rows: Vec<Vec<f64>> = vec![Vec::new(); 9];
    for _ in 0..REPETITIONS {
        let ping = ping_pong();
        let (connect, exec) = (connects(server), execs());
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
    println!("{:<52} {:>10.1} {:>9}   ≤ 15", "agent's resident memory when idle, MiB", idle / 1024.0, "");
    println!(
        "{:<52} {:>10.1} {:>9}   ≤ 15",
        "agent's resident memory after the run, MiB",
        loaded / 1024.0,
        ""
    );
}

/// The command of the session: prints its four medians in microseconds.
fn inside(server: SocketAddr) {
    let cycle = |action: &'static str| {
        timed(ROUND_TRIPS, || {
            sentinel_sdk::action(action).begin_blocking().expect("the policy allows it").success(&());
        })
    };
    // The first of each kind pays for the connection and the scope.
    sentinel_sdk::action("plain").begin_blocking().expect("the policy allows it").success(&());
    println!("{} {} {} {}", cycle("plain"), cycle("granted"), connects(server), execs());
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

fn execs() -> f64 {
    timed(EXECS, || {
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
fn pin_to_first_cpu() {
    let mut set = rustix::thread::CpuSet::new();
    set.set(0);
    rustix::thread::sched_setaffinity(None, &set).expect("there is a first CPU");
}
