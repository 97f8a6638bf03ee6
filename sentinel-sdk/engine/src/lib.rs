//! Decides whether an action may run.
//!
//! Three pure functions over plain data: [`decide`] turns an [`Event`] into [`Fact`]s, [`State::apply`] folds a
//! fact into the state, [`effects`] says what the outside world has to do for it. No clock, no I/O, no
//! randomness: time and ids come in with the event. State is the fold of facts, so a restart replays facts and
//! never decides again.

#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm
)]
#![cfg_attr(
    test,
    expect(clippy::arithmetic_side_effects, clippy::unwrap_used, reason = "a test fails by panicking")
)]

mod apply;
mod approval;
mod begin;
mod budget;
mod calendar;
mod canonical;
mod decide;
mod effects;
mod event;
mod fact;
mod grant;
mod name_pattern;
mod name_table;
mod policy;
mod rate;
mod state;
mod time;

pub use approval::{Approval, Closing, MAX_APPROVALS, Operator, Permit, Wish};
pub use begin::{MAX_ACTION_NAMES, MAX_IN_FLIGHT};
pub use calendar::{Hours, Span, TimeZone, UnknownTimeZone};
pub use canonical::{inputs_digest, say_the_same};
pub use decide::decide;
pub use effects::{baseline, effects};
pub use event::{ActionRequest, Event};
pub use fact::{Attempt, Effect, Fact, Opening, Recorded, SessionEnding};
pub use grant::{GrantSet, ScopeId};
pub use name_pattern::NamePattern;
pub use name_table::{NameEntry, NameTable};
pub use policy::{
    ActionRule, Allowlist, Approvals, Approver, Budgets, Cidr, CountLimit, CountLimits, DayLimit, ExecRule,
    Grant, Limit, MAX_GRANTS, Mode, NameRule, NetworkRule, OnExhausted, Policy, Protocol, RateLimit,
    TlsNames,
};
pub use state::{Counters, InFlight, SessionTotals, State};
pub use time::Now;
