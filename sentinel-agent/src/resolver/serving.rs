//! Datagrams and connections in, replies out.
//!
//! Invariant: a question waits for nobody else's answer. What is more than there is room for is dropped: a datagram at once, and of the
//! connections one that has asked nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sentinel_proto::SessionId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::answering::Answering;
use super::message::LONGEST_QUERY;
use super::{Asker, Gate, Transport};

/// Questions of everybody at a time.
const MOST_QUESTIONS: usize = 4096;
/// Connections of everybody at a time.
const MOST_CONNECTIONS: usize = 256;
/// Connections of one session at a time.
const MOST_OF_A_SESSION: usize = 32;
/// Questions of one connection at a time; the next ones wait in its socket.
const MOST_PIPELINED: usize = 32;
/// For how long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// For how long a reply may wait for its reader.
const PATIENCE: Duration = Duration::from_secs(5);
/// After an error of a socket, which would come again at once.
const PAUSE: Duration = Duration::from_millis(100);
const SWEEP: Duration = Duration::from_secs(60);

/// What all sockets share.
#[derive(Debug)]
pub(super) struct Serving<G> {
    answering: Answering<G>,
    room: Arc<Semaphore>,
    connections: RefCell<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    last_question: Instant,
    session: Option<SessionId>,
    task: AbortHandle,
}

impl<G: Gate + 'static> Serving<G> {
    pub(super) fn new(answering: Answering<G>) -> Rc<Self> {
        let room = Arc::new(Semaphore::new(MOST_QUESTIONS));
        Rc::new(Self { answering, room, connections: RefCell::default() })
    }

    /// Answers on all of these sockets, without end.
    pub(super) async fn run(self: Rc<Self>, sockets: Vec<(UdpSocket, TcpListener)>) {
        // Dropped with this future, the set ends all tasks.
        let mut tasks = JoinSet::new();
        for (datagrams, connections) in sockets {
            tasks.spawn_local(Rc::clone(&self).serve_datagrams(Rc::new(datagrams)));
            tasks.spawn_local(Rc::clone(&self).serve_connections(connections));
        }
        loop {
            sleep(SWEEP).await;
            self.answering.sweep();
        }
    }

    async fn serve_datagrams(self: Rc<Self>, socket: Rc<UdpSocket>) {
        let mut questions = JoinSet::new();
        // A longer one is cut to a byte more than is read.
        let mut buffer = [0; LONGEST_QUERY + 1];
        loop {
            while questions.try_join_next().is_some() {}
            let (message, source) = match socket.recv_from(&mut buffer).await {
                Ok((length, source)) => (buffer.get(..length).unwrap_or_default().to_vec(), source),
                Err(error) => {
                    tracing::warn!(%error, "cannot receive questions");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let asker = Asker { protocol: Transport::Udp, source };
            if !self.answering.is_read(asker) {
                continue;
            }
            let Some(room) = self.room() else { continue };
            let (serving, socket) = (Rc::clone(&self), Rc::clone(&socket));
            questions.spawn_local(async move {
                let _room = room;
                if let Some(reply) = serving.answering.reply(asker, &message).await
                    && let Err(error) = socket.send_to(&reply.bytes, source).await
                {
                    tracing::debug!(%error, "cannot send a reply");
                }
            });
        }
    }

    async fn serve_connections(self: Rc<Self>, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let (stream, source) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections for questions");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "replies may wait for each other");
            }
            self.make_room();
            let id = self.next_connection();
            let task = tasks.spawn_local(Rc::clone(&self).serve_connection(id, stream, source));
            let connection = Connection { last_question: Instant::now(), session: None, task };
            self.connections.borrow_mut().open.insert(id, connection);
        }
    }

    async fn serve_connection(self: Rc<Self>, id: u64, stream: TcpStream, source: SocketAddr) {
        let _open = Open { serving: Rc::clone(&self), id };
        let (reader, writer) = stream.into_split();
        let (replies, outgoing) = mpsc::channel(MOST_PIPELINED);
        let reading = self.read_questions(id, reader, source, replies);
        // With a writer that is gone the reading ends too.
        let ((), written) = tokio::join!(reading, write_replies(writer, outgoing));
        if let Err(error) = written {
            tracing::debug!(%error, "cannot send a reply");
        }
    }

    async fn read_questions(
        self: &Rc<Self>,
        id: u64,
        mut reader: impl AsyncRead + Unpin,
        source: SocketAddr,
        replies: mpsc::Sender<Vec<u8>>,
    ) {
        let mut questions = JoinSet::new();
        let pipelined = Arc::new(Semaphore::new(MOST_PIPELINED));
        loop {
            while questions.try_join_next().is_some() {}
            let read = tokio::select! {
                read = timeout(SILENCE, read_message(&mut reader)) => read,
                () = replies.closed() => break,
            };
            let Ok(Ok(Some(message))) = read else { break };
            let Ok(place) = Arc::clone(&pipelined).acquire_owned().await else { break };
            let Some(room) = self.room() else { break };
            if let Some(connection) = self.connections.borrow_mut().open.get_mut(&id) {
                connection.last_question = Instant::now();
            }
            let (serving, replies) = (Rc::clone(self), replies.clone());
            questions.spawn_local(async move {
                let (_room, _place) = (room, place);
                let asker = Asker { protocol: Transport::Tcp, source };
                let Some(reply) = serving.answering.reply(asker, &message).await else { return };
                if serving.is_one_too_many(id, reply.session) {
                    serving.close(id);
                    return;
                }
                // Without a reader there is nobody to tell.
                let _ = replies.send(reply.bytes).await;
            });
        }
        drop(replies);
        while questions.join_next().await.is_some() {}
    }

    fn room(&self) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok();
        if room.is_none() {
            self.answering.tell_of_overload();
        }
        room
    }

    fn next_connection(&self) -> u64 {
        let mut connections = self.connections.borrow_mut();
        connections.next = connections.next.wrapping_add(1);
        connections.next
    }

    /// Ends a connection if there are as many as there may be: the oldest over which no session has asked yet, else that of the oldest question. So
    /// one session can't push out the others': of its own, few come to have asked.
    fn make_room(&self) {
        let longest = {
            let connections = self.connections.borrow();
            if connections.open.len() < MOST_CONNECTIONS {
                return;
            }
            let silent = connections
                .open
                .iter()
                .min_by_key(|(id, open)| (open.session.is_some(), open.last_question, **id));
            silent.map(|(id, _)| *id)
        };
        if let Some(id) = longest {
            self.close(id);
        }
        self.answering.tell_of_overload();
    }

    /// Notes whose connection it is, and says whether that session has more of them than it may have.
    fn is_one_too_many(&self, id: u64, session: Option<SessionId>) -> bool {
        let mut connections = self.connections.borrow_mut();
        let Some(session) = session else { return false };
        let Some(connection) = connections.open.get_mut(&id) else { return true };
        if connection.session == Some(session) {
            return false;
        }
        connection.session = Some(session);
        connections.open.values().filter(|open| open.session == Some(session)).count() > MOST_OF_A_SESSION
    }

    fn close(&self, id: u64) {
        let closed = self.connections.borrow_mut().open.remove(&id);
        if let Some(connection) = closed {
            connection.task.abort();
        }
    }
}

/// A connection's place in the table, until its task ends.
struct Open<G: Gate + 'static> {
    serving: Rc<Serving<G>>,
    id: u64,
}

impl<G: Gate + 'static> Drop for Open<G> {
    fn drop(&mut self) {
        self.serving.connections.borrow_mut().open.remove(&self.id);
    }
}

/// A message behind its length; none at the end.
async fn read_message(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match reader.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > LONGEST_QUERY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the query is too long"));
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write_replies(
    mut writer: impl AsyncWrite + Unpin,
    mut replies: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(reply) = replies.recv().await {
        let Ok(length) = u16::try_from(reply.len()) else { continue };
        let framed = [&length.to_be_bytes(), reply.as_slice()].concat();
        timeout(PATIENCE, writer.write_all(&framed))
            .await
            .map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    Ok(())
}
