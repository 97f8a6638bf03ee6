//! Why the system refused something: what the kernel refused to this process lately.

use std::io;
use std::time::Duration;

use sentinel_proto::app::KernelDenial;

use crate::client::Client;

/// How far back *lately* goes where no action says it better.
pub(crate) const RECENT: Duration = Duration::from_secs(10);

/// The number of `EPERM`, with which the kernel refuses a connect, a send and a socket.
const EPERM: i32 = 1;

/// What the kernel refused to this process in the last ten seconds, where that may explain the error: where it is an
/// `EPERM`. None where it isn't, where nothing was refused, and where the agent doesn't answer.
///
/// Asks the agent, and blocks meanwhile. A killed `exec` is no error of the one that started it: look for it with
/// [`kernel_denials`](crate::kernel_denials).
///
/// # Examples
/// ```no_run
/// if let Err(error) = std::net::TcpStream::connect("192.0.2.1:443") {
///     for denial in sentinel_sdk::explain(&error).unwrap_or_default() {
///         eprintln!("{} was {}; to allow it:\n{}", denial.attempt, denial.fate, denial.would_allow.unwrap_or_default());
///     }
/// }
/// ```
#[must_use]
pub fn explain(error: &io::Error) -> Option<Vec<KernelDenial>> {
    if !is_refusal(error) {
        return None;
    }
    let denials = Client::of_process().kernel_denials_blocking(RECENT).ok()?;
    if denials.is_empty() { None } else { Some(denials) }
}

/// Whether an error, or one that caused it, is an `EPERM` of the system.
pub(crate) fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| {
            error.raw_os_error() == Some(EPERM)
                // An error that wraps another tells of its sources, and not of itself.
                || error.get_ref().is_some_and(|inner| is_refusal(inner))
        })
}

/// The same for an error of which only the text is known: as [`io::Error`] writes it.
pub(crate) fn tells_of_refusal(text: &str) -> bool {
    text.contains("(os error 1)")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{is_refusal, tells_of_refusal};

    #[test]
    fn an_eperm_is_found_however_deep_it_lies() {
        let refused = || io::Error::from_raw_os_error(1);
        assert!(is_refusal(&refused()));
        assert!(is_refusal(&io::Error::other(refused())));
        assert!(is_refusal(&io::Error::other(io::Error::other(refused()))));
        assert!(tells_of_refusal(&format!("fetch: {}", refused())));
    }

    #[test]
    fn another_error_is_no_refusal() {
        assert!(!is_refusal(&io::Error::from_raw_os_error(13)));
        assert!(!is_refusal(&io::Error::other("(os error 1)")));
        assert!(!tells_of_refusal(&io::Error::from_raw_os_error(111).to_string()));
    }
}
