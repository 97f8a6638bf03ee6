//! The `#[guarded_action]` attribute.
//!
//! Invariant: what it expands to asks before the body and tells after it, on every way out. A wrong attribute still leaves the user's
//! function in place, so that one mistake is one error.

mod attribute;
mod expand;

use proc_macro::TokenStream;

/// Makes a function a guarded action: its body runs only if the agent lets it.
///
/// `#[guarded_action(name = "…", cost_usd = 0.01, tags = ["…"], inputs = false)]`, all of it optional:
///
/// - `name`: the action's name; without it the function's.
/// - `cost_usd`: what it is expected to cost, in dollars; without it 0.
/// - `tags`: its tags; without them none.
/// - `inputs`, `outputs`: `false` keeps arguments or the result out of the ledger.
///
/// The function, `async` or not, returns `Result<T, E>` where `E: From<sentinel_sdk::Error>`.
#[proc_macro_attribute]
pub fn guarded_action(attribute: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(attribute.into(), function.into()).into()
}
