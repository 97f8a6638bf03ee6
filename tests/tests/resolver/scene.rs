//! A resolver with a gate that writes down what it is asked, and applications that ask.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use sentinel_agent::resolver::{
    About, Admission, Answer, Asker, Event, Gate, Listeners, Question, Refusal, Ticket, Upstream, start,
};
use sentinel_policy::configuration::{Resolver as Settings, Upstream as Server};
use sentinel_proto::SessionId;
use sentinel_tests::dns::DnsServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::LocalSet;

/// Session 1 may ask what `listed` says; who asks from a port of `others` is that session.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) listed: RefCell<BTreeMap<String, Ticket>>,
    pub(crate) refusal: RefCell<Option<Refusal>>,
    pub(crate) others: RefCell<BTreeMap<u16, u32>>,
    pub(crate) keeps: Cell<Option<usize>>,
    pub(crate) open_refusal: RefCell<Option<Refusal>>,
    pub(crate) asked: RefCell<Vec<String>>,
    pub(crate) askers: RefCell<Vec<Asker>>,
    pub(crate) opened: RefCell<Vec<(u32, String, Vec<IpAddr>)>>,
    pub(crate) told: RefCell<Vec<(Option<String>, Event)>>,
}

pub(crate) const TICKET: Ticket =
    Ticket { session: SessionId(1), allow_private: false, is_wildcard: false, pid: 1, scopes: [0; 4] };

impl Gate for Recording {
    fn session_of(&self, asker: Asker) -> Option<SessionId> {
        self.others.borrow().get(&asker.source.port()).map(|session| SessionId(*session))
    }

    async fn ask(&self, asker: Asker, question: &Question) -> Admission {
        self.asked.borrow_mut().push(format!("{:?} {}", question.kind, question.name));
        self.askers.borrow_mut().push(asker);
        if let Some(refusal) = self.refusal.borrow().clone() {
            return Admission::Refused(refusal);
        }
        let listed = self.listed.borrow();
        let wildcard = question.name.as_str().split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let ticket = listed.get(question.name.as_str()).or_else(|| listed.get(&wildcard?));
        let session = self.others.borrow().get(&asker.source.port()).map(|session| SessionId(*session));
        match ticket {
            Some(ticket) => {
                Admission::Admitted(Ticket { session: session.unwrap_or(ticket.session), ..*ticket })
            }
            None => Admission::Refused(Refusal::Unlisted),
        }
    }

    async fn open(
        &self,
        ticket: &Ticket,
        question: &Question,
        mut answers: Vec<Answer>,
    ) -> Result<Vec<Answer>, Refusal> {
        // Whoever replies without waiting for this would have replied by then.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        if let Some(refusal) = self.open_refusal.borrow().clone() {
            return Err(refusal);
        }
        answers.truncate(self.keeps.get().unwrap_or(usize::MAX));
        let addresses = answers.iter().map(|answer| answer.address).collect();
        self.opened.borrow_mut().push((ticket.session.0, question.name.to_string(), addresses));
        Ok(answers)
    }

    fn tell(&self, about: About<'_>, event: Event) {
        self.told.borrow_mut().push((about.name.map(ToString::to_string), event));
    }
}

/// A running resolver.
pub(crate) struct Scene {
    pub(crate) gate: Rc<Recording>,
    port: u16,
}

/// Runs a resolver that asks these servers, and something with it.
pub(crate) async fn with<T>(upstreams: &[&DnsServer], run: impl AsyncFnOnce(&Scene) -> T) -> T {
    let servers = upstreams.iter().map(|server| Server { address: server.address(), tls_name: None });
    with_settings(&settings(servers.collect()), run).await
}

pub(crate) fn settings(upstreams: Vec<Server>) -> Settings {
    Settings { upstreams: Some(upstreams), timeout_seconds: 2, ..Settings::default() }
}

pub(crate) async fn with_settings<T>(settings: &Settings, run: impl AsyncFnOnce(&Scene) -> T) -> T {
    with_upstream(Upstream::new(settings).unwrap(), run).await
}

pub(crate) async fn with_upstream<T>(upstream: Upstream, run: impl AsyncFnOnce(&Scene) -> T) -> T {
    let run = async {
        let gate = Rc::new(Recording::default());
        let listeners = Listeners::bind(0).unwrap();
        let port = listeners.port();
        let task = start(listeners, upstream, Rc::clone(&gate)).unwrap();
        let result = run(&Scene { gate, port }).await;
        task.abort();
        result
    };
    LocalSet::new().run_until(run).await
}

impl Scene {
    /// Lets session 1 ask for a name, or for what a `*.` stands for.
    pub(crate) fn list(&self, name: &str) {
        self.list_with(name, Ticket { is_wildcard: name.starts_with("*."), ..TICKET });
    }

    pub(crate) fn list_with(&self, name: &str, ticket: Ticket) {
        self.gate.listed.borrow_mut().insert(name.to_owned(), ticket);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.gate.told.borrow().iter().map(|(_, event)| event.clone()).collect()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Asks over UDP from a socket of its own, with room for every answer that is given over UDP.
    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.ask_from(&self.application(1).await, name, kind).await
    }

    /// A socket of this session.
    pub(crate) async fn application(&self, session: u32) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Connected, it takes nothing from another address than the one that it asks.
        socket.connect(self.address()).await.unwrap();
        self.gate.others.borrow_mut().insert(socket.local_addr().unwrap().port(), session);
        socket
    }

    pub(crate) async fn ask_from(&self, socket: &UdpSocket, name: &str, kind: RecordType) -> Message {
        socket.send(&query(name, kind)).await.unwrap();
        receive(socket).await
    }

    pub(crate) async fn connect(&self, session: u32) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        self.gate.others.borrow_mut().insert(socket.local_addr().unwrap().port(), session);
        socket.connect(self.address()).await.unwrap()
    }
}

pub(crate) async fn receive(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

/// A query with EDNS, its id made of its name.
pub(crate) fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut query = plain_query(name, kind);
    query.set_edns(Edns::new().set_max_payload(4096).clone());
    query.to_vec().unwrap()
}

pub(crate) fn plain_query(name: &str, kind: RecordType) -> Message {
    let id = name.bytes().fold(1_u16, |id, byte| id.wrapping_mul(31).wrapping_add(byte.into()));
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    query.add_query(Query::query(name, kind));
    query
}

pub(crate) async fn send_framed(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await.unwrap();
}

/// The next message; none where the other side has closed.
pub(crate) async fn receive_framed(stream: &mut TcpStream) -> Option<Message> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.ok()?;
    Some(Message::from_vec(&message).unwrap())
}

/// A reply's code, and how many records it has.
pub(crate) fn summary(reply: &Message) -> (ResponseCode, usize) {
    (reply.metadata.response_code, reply.answers.len())
}

pub(crate) fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A file of this test's own.
pub(crate) struct File(pub(crate) PathBuf);

impl File {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sentinel-resolver-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}
