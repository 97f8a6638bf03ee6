//! What `tls_names: enforce` costs: a connection to a host by name, what it says first and a byte for an answer, with it and without, in turns.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use sentinel_tests::Host;
use sentinel_tests::dns::{DnsServer, Entry, Zone};

use super::median;

const HOST: &str = "n0.example.com";
const CONNECTIONS: u32 = 2_000;
const REPETITIONS: usize = 7;
/// As many extensions as a browser has.
const EXTENSIONS: u16 = 18;

/// Connects again and again, and prints how many microseconds the median of the connections took.
pub(crate) fn inside(port: u16) {
    let hello = hello();
    let mut times: Vec<f64> = (0..CONNECTIONS)
        .map(|number| {
            // The first one has the name resolved, and is left out with all that follows from that.
            let host = if number == 0 { HOST } else { "127.0.0.1" };
            let begun = Instant::now();
            let mut stream = TcpStream::connect((host, port)).expect("the door is open");
            stream.write_all(&hello).expect("it is sent");
            stream.read_exact(&mut [0]).expect("an answer comes");
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{}", times[times.len() / 2]);
}

pub(crate) fn measure() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("a listener has an address").port();
    let length = hello().len();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _client_is_gone =
                stream.read_exact(&mut vec![0; length]).and_then(|()| stream.write_all(&[1]));
        }
    });
    let entry = Entry { a: vec![Ipv4Addr::LOCALHOST], ttl: 300, ..Entry::default() };
    let dns = DnsServer::builder().start(Zone::from([(HOST.to_owned(), entry)]));
    let own = std::env::current_exe().expect("a program knows its own path").display().to_string();
    let start = |more: &str| {
        let policy = format!(
            "{more}enforcement: {{network: {{allow: [{{host: \"{HOST}:{port}\", allow_private: true}}]}}}}\n"
        );
        let configuration = format!("resolver: {{upstreams: [\"{}\"]}}\n", dns.address());
        Host::builder().policy("test", policy).configuration(configuration).start()
    };
    let (without, with) = (start(""), start("tls_names: enforce\n"));
    let run = |host: &Host| {
        let finished = host.run(&[&own, "hellos-inside", &port.to_string()]);
        finished.stdout.trim().parse::<f64>().unwrap_or_else(|_| panic!("{finished:?}"))
    };
    let (mut plain, mut looked_into, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let [off, on] = [run(&without), run(&with)];
        plain.push(off);
        looked_into.push(on);
        ratios.push(on / off);
    }
    let (plain, looked_into, ratio) = (median(plain), median(looked_into), median(ratios));
    println!("\n{:<52} {plain:>10.1} {:>9}", "a connection to a host by name, µs", "1.00");
    println!("{:<52} {looked_into:>10.1} {ratio:>9.2}", "the same under `tls_names: enforce`");
}

/// A ClientHello that asks for the host behind all other extensions.
fn hello() -> Vec<u8> {
    let short = |number: usize| u16::try_from(number).expect("it fits").to_be_bytes();
    let mut list = Vec::new();
    for kind in 1..EXTENSIONS {
        list.extend((kind + 100).to_be_bytes());
        list.extend([0, 16]);
        list.extend([0; 16]);
    }
    list.extend([0, 0]);
    list.extend(short(HOST.len() + 5));
    list.extend(short(HOST.len() + 3));
    list.push(0);
    list.extend(short(HOST.len()));
    list.extend(HOST.as_bytes());
    let mut message = vec![3, 3];
    message.extend([7; 32]);
    message.extend([0, 0, 2, 0x13, 1, 1, 0]);
    message.extend(short(list.len()));
    message.extend(list);
    let mut record = vec![22, 3, 1];
    record.extend(short(message.len() + 4));
    record.extend([1, 0]);
    record.extend(short(message.len()));
    record.extend(message);
    record
}
