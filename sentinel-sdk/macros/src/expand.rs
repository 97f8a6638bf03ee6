//! From a function to a guarded one.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{FnArg, ItemFn, Pat, ReturnType, Type};

use crate::attribute::{self, Attribute, compile_errors, mistake};

pub(crate) fn expand(attribute: TokenStream, function: TokenStream) -> TokenStream {
    let (attribute, mut errors) = attribute::parse(attribute);
    let parsed: ItemFn = match syn::parse2(function.clone()) {
        Ok(parsed) => parsed,
        Err(error) => {
            errors.push(mistake(error.span(), "`#[guarded_action]` stands on a function"));
            let errors = compile_errors(&errors);
            return quote! { #errors #function };
        }
    };
    errors.extend(problems(&parsed));
    if !errors.is_empty() {
        let errors = compile_errors(&errors);
        return quote! { #errors #function };
    }
    guarded(&attribute, &parsed)
}

fn problems(function: &ItemFn) -> Vec<syn::Error> {
    let mut problems = Vec::new();
    let signature = &function.sig;
    if let Some(constness) = &signature.constness {
        problems.push(mistake(constness.span(), "a guarded function can't be `const`: it asks the agent"));
    }
    match &signature.output {
        ReturnType::Default => problems.push(mistake(
            signature.ident.span(),
            "a guarded function returns `Result<T, E>` where `E: From<sentinel_sdk::Error>`, so that it can say that it was denied",
        )),
        ReturnType::Type(_, output) if has_impl(output) => {
            problems.push(mistake(output.span(), "a guarded function's return type can't have `impl Trait` in it; name the type, or box it"));
        }
        ReturnType::Type(..) => {}
    }
    problems
}

fn has_impl(output: &Type) -> bool {
    quote!(#output).into_iter().any(has_impl_token)
}

fn has_impl_token(token: proc_macro2::TokenTree) -> bool {
    match token {
        proc_macro2::TokenTree::Ident(ident) => ident == "impl",
        proc_macro2::TokenTree::Group(group) => group.stream().into_iter().any(has_impl_token),
        proc_macro2::TokenTree::Punct(_) | proc_macro2::TokenTree::Literal(_) => false,
    }
}

fn guarded(attribute: &Attribute, function: &ItemFn) -> TokenStream {
    let ItemFn { attrs, vis, sig, block } = function;
    let name =
        attribute.name.clone().unwrap_or_else(|| sig.ident.to_string().trim_start_matches("r#").to_owned());
    let (cost, tags) = (attribute.cost_usd, &attribute.tags);
    let inputs = inputs(attribute, function);
    let ReturnType::Type(_, output) = &sig.output else { return quote! { #function } };
    // The span puts an error about the return type at the return type.
    let denied = quote_spanned! {output.span()=>
        ::sentinel_sdk::__private::denied::<#output>(error)
    };
    let value = if attribute.outputs {
        quote! { (&&&::sentinel_sdk::__private::Recorded(value)).record() }
    } else {
        quote! { ::core::default::Default::default() }
    };
    let ending = quote! {
        match ::sentinel_sdk::__private::GuardedReturn::as_result(&__sentinel_result) {
            ::core::result::Result::Ok(value) => ::sentinel_sdk::__private::Ending::Success(#value),
            ::core::result::Result::Err(error) => {
                ::sentinel_sdk::__private::Ending::Error((&&&::sentinel_sdk::__private::Told(error)).tell())
            }
        }
    };
    let (begin, call, finish) = if sig.asyncness.is_some() {
        (
            quote! { begin().await },
            // The return that never happens tells the compiler the block's type, as `?` in it needs.
            quote! {
                async move {
                    if false {
                        let __sentinel_type: #output = loop {};
                        return __sentinel_type;
                    }
                    #block
                }.await
            },
            quote! { finish_async(__sentinel_guard, __sentinel_started, __sentinel_ending).await },
        )
    } else {
        (
            quote! { begin_blocking() },
            quote! { (move || -> #output { #block })() },
            quote! { finish(__sentinel_guard, __sentinel_started, __sentinel_ending) },
        )
    };
    quote! {
        #(#attrs)*
        #vis #sig {
            #[allow(unused_imports, reason = "which one is needed depends on the types")]
            use ::sentinel_sdk::__private::{AsDebug as _, AsJson as _, AsType as _, TellDebug as _, TellDisplay as _, TellType as _};
            let __sentinel_action = ::sentinel_sdk::action(#name).cost_usd(#cost).tags([#(#tags),*]) #inputs;
            let __sentinel_guard = match __sentinel_action.#begin {
                ::core::result::Result::Ok(guard) => guard,
                ::core::result::Result::Err(error) => return #denied,
            };
            let __sentinel_started = ::std::time::Instant::now();
            #[allow(unreachable_code, clippy::diverging_sub_expression, clippy::redundant_closure_call, reason = "the body is the user's")]
            let __sentinel_result: #output = #call;
            let __sentinel_ending = #ending;
            ::sentinel_sdk::__private::#finish;
            __sentinel_result
        }
    }
}

/// Records the arguments that have a plain name; `self` and patterns are left out.
fn inputs(attribute: &Attribute, function: &ItemFn) -> TokenStream {
    if !attribute.inputs {
        return TokenStream::new();
    }
    let pairs = function.sig.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(typed) => match &*typed.pat {
            Pat::Ident(pattern) => {
                let (ident, name) = (&pattern.ident, pattern.ident.to_string());
                Some(quote! { (#name, (&&&::sentinel_sdk::__private::Recorded(&#ident)).record()) })
            }
            _ => None,
        },
        FnArg::Receiver(_) => None,
    });
    quote! { .inputs(&::sentinel_sdk::__private::Inputs::new(::std::vec![#(#pairs),*])) }
}
