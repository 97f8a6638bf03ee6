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
/// ever.
///
/// | option | meaning | when it is absent |
/// |---|---|---|
/// | `name = "search_web"` | the action's name in the policy and the ledger | the function's name |
/// | `cost_usd = 0.01` | what a call is expected to cost, in US dollars | 0 |
/// | `tags = ["search"]` | tags | none |
/// | `skip(password, body)` | arguments that aren't recorded | all are |
/// | `inputs = false` | records no arguments at all | `true` |
/// | `outputs = false` | doesn't record what an `Ok` holds | `true` |
///
/// A cost or a tag that only the running program knows: `sentinel_sdk::action(…)`.
///
/// Written below another attribute that changes a function's signature, such as `#[async_trait]`, it sees the changed
/// one.
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
