//! Whole policies: what they say, and what the report of a wrong one looks like.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod limits;
mod meaning;
mod printer;
mod properties;
mod reports;
mod schema;
mod validator;
