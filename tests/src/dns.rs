//! A DNS server that answers as a zone file scripts it, truly or not, and writes down what it was asked.
//!
//! Invariant: each question that reaches it stands in its log before it is answered, so that a test sees what left a host.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::svcb::{Alpn, EchConfigList, IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, SOA, SVCB, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde::Deserialize;

/// What forged answers say.
pub const FORGED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// The name in the certificate of a server over TLS.
pub const TLS_NAME: &str = "dns.example";

/// The most steps of an alias chain in one answer.
const MOST_STEPS: usize = 20;

/// The names that a server knows, in lower case and without a dot at the end.
pub type Zone = BTreeMap<String, Entry>;

/// What a server says of a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entry {
    /// Its IPv4 addresses.
    pub a: Vec<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub aaaa: Vec<Ipv6Addr>,
    /// Its text.
    pub txt: Vec<String>,
    /// Its service bindings.
    pub https: Vec<Binding>,
    /// The name that it is another one for.
    pub cname: Option<String>,
    /// Only the first alias stands in the answer; the rest has to be asked for.
    pub stepwise: bool,
    /// For how many seconds an answer holds.
    pub ttl: u32,
    /// One address at a time, with each question the next.
    pub rotates: bool,
    /// So many more IPv4 addresses, from 198.51.0.0 upwards.
    pub more: u16,
    /// Over UDP, every answer is cut.
    pub truncated: bool,
    /// An absence comes with the zone's SOA record.
    pub soa: bool,
    /// Each answer is late by so many milliseconds.
    pub delay_ms: u64,
    /// No answer.
    pub silent: bool,
    /// Instead of an answer, this code: `servfail`, `refused` or `nxdomain`.
    pub code: Option<String>,
    /// Answers that come first, over UDP, and say [`FORGED`].
    pub forged: Vec<Forgery>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            a: Vec::new(),
            aaaa: Vec::new(),
            txt: Vec::new(),
            https: Vec::new(),
            cname: None,
            stepwise: false,
            ttl: 60,
            rotates: false,
            more: 0,
            truncated: false,
            soa: false,
            delay_ms: 0,
            silent: false,
            code: None,
            forged: Vec::new(),
        }
    }
}

/// A service binding.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Binding {
    /// 0 makes it an alias.
    pub priority: u16,
    /// Another name; empty: the same.
    pub target: String,
    /// Protocols.
    pub alpn: Vec<String>,
    /// Addresses beside the answer.
    pub ipv4hint: Vec<Ipv4Addr>,
    /// Bytes in place of keys.
    pub ech: Vec<u8>,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Forgery {
    /// It has another id.
    Id,
    /// It comes from another port.
    Source,
    /// It answers another question.
    Question,
    /// It is no DNS message.
    Bytes,
}

/// A server, until it is dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    zone: Mutex<Zone>,
    log: Mutex<Vec<String>>,
    turns: Mutex<BTreeMap<String, usize>>,
    prints: bool,
    stop: AtomicBool,
}

/// How a server is to be.
#[derive(Debug)]
pub struct DnsServerBuilder {
    address: SocketAddr,
    prints: bool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl DnsServerBuilder {
    /// Listens there.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Writes each question on standard output too, one a line.
    #[must_use]
    pub fn printing(mut self) -> Self {
        self.prints = true;
        self
    }

    /// Speaks TLS and nothing else, under [`TLS_NAME`]. The second value is the root to trust, as PEM.
    ///
    /// # Panics
    /// If no certificate can be made.
    #[must_use]
    pub fn over_tls(mut self) -> (Self, String) {
        let made =
            rcgen::generate_simple_self_signed(vec![TLS_NAME.to_owned()]).expect("a certificate is made");
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider knows the usual versions")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("certificate and key fit");
        self.tls = Some(Arc::new(config));
        (self, made.cert.pem())
    }

    /// Starts it.
    ///
    /// # Panics
    /// If its address is taken.
    #[must_use]
    pub fn start(self, zone: Zone) -> DnsServer {
        let shared = Arc::new(Shared {
            zone: Mutex::new(zone),
            log: Mutex::default(),
            turns: Mutex::default(),
            prints: self.prints,
            stop: AtomicBool::new(false),
        });
        let (datagrams, connections) = bind(self.address);
        let address = connections.local_addr().expect("a listener has an address");
        if self.tls.is_none() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || serve_datagrams(&Arc::new(datagrams), &shared));
        }
        let (for_connections, tls) = (Arc::clone(&shared), self.tls);
        std::thread::spawn(move || serve_connections(&connections, tls.as_ref(), &for_connections));
        DnsServer { address, shared }
    }
}

impl DnsServer {
    /// On 127.0.0.1, on a port that is free for both protocols, unless said otherwise.
    #[must_use]
    pub fn builder() -> DnsServerBuilder {
        DnsServerBuilder { address: (Ipv4Addr::LOCALHOST, 0).into(), prints: false, tls: None }
    }

    /// One with this zone, as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn start(zone: &serde_json::Value) -> Self {
        Self::builder().start(serde_json::from_value(zone.clone()).expect("a zone"))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked, such as `udp A api.example`.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on, it says this of a name.
    ///
    /// # Panics
    /// If the entry is none.
    pub fn set(&self, name: &str, entry: &serde_json::Value) {
        let entry = serde_json::from_value(entry.clone()).expect("an entry");
        self.shared.zone.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), entry);
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Both wake a thread.
        drop(TcpStream::connect(self.address));
        drop(UdpSocket::bind((self.address.ip(), 0)).and_then(|socket| socket.send_to(&[], self.address)));
    }
}

fn bind(address: SocketAddr) -> (UdpSocket, TcpListener) {
    for _ in 0..32 {
        let datagrams = UdpSocket::bind(address).expect("the server's address is free");
        let local = datagrams.local_addr().expect("a socket has an address");
        match TcpListener::bind(local) {
            Ok(connections) => return (datagrams, connections),
            Err(error) => assert_eq!(address.port(), 0, "{local}: {error}"),
        }
    }
    panic!("no port is free for both protocols");
}

fn serve_datagrams(socket: &Arc<UdpSocket>, shared: &Arc<Shared>) {
    let mut buffer = [0; 4096];
    while let Ok((length, source)) = socket.recv_from(&mut buffer) {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let query = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, shared) = (Arc::clone(socket), Arc::clone(shared));
        std::thread::spawn(move || {
            let Some(answer) = shared.answer(&query, "udp") else { return };
            for forgery in &answer.entry.forged {
                let bytes = forged(&answer.message, *forgery);
                if *forgery == Forgery::Source {
                    let other = UdpSocket::bind((socket.local_addr().expect("an address").ip(), 0))
                        .expect("a socket");
                    drop(other.send_to(&bytes, source));
                } else {
                    drop(socket.send_to(&bytes, source));
                }
            }
            std::thread::sleep(Duration::from_millis(answer.entry.delay_ms));
            let mut bytes = answer.message.to_vec().expect("an answer");
            if answer.entry.truncated || bytes.len() > answer.room {
                bytes = answer.message.truncate().to_vec().expect("an answer");
            }
            drop(socket.send_to(&bytes, source));
        });
    }
}

fn serve_connections(listener: &TcpListener, tls: Option<&Arc<rustls::ServerConfig>>, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        drop(stream.set_read_timeout(Some(Duration::from_secs(30))));
        let (shared, tls) = (Arc::clone(shared), tls.cloned());
        std::thread::spawn(move || match tls {
            None => serve_stream(stream, "tcp", &shared),
            Some(config) => {
                let connection =
                    rustls::ServerConnection::new(config).expect("a configuration that was tried");
                serve_stream(rustls::StreamOwned::new(connection, stream), "tls", &shared);
            }
        });
    }
}

fn serve_stream(mut stream: impl Read + Write, over: &str, shared: &Shared) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        let Some(answer) = shared.answer(&query, over) else { continue };
        std::thread::sleep(Duration::from_millis(answer.entry.delay_ms));
        let bytes = answer.message.to_vec().expect("an answer");
        let length = u16::try_from(bytes.len()).expect("an answer fits its length");
        if stream
            .write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())
            .and_then(|()| stream.flush())
            .is_err()
        {
            return;
        }
    }
}

struct Scripted {
    message: Message,
    entry: Entry,
    /// What the asker takes in a datagram.
    room: usize,
}

impl Shared {
    fn answer(&self, query: &[u8], over: &str) -> Option<Scripted> {
        let query = Message::from_vec(query).ok()?;
        let asked = query.queries.first()?;
        let name = text(asked.name());
        self.log(&format!("{over} {} {name}", asked.query_type()));
        let mut message = Message::response(query.metadata.id, OpCode::Query);
        message.metadata.recursion_desired = query.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.add_query(asked.clone());
        let entry = self.zone.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        let Some(entry) = entry else {
            message.metadata.response_code = ResponseCode::NXDomain;
            return Some(Scripted { message, entry: Entry::default(), room: 512 });
        };
        if entry.silent {
            return None;
        }
        if let Some(code) = &entry.code {
            message.metadata.response_code = match code.as_str() {
                "servfail" => ResponseCode::ServFail,
                "refused" => ResponseCode::Refused,
                _ => ResponseCode::NXDomain,
            };
            return Some(Scripted { message, entry, room: 512 });
        }
        message.add_answers(self.records(&name, &entry, asked.query_type()));
        if entry.soa && message.answers.is_empty() {
            let soa = SOA::new(parsed(&name), parsed("hostmaster.example"), 1, 60, 60, 60, 60);
            message.add_authority(Record::from_rdata(parsed(&name), 60, RData::SOA(soa)));
        }
        Some(Scripted { message, entry, room: usize::from(query.max_payload()) })
    }

    fn records(&self, name: &str, entry: &Entry, kind: RecordType) -> Vec<Record> {
        let (mut records, mut name, mut entry) = (Vec::new(), name.to_owned(), entry.clone());
        for _ in 0..MOST_STEPS {
            let Some(target) = entry.cname.clone() else { break };
            records.push(Record::from_rdata(parsed(&name), entry.ttl, RData::CNAME(CNAME(parsed(&target)))));
            if entry.stepwise || kind == RecordType::CNAME {
                return records;
            }
            let next = self.zone.lock().unwrap_or_else(PoisonError::into_inner).get(&target).cloned();
            let Some(next) = next else { return records };
            (name, entry) = (target, next);
        }
        let data = self.data(&name, &entry, kind);
        records.extend(data.into_iter().map(|data| Record::from_rdata(parsed(&name), entry.ttl, data)));
        records
    }

    fn data(&self, name: &str, entry: &Entry, kind: RecordType) -> Vec<RData> {
        let more =
            (0..u32::from(entry.more)).map(|index| Ipv4Addr::from(0xc633_0000_u32.saturating_add(index)));
        let mut data: Vec<RData> = match kind {
            RecordType::A => entry.a.iter().copied().chain(more).map(|v4| RData::A(A(v4))).collect(),
            RecordType::AAAA => entry.aaaa.iter().map(|v6| RData::AAAA(AAAA(*v6))).collect(),
            RecordType::TXT => {
                entry.txt.iter().map(|text| RData::TXT(TXT::new(vec![text.clone()]))).collect()
            }
            RecordType::HTTPS => {
                entry.https.iter().map(|binding| RData::HTTPS(HTTPS(svcb(binding)))).collect()
            }
            RecordType::SVCB => entry.https.iter().map(|binding| RData::SVCB(svcb(binding))).collect(),
            _ => Vec::new(),
        };
        if entry.rotates && !data.is_empty() {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = turns.entry(format!("{kind} {name}")).or_default();
            let index = *turn % data.len();
            *turn = turn.wrapping_add(1);
            data = vec![data.swap_remove(index)];
        }
        data
    }

    #[expect(clippy::print_stdout, reason = "a program that is started for its log")]
    fn log(&self, line: &str) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        if self.prints {
            println!("{line}");
        }
    }
}

fn svcb(binding: &Binding) -> SVCB {
    let mut params = Vec::new();
    if !binding.alpn.is_empty() {
        params.push((SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(binding.alpn.clone()))));
    }
    if !binding.ipv4hint.is_empty() {
        let hints = binding.ipv4hint.iter().map(|v4| A(*v4)).collect();
        params.push((SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(hints))));
    }
    if !binding.ech.is_empty() {
        params.push((
            SvcParamKey::EchConfigList,
            SvcParamValue::EchConfigList(EchConfigList(binding.ech.clone())),
        ));
    }
    SVCB::new(binding.priority, parsed(&binding.target), params)
}

fn forged(answer: &Message, forgery: Forgery) -> Vec<u8> {
    let mut forged = answer.clone();
    let owner = answer.queries.first().map(|asked| asked.name().clone()).unwrap_or_default();
    forged.answers = vec![Record::from_rdata(owner, 60, RData::A(A(FORGED)))];
    match forgery {
        Forgery::Id => forged.metadata.id ^= 1,
        Forgery::Source => {}
        Forgery::Question => {
            for asked in &mut forged.queries {
                asked.set_name(parsed("other.example"));
            }
        }
        Forgery::Bytes => return vec![0xff; 40],
    }
    forged.to_vec().expect("an answer")
}

fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_lowercase()
}

fn parsed(name: &str) -> Name {
    let mut parsed = Name::from_ascii(name).expect("a name");
    parsed.set_fqdn(true);
    parsed
}

/// The address of a name in a reply, of whichever kind.
#[must_use]
pub fn addresses(reply: &Message) -> Vec<IpAddr> {
    let addresses = reply.answers.iter().filter_map(|record| match &record.data {
        RData::A(A(v4)) => Some(IpAddr::V4(*v4)),
        RData::AAAA(AAAA(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    addresses.collect()
}
