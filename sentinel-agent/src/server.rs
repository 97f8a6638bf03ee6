//! The two sockets: who may come in, and how many.
//!
//! Invariant: strangers can't keep others out. Connections that have not said hello are few for each uid and short
//! for all; those of applications leave room for operators.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use sentinel_proto::app::RefusalCode;
use tokio::io::unix::AsyncFd;

use crate::connection::{Arrival, Connection, Door, serve};
use crate::intake::Intake;
use crate::peer;

/// Connections of applications in total.
pub const MOST_CONNECTIONS: usize = 1_024;
/// Connections of one session.
pub const MOST_OF_A_SESSION: usize = 128;
/// Connections of one uid that have not been answered a hello.
pub const MOST_STRANGERS: usize = 128;
/// Connections of operators.
pub const MOST_OPERATORS: usize = 64;

const READ_BYTES: usize = 64 * 1024;

/// Makes a listening socket at `path` with this mode and group, in place of an older one. It appears there only when
/// it is ready.
///
/// # Errors
/// The system refused; nothing new is at `path`.
pub fn listen_at(path: &Path, mode: u32, group: Option<u32>) -> io::Result<OwnedFd> {
    let unready = path.with_extension("new");
    match fs::remove_file(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    peer::ask_for_senders(listener.as_fd())?;
    bind(&listener, &SocketAddrUnix::new(&unready)?)?;
    let made = (|| {
        std::os::unix::fs::chown(&unready, Some(0), Some(group.unwrap_or(0)))?;
        fs::set_permissions(&unready, fs::Permissions::from_mode(mode))?;
        listen(&listener, 1_024)?;
        fs::rename(&unready, path)
    })();
    if made.is_err() {
        // The first error is the one to tell.
        let _already_failed = fs::remove_file(&unready);
    }
    made.map(|()| listener)
}

/// What the connections of both sockets share.
#[derive(Debug)]
pub struct Server {
    intake: Rc<Intake<Arrival>>,
    buffer: Rc<RefCell<Box<[u8]>>>,
    next_id: Cell<u64>,
    applications: Cell<usize>,
    operators: Cell<usize>,
    strangers: RefCell<BTreeMap<u32, usize>>,
}

/// Counts a connection that has not been answered its hello, until it is dropped.
#[derive(Debug)]
struct Stranger(Rc<Server>, u32);

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.0.strangers.borrow_mut();
        if let Some(count) = strangers.get_mut(&self.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                strangers.remove(&self.1);
            }
        }
    }
}

impl Server {
    /// A server whose connections bring their messages there.
    #[must_use]
    pub fn new(intake: Rc<Intake<Arrival>>) -> Rc<Self> {
        Rc::new(Self {
            intake,
            buffer: Rc::new(RefCell::new(vec![0; READ_BYTES].into_boxed_slice())),
            next_id: Cell::new(1),
            applications: Cell::new(0),
            operators: Cell::new(0),
            strangers: RefCell::default(),
        })
    }

    /// Accepts for ever. To be spawned on a `LocalSet`.
    pub async fn accept(self: Rc<Self>, door: Door, listener: AsyncFd<OwnedFd>) {
        loop {
            let Ok(mut guard) = listener.readable().await else { return };
            match accept_with(listener.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.admit(door, socket),
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                // The peer has gone again.
                Err(rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::warn!(?door, %error, "cannot accept a connection; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves an accepted connection, or says why not.
    fn admit(self: &Rc<Self>, door: Door, socket: OwnedFd) {
        let id = self.next_id.get();
        self.next_id.set(id.saturating_add(1));
        let connection = match Connection::new(id, door, socket) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::info!(?door, %error, "a connection's opener is unknown; closing");
                return;
            }
        };
        let uid = connection.opener.sender.uid;
        let (count, most) = match door {
            Door::Application => (&self.applications, MOST_CONNECTIONS),
            Door::Operator => (&self.operators, MOST_OPERATORS),
        };
        let strangers = self.strangers.borrow().get(&uid).copied().unwrap_or(0);
        if count.get() >= most || strangers >= MOST_STRANGERS {
            tracing::info!(?door, uid, "too many connections; one is refused");
            connection.refuse(None, RefusalCode::Busy, "too many connections; close some and try again");
            return;
        }
        count.set(count.get().saturating_add(1));
        *self.strangers.borrow_mut().entry(uid).or_default() += 1;
        let stranger = Stranger(Rc::clone(self), uid);
        let server = Rc::clone(self);
        tokio::task::spawn_local(async move {
            serve(connection, Rc::clone(&server.intake), Rc::clone(&server.buffer), stranger).await;
            let count = match door {
                Door::Application => &server.applications,
                Door::Operator => &server.operators,
            };
            count.set(count.get().saturating_sub(1));
        });
    }
}
