//! The connection of asynchronous callers: one a process, kept by a task that writes what is queued and hands out answers.
//!
//! An answer that nobody waits for any more, because its caller was cancelled, is not lost: an *allow* among them is ended at once. Queueing
//! never waits, so that dropping a guard can do it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sentinel_proto::app::{End, Reply, Request, RequestId};
use sentinel_proto::{FrameReader, Outcome, Payload, encode_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::socket::{DEADLINE, cannot_connect, check_welcome, hello, path, refusal, request_of};

static CONNECTION: Mutex<Option<Arc<Connection>>> = Mutex::new(None);

/// The way to the task that keeps the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pid: u32,
    orders: mpsc::UnboundedSender<Order>,
    last_request: AtomicU64,
}

#[derive(Debug)]
struct Order {
    frame: Vec<u8>,
    /// Who waits for the answer to which request.
    waiter: Option<(RequestId, oneshot::Sender<Reply>)>,
}

/// The process's connection, made on the current runtime where there is none that works.
pub(crate) async fn connection() -> Result<Arc<Connection>, Error> {
    if let Some(connection) = current() {
        return Ok(connection);
    }
    let dialled = tokio::time::timeout(DEADLINE, dial()).await;
    let connection = dialled.map_err(|_elapsed| Error::unavailable("no answer to the first message"))??;
    let mut slot = CONNECTION.lock().unwrap_or_else(PoisonError::into_inner);
    // Another task may have been faster; then both work, and the later one is kept.
    *slot = Some(Arc::clone(&connection));
    Ok(connection)
}

fn current() -> Option<Arc<Connection>> {
    let slot = CONNECTION.lock().unwrap_or_else(PoisonError::into_inner);
    // Closed where its task has ended: with the stream, or with the runtime that it ran on.
    slot.as_ref()
        .filter(|connection| connection.pid == std::process::id() && !connection.orders.is_closed())
        .map(Arc::clone)
}

async fn dial() -> Result<Arc<Connection>, Error> {
    let mut stream = UnixStream::connect(path()).await.map_err(|error| cannot_connect(&error))?;
    let frame = encode_frame(&hello()).map_err(Error::invalid)?;
    stream.write_all(&frame).await.map_err(|error| cannot_connect(&error))?;
    let mut reader = FrameReader::new();
    let mut buffer = [0_u8; 4096];
    let reply = loop {
        if let Some(reply) = reader.next_message::<Reply>().map_err(Error::unavailable)? {
            break reply;
        }
        let read = stream.read(&mut buffer).await.map_err(|error| cannot_connect(&error))?;
        if read == 0 {
            return Err(Error::unavailable("it closed the connection"));
        }
        reader.push(&buffer[..read]);
    };
    check_welcome(reply)?;
    let (orders, queue) = mpsc::unbounded_channel();
    tokio::spawn(keep(stream, reader, queue));
    Ok(Arc::new(Connection { pid: std::process::id(), orders, last_request: AtomicU64::new(0) }))
}

impl Connection {
    /// Asks, and waits for the answer. A caller that is cancelled meanwhile leaves nothing in flight.
    pub(crate) async fn request(&self, make: impl Fn(RequestId) -> Request) -> Result<Reply, Error> {
        let number = self.last_request.fetch_add(1, Ordering::Relaxed) + 1;
        let frame = encode_frame(&make(number)).map_err(Error::invalid)?;
        let (sender, receiver) = oneshot::channel();
        let order = Order { frame, waiter: Some((number, sender)) };
        self.orders.send(order).map_err(|_closed| Error::unavailable("the connection was closed"))?;
        let answer = tokio::time::timeout(DEADLINE, receiver).await;
        match answer.map_err(|_elapsed| {
            Error::unavailable(format_args!("no answer within {} s", DEADLINE.as_secs()))
        })? {
            Ok(Reply::Refused(refused)) => Err(refusal(&refused)),
            Ok(reply) => Ok(reply),
            Err(_closed) => Err(Error::unavailable("it closed the connection")),
        }
    }

    /// Says something that isn't answered, without waiting. If the connection is gone, the agent has ended what was begun on it.
    pub(crate) fn tell(&self, message: &Request) {
        if let Ok(frame) = encode_frame(message) {
            drop(self.orders.send(Order { frame, waiter: None }));
        }
    }
}

/// Writes orders and hands out answers, until the stream or the last sender is gone.
async fn keep(stream: UnixStream, mut reader: FrameReader, mut queue: mpsc::UnboundedReceiver<Order>) {
    let (mut incoming, mut outgoing) = stream.into_split();
    let mut waiters: HashMap<RequestId, oneshot::Sender<Reply>> = HashMap::new();
    let mut buffer = vec![0_u8; 4096];
    loop {
        tokio::select! {
            order = queue.recv() => {
                let Some(Order { frame, waiter }) = order else { return };
                waiters.extend(waiter);
                if outgoing.write_all(&frame).await.is_err() {
                    return;
                }
            }
            read = incoming.read(&mut buffer) => {
                let Ok(read @ 1..) = read else { return };
                reader.push(&buffer[..read]);
                while let Some(reply) = match reader.next_message::<Reply>() {
                    Ok(reply) => reply,
                    Err(_garbage) => return,
                } {
                    let Some(waiter) = request_of(&reply).and_then(|number| waiters.remove(&number)) else { continue };
                    let Err(unwanted) = waiter.send(reply) else { continue };
                    let Some(end) = end_of_unwanted(&unwanted) else { continue };
                    if outgoing.write_all(&end).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// The frame that ends an action whose caller is gone before it heard that it may run.
fn end_of_unwanted(reply: &Reply) -> Option<Vec<u8>> {
    let Reply::Decision(answer) = reply else { return None };
    let end = End {
        request: None,
        action_id: answer.action_id?,
        outcome: Outcome::Cancelled,
        cost_usd: None,
        outputs: Payload::null(),
    };
    encode_frame(&Request::End(end)).ok()
}
