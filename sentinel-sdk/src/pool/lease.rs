//! A connection that serves one request.
//!
//! Invariant: however a request ends, also when its future is dropped half way, its connection goes back to rest only
//! if the next one can trust what it reads there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sentinel_proto::app::{Answer, End, Reply, Request, RequestId};
use sentinel_proto::{Outcome, Payload, encode_frame};
use tokio::sync::SemaphorePermit;

use super::connection::{Connection, Progress, Reading};
use super::waiting::{Deadline, Waiting, finish};
use super::{LinkError, Pool};

/// A `begin` whose future was dropped is waited for so long: if it was let start, it is ended at once.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// Where the conversation stands.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing is asked.
    Quiet,
    /// A `begin` is on its way; its answer may open doors.
    Beginning(RequestId),
    /// Something else is on its way; its answer can be skipped.
    Asking(RequestId),
    /// Nothing that comes can be trusted any more.
    Broken,
}

/// A connection for the time of one request.
#[derive(Debug)]
pub(crate) struct Lease<'pool> {
    pool: &'pool Pool,
    /// There until this is dropped.
    reading: Option<Reading>,
    state: State,
    /// Whether it was dialled for this request.
    pub(crate) is_new: bool,
    // The last to be dropped, when the connection is at rest again.
    _permit: SemaphorePermit<'pool>,
}

impl<'pool> Lease<'pool> {
    pub(crate) fn new(
        pool: &'pool Pool,
        reading: Reading,
        permit: SemaphorePermit<'pool>,
        is_new: bool,
    ) -> Self {
        Self { pool, reading: Some(reading), state: State::Quiet, is_new, _permit: permit }
    }

    /// Sends the request.
    ///
    /// # Errors
    /// The agent has not got all of it, and never will.
    pub(crate) async fn send(
        &mut self,
        frame: &[u8],
        waiting: Waiting,
        deadline: Deadline,
    ) -> io::Result<()> {
        self.state = State::Broken;
        let Some(reading) = &self.reading else { return Err(io::ErrorKind::NotConnected.into()) };
        reading.connection.send_whole(frame, waiting, deadline).await?;
        self.state = State::Quiet;
        Ok(())
    }

    /// Waits for its answer.
    ///
    /// # Errors
    /// There is none; see [`LinkError`].
    pub(crate) async fn answer(
        mut self,
        number: RequestId,
        request: &Request,
        waiting: Waiting,
        deadline: Deadline,
    ) -> Result<(Reply, Arc<Connection>), LinkError> {
        let is_begin = matches!(request, Request::Begin(_));
        self.state = if is_begin { State::Beginning(number) } else { State::Asking(number) };
        let Some(reading) = &mut self.reading else { return Err(LinkError::Unexpected) };
        match reading.answer(number, waiting, deadline).await {
            Ok(reply) => {
                self.state = State::Quiet;
                Ok((reply, Arc::clone(&reading.connection)))
            }
            Err(error) => {
                if is_begin || !matches!(error, LinkError::TimedOut(_)) {
                    self.state = State::Broken;
                }
                Err(error)
            }
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(mut reading) = self.reading.take() else { return };
        let is_sound = match self.state {
            State::Quiet => true,
            State::Asking(request) => {
                reading.forget(request);
                true
            }
            State::Beginning(request) => take_back(&mut reading, request),
            State::Broken => false,
        };
        if is_sound && !reading.connection.is_lost() {
            self.pool.at_rest().push(reading);
        } else {
            reading.connection.shut();
        }
    }
}

/// Ends an action at once that was let start when nobody wanted it any more. False where that is not known.
fn take_back(reading: &mut Reading, request: RequestId) -> bool {
    let deadline = Deadline::after(LAST_MOMENT);
    match finish(reading.answer(request, Waiting::InThread, deadline)) {
        Ok(Reply::Decision(answer)) => match *answer {
            Answer { action_id: Some(action_id), .. } => {
                let outputs = Payload::null();
                let end = End {
                    request: None,
                    action_id,
                    outcome: Outcome::Cancelled,
                    cost_usd: None,
                    outputs,
                    annotations: None,
                };
                let Ok(frame) = encode_frame(&Request::End(end)) else { return false };
                matches!(reading.connection.send(&frame), Ok(Progress::Sent))
            }
            _ => true,
        },
        Ok(_) => true,
        Err(_) => false,
    }
}
