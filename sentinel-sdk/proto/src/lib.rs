//! Sentinel's vocabulary and wire messages.
//!
//! What an application, the host agent and an operator say to each other, and the words that all of them
//! share. Pure: no clock, no sockets, no threads. The bytes of every message are pinned by the golden files
//! under `testdata/`; a change to one of them is a change of the protocol and needs a new [`VERSION`].
//!
//! `PROTOCOL.md` beside this crate documents the wire for clients in other languages.

#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod admin;
mod annotations;
pub mod app;
mod decision;
pub mod examination;
mod frame;
mod host_name;
mod money;
mod name;
mod outcome;
mod payload;
mod remediation;
mod visible;

pub use annotations::Annotations;
pub use decision::{BudgetScope, Decision, Denial, Reason, RulePlace};
pub use frame::{FrameError, FrameReader, MAX_FRAME_BYTES, encode_frame};
pub use host_name::{HostName, HostNameError};
pub use money::{Money, MoneyError};
pub use name::{ActionName, Label, NameError, RiskLevel, SessionName, Tag};
pub use outcome::Outcome;
pub use payload::{MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, Payload};
pub use remediation::Remediation;
pub use visible::is_visible;

/// The protocol's version: the first message of a connection names it, and an unequal one is refused.
pub const VERSION: u32 = 1;

/// A guarded action that the agent let start; unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub uuid::Uuid);

impl std::fmt::Display for ActionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A wish for a human's approval; unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ApprovalId(pub uuid::Uuid);

impl std::fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A session, as the agent numbers them; never taken from a client. 0 is never a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u32);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
