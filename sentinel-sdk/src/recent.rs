//! Questions about the session: what was spent, and what the kernel refused lately.

use std::time::Duration;

use sentinel_proto::app::{Ask, Denials, KernelDenial, Reply, Request, RequestId, Totals};

use crate::{Error, asynchronous, blocking};

fn totals_of(reply: Reply) -> Result<Totals, Error> {
    match reply {
        Reply::Totals(totals) => Ok(totals),
        other => Err(Error::unavailable(format_args!("it answered with {other:?}"))),
    }
}

fn denials_of(reply: Reply) -> Result<Vec<KernelDenial>, Error> {
    match reply {
        Reply::Denials(list) => Ok(list.denials),
        other => Err(Error::unavailable(format_args!("it answered with {other:?}"))),
    }
}

fn denials_request(within: Duration) -> impl Fn(RequestId) -> Request {
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    move |request| Request::Denials(Denials { request, within_ms })
}

/// What the session and its current run have spent, reservations included.
///
/// # Errors
/// The agent doesn't answer.
pub async fn totals() -> Result<Totals, Error> {
    totals_of(asynchronous::connection().await?.request(|request| Request::Totals(Ask { request })).await?)
}

/// As [`totals`], for a thread that waits.
///
/// # Errors
/// The agent doesn't answer.
pub fn totals_blocking() -> Result<Totals, Error> {
    totals_of(blocking::ask(|request| Request::Totals(Ask { request }))?.1)
}

/// Begins a new run of the session: the run budget is fresh, the session's is not.
///
/// # Errors
/// The agent doesn't answer.
pub async fn reset_run() -> Result<Totals, Error> {
    totals_of(asynchronous::connection().await?.request(|request| Request::ResetRun(Ask { request })).await?)
}

/// As [`reset_run`], for a thread that waits.
///
/// # Errors
/// The agent doesn't answer.
pub fn reset_run_blocking() -> Result<Totals, Error> {
    totals_of(blocking::ask(|request| Request::ResetRun(Ask { request }))?.1)
}

/// What the kernel refused to this process lately, newest last.
///
/// # Errors
/// The agent doesn't answer.
pub async fn kernel_denials(within: Duration) -> Result<Vec<KernelDenial>, Error> {
    denials_of(asynchronous::connection().await?.request(denials_request(within)).await?)
}

/// As [`kernel_denials`], for a thread that waits.
///
/// # Errors
/// The agent doesn't answer.
pub fn kernel_denials_blocking(within: Duration) -> Result<Vec<KernelDenial>, Error> {
    denials_of(blocking::ask(denials_request(within))?.1)
}

/// Where an I/O error is the kernel's `EPERM`: what the kernel refused to this process in the last ten seconds, with the policy text that
/// would allow it. None for any other error, or where the agent doesn't answer.
#[must_use]
pub fn explain(error: &std::io::Error) -> Option<Vec<KernelDenial>> {
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return None;
    }
    kernel_denials_blocking(Duration::from_secs(10)).ok()
}
