//! Guarded actions: ask the host agent before acting, and tell it how it ended.
//!
//! ```no_run
//! use sentinel_sdk::guarded_action;
//!
//! #[derive(Debug)]
//! enum Error {
//!     /// The agent said no: the body did not run.
//!     Denied(sentinel_sdk::Error),
//!     Io(std::io::Error),
//! }
//! # impl From<sentinel_sdk::Error> for Error { fn from(error: sentinel_sdk::Error) -> Self { Self::Denied(error) } }
//! # impl From<std::io::Error> for Error { fn from(error: std::io::Error) -> Self { Self::Io(error) } }
//! # impl std::fmt::Display for Error { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{self:?}") } }
//!
//! #[guarded_action(name = "fetch_page", cost_usd = 0.01, tags = ["web"])]
//! fn fetch_page(address: &str) -> Result<String, Error> {
//!     // Runs only if the agent says so, and the doors of `fetch_page` are open in here alone.
//!     let mut stream = std::net::TcpStream::connect(address)?;
//!     let mut page = String::new();
//!     std::io::Read::read_to_string(&mut stream, &mut page)?;
//!     Ok(page)
//! }
//! ```
//!
//! The program is started with `sentinel run`; nothing in it says who it is. It fails closed: without an answer of the agent no body
//! runs.
//!
//! Invariant: a body never runs without an *allow* for it, and every *allow* is followed by exactly one end: by return, `Err`, panic,
//! drop or cancellation; where the end can't be sent any more, the connection closes, and the agent ends the action itself.

#![forbid(unsafe_code)]

mod action;
mod asynchronous;
mod blocking;
mod error;
mod guard;
mod recent;
mod record;
mod socket;

#[doc(hidden)]
pub mod __private;

pub use action::{Action, action};
pub use error::Error;
pub use guard::{AsyncGuard, Guard};
pub use recent::{
    explain, kernel_denials, kernel_denials_blocking, reset_run, reset_run_blocking, totals, totals_blocking,
};
pub use sentinel_macros::guarded_action;
pub use sentinel_proto::app::{KernelDenial, Totals};
pub use sentinel_proto::{Denial, Money, Reason};
