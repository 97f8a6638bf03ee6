//! Writes the guarded function.
//!
//! Invariant: the body stands behind the agent's *allow*, and nothing of it runs before. What the macro names can't be
//! seen by what the user wrote, and hides nothing of it.

use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Expr, Ident, ItemFn, ReturnType, Type, parse_quote};

use crate::attribute::{Cost, Options, unseen};
use crate::signature;

/// The same function, guarded.
pub(crate) fn guarded(options: &Options, function: ItemFn) -> TokenStream {
    let ItemFn { attrs, vis, sig, block } = function;
    let output = match &sig.output {
        ReturnType::Type(_, output) => signature::nameable((**output).clone()),
        ReturnType::Default => parse_quote!(()),
    };
    // What is wrong with the return type is told there.
    let at_output = output.span().resolved_at(unseen());
    let guard = Ident::new("guard", at_output);
    let result = Ident::new("result", at_output);
    let declared = declared(options);
    let inputs = inputs(options, &signature::bindings(&sig));
    let is_async = sig.asyncness.is_some();
    let denied = quote_spanned!(at_output=> return ::sentinel_sdk::GuardedResult::denied(error));
    let begin = if is_async {
        quote_spanned!(unseen()=> declared.begin(inputs).await)
    } else {
        quote_spanned!(unseen()=> declared.begin_blocking(inputs))
    };
    let body = if is_async {
        // The type of an async block can't be written; a `return` that is never reached says it.
        quote! {
            ::sentinel_sdk::macro_support::in_span(&#guard, async move {
                #[allow(
                    unreachable_code, clippy::diverging_sub_expression, clippy::needless_return, clippy::let_unit_value,
                    clippy::unreachable
                )]
                if false {
                    let returned: #output = ::core::unreachable!();
                    return returned;
                }
                #block
            }).await
        }
    } else {
        quote!(::sentinel_sdk::macro_support::call(&#guard, move || -> #output #block))
    };
    let ended = ended(options, is_async, &guard, &result);
    let replayed = options.replay.then(|| replayed(&output));
    let begun = quote_spanned! {unseen()=>
        // Each of these may be written in terms of the arguments, so none of them may see the others' names.
        let (declared, inputs) = (#declared, #inputs);
        #replayed
        match #begin {
            ::core::result::Result::Ok(guard) => guard,
            ::core::result::Result::Err(error) => #denied,
        }
    };
    quote! {
        #(#attrs)*
        #vis #sig {
            let #guard = { #begun };
            let #result: #output = #body;
            { #ended }
            #result
        }
    }
}

/// Returns what a replay answers, where one goes on.
fn replayed(output: &Type) -> TokenStream {
    let at_output = output.span().resolved_at(unseen());
    quote_spanned! {at_output=>
        match ::sentinel_sdk::macro_support::replayed::<<#output as ::sentinel_sdk::GuardedResult>::Value>(&declared, &inputs) {
            ::core::option::Option::None => {}
            ::core::option::Option::Some(::core::result::Result::Ok(value)) => {
                return ::sentinel_sdk::GuardedResult::succeeded(value)
            }
            ::core::option::Option::Some(::core::result::Result::Err(error)) => {
                return ::sentinel_sdk::GuardedResult::denied(error)
            }
        }
    }
}

/// Tells how the body ended.
///
/// Each value to be recorded is recorded before anything is awaited, so that no reference to it is held meanwhile.
fn ended(options: &Options, is_async: bool, guard: &Ident, result: &Ident) -> TokenStream {
    let at_output = guard.span();
    let outputs = if options.outputs {
        quote_spanned! {at_output=>
            ::core::option::Option::Some((&&&::sentinel_sdk::macro_support::Probe(value)).capture())
        }
    } else {
        quote_spanned!(at_output=> { let _ = value; ::core::option::Option::None })
    };
    let actual_cost = match &options.actual_cost {
        Some(actual_cost) => quote_spanned! {at_output=>
            ::core::option::Option::Some(::sentinel_sdk::macro_support::actual_cost(value, #actual_cost))
        },
        None => quote_spanned!(at_output=> ::core::option::Option::None),
    };
    let (succeeded, failed, wait) = if is_async {
        (quote!(succeeded_async), quote!(failed_async), quote!(.await))
    } else {
        (quote!(succeeded), quote!(failed), quote!())
    };
    quote_spanned! {at_output=>
        #[allow(unused_imports)]
        use ::sentinel_sdk::macro_support::{
            ViaDebug as _, ViaDisplay as _, ViaError as _, ViaErrorDebug as _, ViaErrorTypeName as _,
            ViaSerialize as _, ViaTypeName as _,
        };
        let ended = match ::sentinel_sdk::GuardedResult::as_result(&#result) {
            ::core::result::Result::Ok(value) => ::core::result::Result::Ok((#outputs, #actual_cost)),
            ::core::result::Result::Err(error) => ::core::result::Result::Err(
                (&&&&::sentinel_sdk::macro_support::ErrorProbe(error)).describe(),
            ),
        };
        match ended {
            ::core::result::Result::Ok((outputs, actual_cost)) => {
                ::sentinel_sdk::macro_support::#succeeded(#guard, outputs, actual_cost)#wait
            }
            ::core::result::Result::Err(error) => ::sentinel_sdk::macro_support::#failed(#guard, error)#wait,
        }
    }
}

fn declared(options: &Options) -> TokenStream {
    let Options { name, tags, cost, risk_level, .. } = options;
    let cost = match cost {
        Cost::Known(cost) => {
            let nanos = Literal::u64_unsuffixed(cost.nanos());
            quote!(::sentinel_sdk::macro_support::Cost::Nanos(#nanos))
        }
        Cost::Computed(dollars) => computed(dollars),
    };
    let risk_level = match risk_level {
        Some(level) => quote!(::core::option::Option::Some(#level)),
        None => quote!(::core::option::Option::None),
    };
    quote! {
        ::sentinel_sdk::macro_support::Declared { name: #name, cost: #cost, tags: &[#(#tags),*], risk_level: #risk_level }
    }
}

/// In a closure, so that a `return` or `?` in it ends nothing but itself.
fn computed(dollars: &Expr) -> TokenStream {
    quote! {
        ::sentinel_sdk::macro_support::Cost::Dollars(
            ::sentinel_sdk::macro_support::expected_cost(|| -> ::core::primitive::f64 { #dollars })
        )
    }
}

fn inputs(options: &Options, bindings: &[Ident]) -> TokenStream {
    if !options.inputs {
        return quote!(::sentinel_sdk::macro_support::Inputs::unrecorded());
    }
    let arguments = bindings.iter().filter(|name| !options.skip.contains(name)).map(|name| {
        let shown = signature::plain_name(name);
        quote!(.argument(#shown, &(&&&::sentinel_sdk::macro_support::Probe(&#name)).capture()))
    });
    quote!({
        #[allow(unused_imports)]
        use ::sentinel_sdk::macro_support::{ViaDebug as _, ViaSerialize as _, ViaTypeName as _};
        ::sentinel_sdk::macro_support::Inputs::recorded() #(#arguments)*
    })
}
