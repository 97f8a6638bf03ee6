//! What `#[guarded_action]` needs of a function's return type.

use crate::Error;

/// The return type of a guarded action: a [`Result`] whose error can say that the action was denied.
///
/// Implemented for every `Result<T, E>` with `E: From<sentinel_sdk::Error>`: among others [`Error`] itself,
/// `Box<dyn std::error::Error>`, [`std::io::Error`] and `anyhow::Error`. For an error type of your own:
///
/// ```
/// enum FetchError {
///     Denied(sentinel_sdk::Error),
///     Http(u16),
/// }
///
/// impl From<sentinel_sdk::Error> for FetchError {
///     fn from(error: sentinel_sdk::Error) -> Self {
///         Self::Denied(error)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a guarded action can't return `{Self}`: it has no way to say that the action was denied",
    label = "not a `Result<_, E>` with `E: From<sentinel_sdk::Error>`",
    note = "return a `Result<_, E>`, and implement `From<sentinel_sdk::Error>` for `E` if it is yours; `sentinel_sdk::Error`, `std::io::Error` and `Box<dyn Error>` have it"
)]
pub trait GuardedResult {
    /// What a success holds.
    type Value;
    /// What a failure holds.
    type Error;

    /// The result that says that the action was denied, and its body has not run.
    fn denied(error: Error) -> Self;

    /// What the body would have returned.
    fn succeeded(value: Self::Value) -> Self;

    /// What the body returned.
    ///
    /// # Errors
    /// The body's own.
    fn as_result(&self) -> Result<&Self::Value, &Self::Error>;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> GuardedResult for Result<T, E> {
    type Value = T;
    type Error = E;

    fn denied(error: Error) -> Self {
        Err(E::from(error))
    }

    fn succeeded(value: T) -> Self {
        Ok(value)
    }

    fn as_result(&self) -> Result<&T, &E> {
        self.as_ref()
    }
}
