//! What a host's name costs: an answer that the agent has, against the same question straight to the test's DNS server; the same beside a
//! flood; the agent's memory while many names are open; and of how many answers the door was not open when they came.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use sentinel_tests::dns::{DnsServer, Entry, Zone};
use sentinel_tests::{Host, Running};

use super::{median, resident_kib};

/// Questions of one measurement: fewer than a session may ask at once.
const QUESTIONS: usize = 900;
const REPETITIONS: usize = 5;
const NAMES: u32 = 10_000;
/// Sessions that each ask for all of them, at the same time.
const SESSIONS: u32 = 10;
/// Of all names. Nobody listens there: who is let connect is refused by the kernel's TCP, at once.
const PORT: u16 = 443;
/// As an application has it from its resolv.conf; nobody is there.
const SERVER: &str = "192.0.2.53:53";

/// Asks for names and prints how many microseconds an answer took: the median and the 99th of a hundred.
pub(crate) fn inside(first: u32, count: u32) {
    let [median, late] = ask(SERVER.parse().expect("an address"), first, count);
    println!("{median} {late}");
}

/// Asks without end, as fast as it can.
pub(crate) fn flood(server: SocketAddr) {
    loop {
        let socket = asking(server);
        for number in 0..64_u16 {
            // What finds no room is the flood's own loss.
            let _lost = socket.send(&question(number, 0));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn measure() {
    let mut zone = Zone::new();
    let mut policy = "enforcement:\n  network:\n    allow:\n".to_owned();
    for number in 0..NAMES {
        let entry = Entry { a: vec![address(number)], ttl: 300, ..Entry::default() };
        zone.insert(name(number), entry);
        writeln!(policy, "      - {{host: \"{}:{PORT}\", allow_private: true}}", name(number))
            .expect("a string takes it");
    }
    // Where nobody reads.
    let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let elsewhere = elsewhere.local_addr().expect("it is bound").to_string();
    writeln!(policy, "      - \"{elsewhere}/udp\"").expect("a string takes it");
    let dns = DnsServer::builder().start(zone);
    let configuration = format!("resolver: {{upstreams: [\"{}\"]}}\n", dns.address());
    let host = Host::builder().policy("test", policy).configuration(configuration).start();
    let own = std::env::current_exe().expect("a program knows its own path").display().to_string();
    let run = |first: u32, count: u32| {
        let finished = host.run(&[&own, "names-inside", &first.to_string(), &count.to_string()]);
        let numbers: Vec<f64> =
            finished.stdout.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [median, late] = numbers[..] else { panic!("{finished:?}") };
        [median, late]
    };
    let count = u32::try_from(QUESTIONS).expect("a small number");
    let (mut straight, mut through, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut late = Vec::new();
    for _ in 0..REPETITIONS {
        let [direct, _] = ask_one(dns.address(), count);
        let [asked, latest] = run(0, count);
        straight.push(direct);
        through.push(asked);
        late.push(latest);
        ratios.push(asked / direct);
    }
    let (straight, through, ratio, late) = (median(straight), median(through), median(ratios), median(late));
    println!("\n{:<52} {straight:>10.1} {:>9}", "a name, straight from the test's server", "1.00");
    println!("{:<52} {through:>10.1} {ratio:>9.2}   ≤ 2", "a name that the agent has, inside a session");
    let before = resident_kib(host.agent_pid());
    let _figures = run(NAMES, NAMES);
    let grown = resident_kib(host.agent_pid()) - before;
    println!("{:<52} {:>10.1}", format!("memory that {NAMES} names take, MiB"), grown / 1024.0);
    let asking: Vec<Running> =
        (0..SESSIONS).map(|_| Running::start(host.run_command(&[], &[&own, "names-doors"]))).collect();
    let mut shut = 0;
    for session in asking {
        let finished = session.finish();
        let lines = finished.lines();
        let counted: Option<[u32; 2]> = lines.last().and_then(|line| {
            let (answers, shut) = line.split_once(' ')?;
            Some([answers.parse().ok()?, shut.parse().ok()?])
        });
        let Some([NAMES, of_it]) = counted else { panic!("{finished:?}") };
        shut += of_it;
    }
    let answers = NAMES * SESSIONS;
    println!(
        "{:<52} {shut:>10} {:>9}   0",
        format!("of {answers} answers, doors not open when they came"),
        ""
    );
    let beside_a_flood = |server: &str| {
        let flooding = Running::start(host.run_command(&[], &[&own, "names-flood", server]));
        std::thread::sleep(Duration::from_secs(1));
        let late = run(0, count)[1];
        drop(flooding);
        late
    };
    let (mut busy, mut flooded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let [other, flood] = [&elsewhere, SERVER].map(beside_a_flood);
        busy.push(other);
        flooded.push(flood);
        ratios.push(flood / other);
    }
    let (busy, flooded, ratio) = (median(busy), median(flooded), median(ratios));
    println!("{:<52} {late:>10.1}", "its 99th of a hundred");
    println!("{:<52} {busy:>10.1} {:>9}", "beside a session that sends as much elsewhere", "1.00");
    println!("{:<52} {flooded:>10.1} {ratio:>9.2}   ≤ 2", "beside a session that asks as much");
}

/// Asks for each name once, as fast as allowed, and connects to its address as soon as that is told. Prints how many answers came, and how many
/// of their doors were shut.
pub(crate) fn doors() {
    let socket = asking(SERVER.parse().expect("an address"));
    let mut shut = 0;
    for number in 0..NAMES {
        answer(&socket, number);
        let connected = TcpStream::connect((address(number), PORT));
        shut += u32::from(connected.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)));
        std::thread::sleep(Duration::from_micros(2_200));
    }
    println!("{NAMES} {shut}");
}

fn address(number: u32) -> Ipv4Addr {
    let [_, _, third, fourth] = number.to_be_bytes();
    Ipv4Addr::new(127, 51, third, fourth)
}

fn name(number: u32) -> String {
    format!("n{number}.example.com")
}

fn asking(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
    socket.connect(server).expect("the resolver is there");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("five seconds are a time");
    socket
}

/// Asks for the first name `count` times; or, where `first` is as large as that, for `count` names, each once and no faster than allowed.
fn ask(server: SocketAddr, first: u32, count: u32) -> [f64; 2] {
    if first == 0 {
        return ask_one(server, count);
    }
    let socket = asking(server);
    for number in 0..count {
        answer(&socket, number);
        std::thread::sleep(Duration::from_micros(2_200));
    }
    [0.0, 0.0]
}

fn ask_one(server: SocketAddr, count: u32) -> [f64; 2] {
    let socket = asking(server);
    answer(&socket, 0);
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            answer(&socket, 0);
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

/// Asks for a name, and waits for its address.
fn answer(socket: &UdpSocket, number: u32) {
    let id = u16::try_from(number % 60_000).expect("it fits");
    socket.send(&question(id, number)).expect("it can be asked");
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).expect("an answer comes");
    let ends = &reply[length.saturating_sub(64)..length];
    assert!(
        ends.windows(4).any(|window| window == address(number).octets()),
        "another answer: {:?}",
        &reply[..length]
    );
}

fn question(id: u16, number: u32) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name(number).split('.') {
        message.push(u8::try_from(label.len()).expect("a label is short"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend([0, 1, 0, 1]);
    message
}
