//! Writes the guarded function.
//!
//! Invariant: the body stands behind the agent's *allow*, and nothing of it runs before.

use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Ident, ItemFn, ReturnType, parse_quote};

use crate::attribute::{Options, unseen};
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
    let denied = quote_spanned!(at_output=> ::sentinel_sdk::GuardedResult::denied);
    let begin =
        if is_async { quote!(declared.begin(inputs).await) } else { quote!(declared.begin_blocking(inputs)) };
    let body = if is_async {
        // The type of an async block can't be written; a `return` that is never reached says it.
        quote! {
            async move {
                #[allow(unreachable_code, clippy::diverging_sub_expression, clippy::needless_return, clippy::let_unit_value)]
                if false {
                    let returned: #output = ::core::unreachable!();
                    return returned;
                }
                #block
            }.await
        }
    } else {
        quote!(::sentinel_sdk::macro_support::call(move || -> #output #block))
    };
    let outputs = if options.outputs {
        quote_spanned! {at_output=>
            ::core::option::Option::Some((&&&::sentinel_sdk::macro_support::Probe(value)).capture())
        }
    } else {
        quote_spanned!(at_output=> { let _ = value; ::core::option::Option::None })
    };
    let (succeeded, failed, wait) = if is_async {
        (quote!(succeeded_async), quote!(failed_async), quote!(.await))
    } else {
        (quote!(succeeded), quote!(failed), quote!())
    };
    // Each value to be recorded is recorded before anything is awaited, so that no reference to it is held meanwhile.
    let ended = quote_spanned! {at_output=>
        #[allow(unused_imports)]
        use ::sentinel_sdk::macro_support::{
            ViaDebug as _, ViaDisplay as _, ViaError as _, ViaErrorDebug as _, ViaErrorTypeName as _,
            ViaSerialize as _, ViaTypeName as _,
        };
        let ended = match ::sentinel_sdk::GuardedResult::as_result(&#result) {
            ::core::result::Result::Ok(value) => ::core::result::Result::Ok(#outputs),
            ::core::result::Result::Err(error) => ::core::result::Result::Err(
                (&&&&::sentinel_sdk::macro_support::ErrorProbe(error)).describe(),
            ),
        };
        match ended {
            ::core::result::Result::Ok(outputs) => ::sentinel_sdk::macro_support::#succeeded(#guard, outputs)#wait,
            ::core::result::Result::Err(error) => ::sentinel_sdk::macro_support::#failed(#guard, error)#wait,
        }
    };
    quote! {
        #(#attrs)*
        #vis #sig {
            let #guard = {
                let inputs = #inputs;
                let declared = #declared;
                match #begin {
                    ::core::result::Result::Ok(guard) => guard,
                    ::core::result::Result::Err(error) => return #denied(error),
                }
            };
            let #result: #output = #body;
            { #ended }
            #result
        }
    }
}

fn declared(options: &Options) -> TokenStream {
    let Options { name, tags, .. } = options;
    let cost_nanos = Literal::u64_unsuffixed(options.cost.nanos());
    quote! {
        ::sentinel_sdk::macro_support::Declared { name: #name, cost_nanos: #cost_nanos, tags: &[#(#tags),*] }
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
