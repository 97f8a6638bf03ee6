//! What a governed program may try, as a little language: each argument is one step, each step prints one line.
//!
//! `connect=ADDR:PORT` `udp=ADDR:PORT` `socket=FAMILY,TYPE,PROTOCOL` `exec=PATH` · attempts; print `… ok` or `… ERRNO`
//! `resolve=NAME` · prints the addresses that the C library finds, or `fails` · `reach=NAME:PORT` · finds one, and connects
//! `hold=ADDR:PORT` `write=TEXT` `read` · connects and keeps the connection, writes to it, waits a tenth of a second for something of it
//! `begin=ACTION[,COST]` `end` `fail` `forget` · a guarded action: starts, succeeds, fails, is dropped without a word
//! `fork` … `join` · the steps between run in a child, which is waited for; `setsid` … `join` in a grandchild of its own session
//! `spawn` … `done` · the steps between run in a child, side by side with what follows; all are waited for at the end
//! `thread` … `join` · the steps between run in a thread
//! `rush=N,ACTION,COST` · N threads begin and end an action, all at once; prints one line for each
//! `storm=FILE,ACTION,COST` · begins and ends an action again and again until there is such a file; prints the id of each that was let start
//! `touch=FILE` `await=FILE` `sleep=MS` `say=TEXT` `exit=N` `abort` `panic` · order and ends
//! `hammer=ADDR:PORT,N` · N connects at once from 8 threads; prints how many got through
//! `python=SCRIPT` · runs it with Debian's Python, for what Rust would make long · `totals` · what was spent

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sentinel_sdk::Guard;

thread_local! {
    /// The connection that `hold` made last.
    static HELD: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
}

fn with_held<T>(use_it: impl FnOnce(&mut TcpStream) -> std::io::Result<T>) -> std::io::Result<T> {
    HELD.with(|held| use_it(held.borrow_mut().as_mut().expect("`hold` comes before")))
}

fn main() {
    let steps: Vec<String> = std::env::args().skip(1).collect();
    let mut guards = Vec::new();
    let mut children = Vec::new();
    run(&steps, &mut guards, &mut children);
    for child in children {
        wait(child);
    }
}

/// Runs steps in order. Guards that are still held at the end are dropped: their actions count as cancelled.
fn run(steps: &[String], guards: &mut Vec<Guard>, children: &mut Vec<libc::pid_t>) {
    let mut steps = steps;
    while let Some((step, rest)) = steps.split_first() {
        let (verb, value) = step.split_once('=').unwrap_or((step, ""));
        steps = rest;
        match verb {
            "fork" | "setsid" | "spawn" | "thread" => {
                let (inner, after) = block(rest, if verb == "spawn" { "done" } else { "join" });
                steps = after;
                match verb {
                    "thread" => std::thread::scope(|scope| {
                        let run_inner = || run(inner, &mut Vec::new(), &mut Vec::new());
                        scope.spawn(run_inner).join().expect("the thread's steps run");
                    }),
                    "spawn" => children.push(fork(|| run(inner, &mut Vec::new(), &mut Vec::new()))),
                    "fork" => wait(fork(|| run(inner, &mut Vec::new(), &mut Vec::new()))),
                    _ => wait(fork(|| {
                        rustix::process::setsid().expect("a forked child leads no group");
                        wait(fork(|| run(inner, &mut Vec::new(), &mut Vec::new())));
                    })),
                }
            }
            "begin" => {
                let (action, cost) = value.split_once(',').unwrap_or((value, "0"));
                let cost: f64 = cost.parse().expect("a cost is a number");
                match sentinel_sdk::action(action).cost_usd(cost).begin_blocking() {
                    Ok(guard) => {
                        guards.push(guard);
                        say(&format!("{step} allow"));
                    }
                    Err(error) => say(&format!("{step} deny {}", error.reason_code().unwrap_or("-"))),
                }
            }
            "end" => match guards.pop() {
                Some(guard) => {
                    guard.success(&value);
                    say("end");
                }
                None => say("end of nothing"),
            },
            "fail" => {
                if let Some(guard) = guards.pop() {
                    guard.error(&"it failed");
                }
                say("fail");
            }
            "forget" => {
                drop(guards.pop());
                say("forget");
            }
            "rush" => rush(value),
            "storm" => storm(value),
            "totals" => match sentinel_sdk::totals_blocking() {
                Ok(totals) => say(&format!("totals session={} run={}", totals.session_usd, totals.run_usd)),
                Err(error) => say(&format!("totals {error}")),
            },
            "python" => {
                let status = Command::new("/usr/bin/python3").args(["-uc", value, "30"]).status();
                say(&format!("python {status:?}"));
            }
            "abort" => std::process::abort(),
            "panic" => panic!("as told"),
            "exit" => std::process::exit(value.parse().expect("an exit status is a number")),
            _ => attempt(step, verb, value),
        }
    }
}

/// The steps before the block's closing word, and those behind it. Blocks of one kind nest.
fn block<'steps>(steps: &'steps [String], closing: &str) -> (&'steps [String], &'steps [String]) {
    let mut depth = 0_usize;
    for (index, step) in steps.iter().enumerate() {
        match step.as_str() {
            "fork" | "setsid" | "thread" if closing == "join" => depth += 1,
            "spawn" if closing == "done" => depth += 1,
            step if step == closing && depth == 0 => return (&steps[..index], &steps[index + 1..]),
            step if step == closing => depth -= 1,
            _ => {}
        }
    }
    panic!("a block without `{closing}`");
}

fn attempt(step: &str, verb: &str, value: &str) {
    let result = match verb {
        "resolve" => match (value, 0).to_socket_addrs() {
            Ok(found) => {
                let mut found: Vec<String> = found.map(|found| found.ip().to_string()).collect();
                found.sort();
                found.dedup();
                return say(&format!("{step} {}", found.join(" ")));
            }
            Err(_its_text_is_the_c_librarys) => return say(&format!("{step} fails")),
        },
        "reach" => match value.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(found)) => TcpStream::connect_timeout(&found, Duration::from_secs(3)).map(drop),
            Ok(None) | Err(_) => return say(&format!("{step} fails")),
        },
        "connect" => TcpStream::connect_timeout(&address(value), Duration::from_secs(3)).map(drop),
        "hold" => TcpStream::connect_timeout(&address(value), Duration::from_secs(3))
            .map(|stream| HELD.with(|held| held.replace(Some(stream))))
            .map(drop),
        "write" => with_held(|stream| stream.write_all(value.as_bytes())),
        "read" => with_held(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            match stream.read(&mut [0])? {
                0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            }
        }),
        "udp" => {
            let to = address(value);
            let own: SocketAddr =
                if to.is_ipv4() { "0.0.0.0:0".parse() } else { "[::]:0".parse() }.expect("an address");
            UdpSocket::bind(own).and_then(|socket| socket.send_to(b"hello", to)).map(drop)
        }
        "udpconnect" => {
            let to = address(value);
            let own: SocketAddr =
                if to.is_ipv4() { "0.0.0.0:0".parse() } else { "[::]:0".parse() }.expect("an address");
            UdpSocket::bind(own).and_then(|socket| socket.connect(to))
        }
        "socket" => {
            let numbers: Vec<i32> =
                value.split(',').map(|number| number.parse().expect("a number")).collect();
            // SAFETY: no memory is passed; the descriptor is closed at once.
            let descriptor = unsafe { libc::socket(numbers[0], numbers[1], numbers[2]) };
            if descriptor < 0 {
                Err(std::io::Error::last_os_error())
            } else {
                // SAFETY: the descriptor was just opened and is used nowhere else.
                unsafe { libc::close(descriptor) };
                Ok(())
            }
        }
        "exec" => match Command::new(value).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => return say(&format!("{step} {status}")),
            Err(error) => Err(error),
        },
        "touch" => std::fs::write(value, ""),
        "await" => {
            while !std::path::Path::new(value).exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(value.parse().expect("a number")));
            return;
        }
        "say" => return say(value),
        "hammer" => {
            let (to, count) = value.split_once(',').expect("`hammer=ADDR:PORT,N`");
            let through = hammer(address(to), count.parse().expect("a number"));
            return say(&format!("{step} {through} through"));
        }
        _ => panic!("no such step: `{step}`"),
    };
    match result {
        Ok(()) => say(&format!("{step} ok")),
        Err(error) => say(&format!("{step} {}", name(&error))),
    }
}

/// Begins and ends an action in many threads that start together.
fn rush(value: &str) {
    let parts: Vec<&str> = value.split(',').collect();
    let [threads, action, cost] = parts[..] else { panic!("`rush=N,ACTION,COST`") };
    let threads: usize = threads.parse().expect("a number");
    let cost: f64 = cost.parse().expect("a cost is a number");
    let start = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                start.wait();
                match sentinel_sdk::action(action).cost_usd(cost).begin_blocking() {
                    Ok(guard) => {
                        guard.success(&());
                        say(&format!("rush {action} allow"));
                    }
                    Err(error) => say(&format!("rush {action} deny {}", error.reason_code().unwrap_or("-"))),
                }
            });
        }
    });
}

/// Begins and ends an action until it is told to stop, whatever becomes of the agent.
fn storm(value: &str) {
    let parts: Vec<&str> = value.split(',').collect();
    let [stop, action, cost] = parts[..] else { panic!("`storm=FILE,ACTION,COST`") };
    let cost: f64 = cost.parse().expect("a cost is a number");
    while !std::path::Path::new(stop).exists() {
        match sentinel_sdk::action(action).cost_usd(cost).begin_blocking() {
            Ok(guard) => {
                say(&format!("started {}", guard.id()));
                guard.success(&());
            }
            Err(_denied) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Connects from 8 threads, and counts those that got through.
fn hammer(to: SocketAddr, count: u64) -> u64 {
    let through = AtomicU64::new(0);
    let left = AtomicU64::new(count);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok()
                {
                    if TcpStream::connect(to).is_ok() {
                        through.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    through.into_inner()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no address"))
}

fn name(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::ECONNABORTED) => "ECONNABORTED".to_owned(),
        Some(libc::EPIPE) => "EPIPE".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::ECONNREFUSED) => "ECONNREFUSED".to_owned(),
        Some(libc::EAFNOSUPPORT) => "EAFNOSUPPORT".to_owned(),
        Some(libc::EPROTONOSUPPORT) => "EPROTONOSUPPORT".to_owned(),
        _ => error.to_string(),
    }
}

/// One write a line, so that lines of several processes don't mix.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    drop(stdout.write_all(format!("{line}\n").as_bytes()));
    drop(stdout.flush());
}

fn fork(inner: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the probe has no threads of its own where it forks, so the child may do all that the parent may.
    match unsafe { libc::fork() } {
        0 => {
            inner();
            std::process::exit(0)
        }
        child => {
            assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
            child
        }
    }
}

fn wait(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if libc::WIFSIGNALED(status) {
        say(&format!("child killed by signal {}", libc::WTERMSIG(status)));
    }
}
