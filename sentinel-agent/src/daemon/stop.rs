//! What tells the agent to stop: SIGTERM, SIGINT, and where it was asked for the end of standard input.

use std::future::Future;
use std::io::{self, Read as _};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Done when the agent is told to stop. Signals that come from now on are not lost. To be called inside the runtime.
///
/// # Errors
/// Signals can't be waited for.
pub(super) fn asked(until_stdin_closes: bool) -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let closed = if until_stdin_closes { Some(stdin_closed()?) } else { None };
    Ok(async move {
        let closed = async {
            match closed {
                // A reader that is gone has seen its last byte too.
                Some(closed) => drop(closed.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = closed => {}
        }
    })
}

/// Waits on a thread of its own, for standard input may be a file, which can't be watched.
fn stdin_closed() -> io::Result<oneshot::Receiver<()>> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut buffer = [0; 512];
        let mut stdin = io::stdin();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        // A driver that has stopped doesn't listen any more.
        let _stopped = tell.send(());
    })?;
    Ok(told)
}
