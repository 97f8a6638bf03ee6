//! Policy text to policy, with every problem at its place; and, by the same reader, an agent's own configuration.
//!
//! Invariant: a [`Policy`] comes out only of a text in which *nothing* was misunderstood: an unknown key, a
//! doubled one or a value of another kind is a problem, never a guess. All problems are reported at once.
//!
//! ```text
//! text ─► source: characters ─► build: spanned tree ─► lower: policy and doubts about it
//!            └─ problems ─────────┴─ problems ──────────┴─ problems ─► report (render)
//! ```

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
    expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")
)]

mod build;
pub mod configuration;
mod doubts;
mod field;
mod lower;
mod problem;
mod quoted;
mod render;
mod scalar;
mod schema;
mod shape;
mod source;
mod suggest;
mod syntax;
mod tree;
mod upstreams;

use sentinel_engine::Policy;

pub use lower::{name_entry, network_entry};
pub use problem::{Problem, Problems, Warnings};
pub use schema::json_schema;

use problem::Findings;

/// The longest policy, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;
/// The deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 16;
/// The most values, keys included.
pub const MAX_NODES: usize = 100_000;

/// A policy, and what is legal in it but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The policy, ready to decide with. Lines in it are those of the text.
    pub policy: Policy,
    /// What its author may want to look at again; often nothing.
    pub warnings: Warnings,
}

/// Reads a policy.
///
/// # Errors
/// Every problem of the text, sorted by place; never none. After a syntax error, only problems above it are known.
pub fn parse(text: &str) -> Result<Parsed, Problems> {
    let mut found = Findings::default();
    let policy = source::checked(text, &mut found)
        .and_then(|text| build::tree(text, &mut found))
        .map(|root| lower::policy(&root, &mut found));
    let (policy, warnings) = found.conclude(policy)?;
    Ok(Parsed { policy, warnings })
}

/// Reads a policy from a file's bytes. Render its problems against [`String::from_utf8_lossy`] of the bytes.
///
/// # Errors
/// As [`parse`]; and bytes that are no UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<Parsed, Problems> {
    match source::decoded(bytes) {
        Ok(text) => parse(text),
        Err(problem) => Err(Problems::one(problem)),
    }
}
