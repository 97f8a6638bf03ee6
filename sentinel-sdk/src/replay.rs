//! What was recorded of a program, to answer its actions with when it runs again. See [`Recording`].

pub use sentinel_authority::{Divergence, Recording, ReplayError, Take, TakeOutcome};
