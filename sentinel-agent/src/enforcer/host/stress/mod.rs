//! Eight processes that connect, send, fork and execute without pause, while doors open and shut a thousand times a second.
//!
//! Invariant: nothing allowed is refused inside its action and nothing forbidden comes through, the kernel leaves no program out, each refusal is
//! told or counted, and nothing of it stays in the kernel.

mod worker;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::Ordering;
use std::time::Instant;

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use sentinel_ebpf_common::record::{OPERATION_CONNECT, OPERATION_EXEC, OPERATION_SENDMSG};
use sentinel_ebpf_common::verdict::Verdict;

use self::worker::{LATE, Worker, work};
use super::*;

const WORKERS: usize = 8;
const TICK: Duration = Duration::from_millis(1);
/// More than there can be connections at a time, so that each is read to its end.
const READERS: usize = 32;
/// How long a worker may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// What other things on the machine may take meanwhile.
const NOISE_KIB: u64 = 16_384;

/// Memory that is the test's and its workers'.
struct Board(*mut Worker);

impl Board {
    fn new() -> Self {
        let (length, access) = (size_of::<[Worker; WORKERS]>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: nobody says where, so nothing else is there.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::SHARED) };
        Self(at.unwrap().cast())
    }

    fn workers(&self) -> &[Worker] {
        // SAFETY: there is room for so many; all zeros is a worker; and all members that are written later can be changed by others.
        unsafe { std::slice::from_raw_parts(self.0, WORKERS) }
    }

    /// Before any worker is there.
    fn tell(&self, granted: SocketAddr, forbidden: SocketAddr, baseline: SocketAddr, datagrams: SocketAddr) {
        for index in 0..WORKERS {
            // SAFETY: as above; and nobody else reads yet.
            let worker = unsafe { &mut *self.0.add(index) };
            worker.granted = address(granted);
            worker.forbidden = address(forbidden);
            worker.baseline = address(baseline);
            worker.forbidden_datagrams = address(datagrams);
            // Shut.
            *worker.door.get_mut() = 3;
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        let unmapped = unsafe { munmap(self.0.cast(), size_of::<[Worker; WORKERS]>()) };
        assert!(unmapped.is_ok() || std::thread::panicking());
    }
}

fn address(of: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(of) = of else { panic!("{of}") };
    libc::sockaddr_in {
        sin_family: 2,
        sin_port: of.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(of.ip().octets()) },
        sin_zero: [0; 8],
    }
}

/// Reads every connection that comes to a listener to its end, and counts what came too late.
fn read_all(listener: &TcpListener) -> (u64, u64) {
    let (mut in_time, mut late) = (0, 0);
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut bytes) {
            let lates = bytes[..length].iter().filter(|byte| **byte == LATE).count();
            late += u64::try_from(lates).unwrap();
            in_time += u64::try_from(length - lates).unwrap();
        }
    }
    (in_time, late)
}

/// What was reported of the calls that workers count.
#[derive(Default)]
struct Told {
    of_calls: u64,
    of_all: u64,
    /// How many there were of each operation and verdict.
    kinds: BTreeMap<(u32, &'static str), u64>,
}

impl Told {
    fn take(&mut self, host: &mut Host) {
        for record in host.records() {
            let is_call = matches!(record.operation, OPERATION_CONNECT | OPERATION_SENDMSG)
                || matches!(record.operation, OPERATION_EXEC | OPERATION_EXEC_REFUSED);
            self.of_calls += u64::from(is_call);
            self.of_all += 1;
            let verdict = Verdict::from_number(record.verdict).map_or("unknown", Verdict::as_str);
            *self.kinds.entry((record.operation, verdict)).or_default() += 1;
        }
    }
}

/// What the kernel keeps for the instance's maps, in bytes, with what is in them.
fn map_bytes(host: &Host) -> Vec<(String, u64)> {
    let pins = std::fs::read_dir(&host.places.pins).unwrap().map(|entry| entry.unwrap());
    let mut bytes = Vec::new();
    for pin in pins {
        let name = pin.file_name().into_string().unwrap();
        // Links, programs and the build are kept beside them.
        if name.starts_with(|first: char| first.is_lowercase()) {
            continue;
        }
        let map = MapData::from_pin(pin.path()).unwrap();
        let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let told = std::fs::read_to_string(path).unwrap();
        let locked = told.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
        bytes.push((name, locked.trim().parse().unwrap()));
    }
    bytes.sort();
    bytes
}

/// What the whole kernel keeps and can't give back.
fn kernel_kib() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap();
    let of = |name: &str| -> u64 {
        let line = told.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    of("SUnreclaim:") + of("Percpu:")
}

/// What those wait for that have not stopped, and the connections that there are.
fn stuck(puppets: &[Puppet], workers: &[Worker]) -> String {
    let mut text = String::new();
    for (puppet, worker) in puppets.iter().zip(workers) {
        if !worker.stopped.load(Ordering::SeqCst) {
            for file in ["wchan", "syscall"] {
                text +=
                    &std::fs::read_to_string(format!("/proc/{}/{file}", puppet.pid())).unwrap_or_default();
                text.push(' ');
            }
        }
    }
    text + &std::fs::read_to_string("/proc/net/tcp").unwrap()
}

/// Opens a scope's door, or shuts it, and tells its worker before and after.
fn turn(host: &mut Host, session: &Session, worker: &Worker, scope: u64, open: bool) {
    worker.door.fetch_add(1, Ordering::SeqCst);
    let (grants, time) =
        if open { (GrantSet::of(1), Duration::from_secs(60)) } else { (GrantSet::EMPTY, Duration::ZERO) };
    host.set_doors(session, scope, grants, time);
    worker.door.fetch_add(1, Ordering::SeqCst);
}

/// Opens so many doors, and shuts as many, at most one of each a millisecond.
fn open_and_shut(host: &mut Host, session: &Session, workers: &[Worker], times: u32) -> Told {
    let mut told = Told::default();
    let start = Instant::now();
    for tick in 0..times {
        let index = usize::try_from(tick).unwrap() % WORKERS;
        let shut = (index + WORKERS / 2) % WORKERS;
        turn(host, session, &workers[index], index as u64 + 1, true);
        if tick as usize >= WORKERS / 2 {
            turn(host, session, &workers[shut], shut as u64 + 1, false);
        }
        host.enforcer().beat(since_boot()).unwrap();
        told.take(host);
        std::thread::sleep((TICK * tick).saturating_sub(start.elapsed()));
    }
    for (worker, scope) in workers.iter().zip(1..) {
        if worker::is_open(worker.door.load(Ordering::SeqCst)) {
            turn(host, session, worker, scope, false);
        }
    }
    told
}

#[expect(clippy::print_stdout, reason = "a failed test shows what it counted")]
fn storm(times: u32, is_alone: bool) {
    let mut host = Host::new();
    let bytes = map_bytes(&host);
    let ((listening, granted), (never, forbidden)) =
        (listener(Ipv4Addr::LOCALHOST), listener(Ipv4Addr::LOCALHOST));
    let ((receiver, baseline), (unreached, datagrams)) = (udp_receiver(), udp_receiver());
    let always = Grant { exec: programs(&[TRUE]).exec, ..network(&[(Protocol::Udp, baseline)]) };
    let session = host.session(1, &policy(vec![always, network(&[(Protocol::Tcp, granted)])]));
    let board = Board::new();
    board.tell(granted, forbidden, baseline, datagrams);
    let workers = board.workers();
    let puppets: Vec<Puppet> = workers.iter().map(|_| host.command(&session)).collect();
    for (puppet, scope) in puppets.iter().zip(1..) {
        host.enforcer().put_scope_in_front(puppet.pid(), ScopeId(scope)).unwrap();
    }
    host.records();
    let kib = kernel_kib();
    let lost = host.enforcer().dropped_records().unwrap();

    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let listening = listening.try_clone().unwrap();
            std::thread::spawn(move || read_all(&listening))
        })
        .collect();
    let start = Instant::now();
    for (puppet, worker) in puppets.iter().zip(workers) {
        puppet.send(Deed::Run(work, std::ptr::from_ref(worker).expose_provenance())).unwrap();
    }
    let mut told = open_and_shut(&mut host, &session, workers, times);
    let took = start.elapsed();
    for worker in workers {
        worker.stop.store(true, Ordering::SeqCst);
    }
    // A connect that was under way is told of its end when its refusal is read.
    let patience = Instant::now() + PATIENCE;
    while !workers.iter().all(|worker| worker.stopped.load(Ordering::SeqCst)) {
        told.take(&mut host);
        assert!(Instant::now() < patience, "stuck: {}; told: {:?}", stuck(&puppets, workers), told.kinds);
        std::thread::sleep(TICK);
    }
    told.take(&mut host);
    let lost = host.enforcer().dropped_records().unwrap() - lost;
    rustix::net::shutdown(&listening, rustix::net::Shutdown::Both).unwrap();
    let (mut in_time, mut late) = (0, 0);
    for reader in readers {
        let (of_one, late_of_one) = reader.join().unwrap();
        in_time += of_one;
        late += late_of_one;
    }

    let sum = |of: fn(&worker::Counts) -> &std::sync::atomic::AtomicU64| -> u64 {
        workers.iter().map(|worker| of(&worker.counts).load(Ordering::SeqCst)).sum()
    };
    let (connected, refusals) = (sum(|counts| &counts.connected), sum(|counts| &counts.refusals));
    println!(
        "{times} openings in {took:?}; connected {connected}, inside {}, refused outside {}, forbidden {}; late writes {}; datagrams {} and {} \
         refused; execs {} and {} denied; refusals {refusals}, told {} of {}, lost {lost}: {:?}; left out {:?}; kernel {kib} KiB",
        sum(|counts| &counts.connected_inside),
        sum(|counts| &counts.refused_outside),
        sum(|counts| &counts.forbidden_refused),
        sum(|counts| &counts.late_writes),
        sum(|counts| &counts.datagrams),
        sum(|counts| &counts.datagrams_refused),
        sum(|counts| &counts.ran),
        sum(|counts| &counts.denied),
        told.of_calls,
        told.of_all,
        told.kinds,
        host.enforcer().missed_runs(),
    );
    let wrong = |worker: &Worker| {
        let last = worker.counts.last.load(Ordering::SeqCst);
        (
            worker.counts.wrongly_refused.load(Ordering::SeqCst),
            worker.counts.wrongly_allowed.load(Ordering::SeqCst),
            format!("line {}, status {:#x}", last >> 32, last & 0xffff_ffff),
        )
    };
    let wrongs: Vec<_> = workers.iter().map(wrong).collect();
    // Allowed and refused: by which hook, and why.
    assert!(
        wrongs.iter().all(|(refused, allowed, _)| (*refused, *allowed) == (0, 0)),
        "{wrongs:?} {:?}",
        told.kinds
    );
    for (what, count) in [
        ("connected inside", sum(|counts| &counts.connected_inside)),
        ("refused outside", sum(|counts| &counts.refused_outside)),
        ("forbidden", sum(|counts| &counts.forbidden_refused)),
        ("late", sum(|counts| &counts.late_writes)),
        ("datagrams", sum(|counts| &counts.datagrams)),
        ("ran", sum(|counts| &counts.ran)),
        ("denied", sum(|counts| &counts.denied)),
        ("arrived", in_time),
    ] {
        assert!(count > 0, "none: {what}");
    }
    // Where they would have come to, nothing did.
    assert_eq!(late, 0, "written after its action and arrived");
    never.set_nonblocking(true).unwrap();
    assert_eq!(never.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    unreached.set_nonblocking(true).unwrap();
    assert_eq!(unreached.recv(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    receiver.set_nonblocking(true).unwrap();
    assert_eq!(receiver.recv(&mut [0]).unwrap(), 1);

    assert_eq!(host.enforcer().missed_runs().unwrap(), 0);
    assert!(told.of_calls + lost >= refusals, "{} told and {lost} lost of {refusals}", told.of_calls);
    // A connection is told of once more when its packets are refused.
    assert!(told.of_all + lost <= refusals + connected, "{} told and {lost} lost of {refusals}", told.of_all);
    let maps = host.enforcer().maps();
    let (scopes, counts) = (maps.scopes.map.keys().count(), maps.connection_counts.map.keys().count());
    assert_eq!((scopes, counts, maps.connections.map.keys().count()), (0, 0, 0));
    drop(puppets);
    host.launchers.clear();
    wait_until("its processes are gone", || session.cgroup.processes().unwrap().is_empty());
    host.enforcer().stop_session(session.id).unwrap();
    assert_eq!(host.enforcer().marks().unwrap(), []);
    // What a process was born with is there until the kernel frees it.
    wait_until("the maps are as before", || map_bytes(&host) == bytes);
    if is_alone {
        wait_until("the kernel has given its memory back", || kernel_kib() <= kib + NOISE_KIB);
        println!("kernel {} KiB afterwards", kernel_kib());
    }
}

#[test]
fn five_seconds_of_all_at_once_let_nothing_through_and_refuse_nothing_allowed() {
    storm(5_000, false);
}

#[test]
fn sixty_seconds_of_all_at_once_leave_nothing_behind() {
    storm(60_000, true);
}
