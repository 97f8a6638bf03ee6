//! Guarded actions: ask the host agent before acting, and tell it how it ended.
//!
//! Sentinel holds a program to a policy: the agent decides whether an action may run, and the kernel keeps the doors
//! shut that no action in flight opens. This crate is the program's side of it.
//!
//! # Quick start
//!
//! ```no_run
//! use sentinel_sdk::guarded_action;
//!
//! #[guarded_action(name = "fetch_page", cost_usd = 0.01, tags = ["web"])]
//! fn fetch_page(host: &str) -> std::io::Result<String> {
//!     // Runs only if the agent says so. What `fetch_page` grants is open in here, and nowhere else.
//!     use std::io::{Read as _, Write as _};
//!     let mut stream = std::net::TcpStream::connect((host, 80))?;
//!     stream.write_all(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
//!     let mut page = String::new();
//!     stream.read_to_string(&mut page)?;
//!     Ok(page)
//! }
//!
//! #[guarded_action(cost_usd = 0.05)]
//! async fn summarise(page: String) -> Result<String, sentinel_sdk::Error> {
//!     Ok(page.chars().take(80).collect())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let page = fetch_page("192.0.2.10")?;
//! match summarise(page).await {
//!     Ok(summary) => println!("{summary}"),
//!     Err(error) if error.is_denied() => println!("{error}"), // what, why, and the way out
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Start the program with `sentinel run --policy policy.yaml -- ./program`. Without an agent every action is denied:
//! whatever keeps the agent's answer from coming, the body doesn't run. A request waits at most five seconds.
//!
//! # How an action ends
//!
//! | the body | outcome in the ledger |
//! |---|---|
//! | returns `Ok` | `success`, with its value |
//! | returns `Err` | `error`, with its text; where that is an `EPERM`, with what the kernel refused meanwhile |
//! | panics | `panicked`; the panic goes on |
//! | is dropped before it is done, as an async function that is cancelled | `cancelled` |
//! | never ends | `expired`, after the policy's `max_seconds` |
//!
//! Where the action had doors open, they are shut when the guarded function returns.
//!
//! # Costs that only the running program knows
//!
//! ```no_run
//! use sentinel_sdk::guarded_action;
//!
//! struct Page {
//!     text: String,
//!     cost: f64,
//! }
//!
//! // Expected before the body runs, by the arguments; told when it is done, by what came out.
//! #[guarded_action(cost_usd = 0.001 * prompt.len() as f64, actual_cost_usd = |page: &Page| page.cost)]
//! async fn complete(prompt: &str) -> Result<Page, sentinel_sdk::Error> {
//!     Ok(Page { text: prompt.to_uppercase(), cost: 0.0004 })
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), sentinel_sdk::Error> {
//! # println!("{}", complete("ferris").await?.text);
//! # Ok(())
//! # }
//! ```
//!
//! An amount that is none, as NaN or less than nothing, denies the action. For names and tags that only the running
//! program knows, and for bodies that know what their failures cost, [`action`] builds an action without the attribute;
//! see [`Action`].
//!
//! # What is recorded
//!
//! `#[guarded_action]` records arguments and results as JSON where their types are [`serde::Serialize`], else as their
//! [`Debug`] text, else as the name of the type; in generic functions the bounds that stand there count. Arguments are
//! recorded before the body runs. Whatever must not stand in the ledger is left out with `skip(argument)`,
//! `inputs = false` and `outputs = false`. Of more than 64 KiB only the beginning and a digest are kept.
//!
//! # Replay
//!
//! With the feature `embedded`, `replay::Replay` answers the actions whose attribute says `replay = true` with what a ledger holds.
//!
//! # Threads, runtimes and forks
//!
//! All threads and tasks of a process share what its actions open: one address space is one trust domain. Any number
//! of threads and tokio runtimes may begin actions at once. A forked child is another process to the agent: it begins
//! its own actions, on connections of its own, and a guard that it inherits says nothing.
//!
//! Nothing here panics, but for one: a tokio runtime has to drive I/O and time (`enable_all`), and tokio itself panics
//! where it is asked to and can't. No body runs then.
//!
//! # In the program's own log
//!
//! Each action is a [`tracing`] span `guarded_action` of the target `sentinel_sdk`, with its `action`, and its `id` and
//! `outcome` as soon as they are known. Bodies of guarded functions run in it. In it are events: that it was allowed
//! and that it ended, for debugging; a denial, and an end that the agent didn't confirm, as warnings. Arguments and
//! results aren't told there. Where nobody subscribes it costs next to nothing.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]
#![cfg_attr(
    test,
    expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")
)]

mod action;
mod approval;
mod client;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod explain;
mod guard;
#[doc(hidden)]
pub mod macro_support;
mod outcome;
mod pool;
mod record;
#[cfg(feature = "embedded")]
pub mod replay;
mod trace;

use std::time::Duration;

pub use action::Action;
pub use client::{Client, DEFAULT_DEADLINE, DEFAULT_SOCKET, Totals};
pub use error::Error;
pub use explain::explain;
pub use guard::{AsyncGuard, Ending, Guard, Settlement};
pub use outcome::GuardedResult;
/// # Examples
///
/// Without an agent the body doesn't run:
///
/// ```
/// use sentinel_sdk::{Client, guarded_action};
///
/// #[guarded_action(name = "delete_account", cost_usd = 0.001 * accounts.len() as f64, skip(password))]
/// fn delete(accounts: &[&str], password: &str) -> Result<usize, sentinel_sdk::Error> {
///     unreachable!("nobody has allowed it: {accounts:?}, {password}")
/// }
///
/// # fn main() -> Result<(), sentinel_sdk::Error> {
/// Client::new("/nowhere/agent.sock").use_for_process()?;
/// let error = delete(&["ann", "bob"], "hunter2").unwrap_err();
/// assert!(error.is_denied());
/// assert_eq!((error.action(), error.reason_code()), (Some("delete_account"), Some("AGENT_UNAVAILABLE")));
/// # Ok(())
/// # }
/// ```
pub use sentinel_macros::guarded_action;
pub use sentinel_proto::app::KernelDenial;
pub use sentinel_proto::{
    ActionId, Annotations, ApprovalId, BudgetScope, Denial, Label, Money, MoneyError, Reason, Remediation,
    RulePlace,
};

/// What stands in the ledger for JSON text that somebody else has made: bounded, and a text where it is no JSON.
#[doc(hidden)]
#[must_use]
pub fn payload_of_json(json: &str) -> sentinel_proto::Payload {
    record::bounded(json)
}

/// An action of this name, to be begun by this process.
pub fn action(name: impl Into<String>) -> Action {
    Client::of_process().action(name)
}

/// What the session of this process has spent.
///
/// # Errors
/// The agent doesn't answer.
pub async fn totals() -> Result<Totals, Error> {
    Client::of_process().totals().await
}

/// [`totals`] for code that isn't async.
///
/// # Errors
/// As there.
pub fn totals_blocking() -> Result<Totals, Error> {
    Client::of_process().totals_blocking()
}

/// Begins a new run of the session of this process, with a fresh run budget.
///
/// # Errors
/// The agent doesn't answer, or can't record it: the run goes on.
pub async fn reset_run() -> Result<Totals, Error> {
    Client::of_process().reset_run().await
}

/// [`reset_run`] for code that isn't async.
///
/// # Errors
/// As there.
pub fn reset_run_blocking() -> Result<Totals, Error> {
    Client::of_process().reset_run_blocking()
}

/// What the kernel refused to this process lately, newest last; repeats in a row stand once.
///
/// # Errors
/// The agent doesn't answer.
pub async fn kernel_denials(within: Duration) -> Result<Vec<KernelDenial>, Error> {
    Client::of_process().kernel_denials(within).await
}

/// [`kernel_denials`] for code that isn't async.
///
/// # Errors
/// As there.
pub fn kernel_denials_blocking(within: Duration) -> Result<Vec<KernelDenial>, Error> {
    Client::of_process().kernel_denials_blocking(within)
}
