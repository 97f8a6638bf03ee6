//! The `#[guarded_action]` attribute.
//!
//! Invariant: a function whose attribute has a mistake doesn't compile, with every mistake told at its place; the
//! function itself is still there, so that no other errors follow from it.

#![forbid(unsafe_code)]
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod attribute;
mod expand;
mod signature;

use proc_macro::TokenStream;
use quote::quote;

/// Guards a function: its body runs only if the agent says so, and the agent hears how it ended.
///
/// For functions and methods, async or not, with any arguments, that return a `Result<T, E>` with
/// `E: From<sentinel_sdk::Error>`: so the caller learns of a denial. `.await`, `?` and `return` in the body work as
/// ever. In a trait it guards a method's default body; one that is written in an `impl` is guarded there.
///
/// | option | meaning | when it is absent |
/// |---|---|---|
/// | `name = "search_web"` | the action's name in the policy and the ledger | the function's name |
/// | `cost_usd = 0.01` | what a call is expected to cost, in US dollars; a number or an expression | 0 |
/// | `actual_cost_usd = \|page\| page.cost` | what a call really cost, by what its `Ok` holds | the expected cost |
/// | `tags = ["search"]` | tags | none |
/// | `risk_level = "high"` | how risky it is: a word that the policy may ask a human about | none |
/// | `skip(password, body)` | arguments that aren't recorded | all are |
/// | `inputs = false` | records no arguments at all | `true` |
/// | `replay = true` | can be answered from a recording: what an `Ok` holds is `serde::de::DeserializeOwned`; see `sentinel_sdk::replay` | a replay refuses it |
/// | `outputs = false` | doesn't record what an `Ok` holds | `true` |
///
/// # What it costs
///
/// `cost_usd` is any expression that gives an `f64`, such as `0.001 * prompt.len() as f64`. It sees the arguments, and
/// `self`, but can't use them up; it is computed once, before the agent is asked and before the body runs. A number
/// that is no amount of money doesn't compile; an expression that gives none, as NaN or less than nothing, denies the
/// action with `INVALID_REQUEST`. The policy may charge more, never less.
///
/// `actual_cost_usd` is a closure, or the path of a function, from a reference to what an `Ok` holds to an `f64`. It
/// runs when the body is done; what it gives is charged instead of the expected cost: less, down to the policy's floor,
/// or more. Where that is no amount of money the expected cost stays, with a warning in the program's own log: the body
/// has run, so its result is returned all the same. A body that fails, panics or is cancelled costs what was expected;
/// where one knows better, guard it by hand with `sentinel_sdk::action(…)`. So do names and tags that only the running
/// program knows.
///
/// # Other attributes
///
/// Written below another attribute that changes a function's signature, such as `#[async_trait]`, it sees the changed
/// one. What that returns is a future, not a `Result`, so it doesn't compile: guard an `async fn` that it calls.
#[proc_macro_attribute]
pub fn guarded_action(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function: syn::ItemFn = match syn::parse(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let error = signature::not_a_function(&item.clone().into(), &error).to_compile_error();
            let item = proc_macro2::TokenStream::from(item);
            return quote!(#error #item).into();
        }
    };
    let mut mistakes = Vec::new();
    let options = attribute::parse(attribute.into(), &function.sig, &mut mistakes);
    signature::check(&function, &mut mistakes);
    let Some(mistakes) = mistakes.into_iter().reduce(|mut all, next| {
        all.combine(next);
        all
    }) else {
        return expand::guarded(&options, function).into();
    };
    let mistakes = mistakes.to_compile_error();
    quote!(#mistakes #function).into()
}
