//! What the guarded function looks like.

use proc_macro2::TokenStream;
use syn::visit_mut::{self, VisitMut};
use syn::{Error, FnArg, Ident, ItemFn, Pat, ReturnType, Signature, Type, parse_quote};

/// An identifier without the `r#` of a raw one.
pub(crate) fn plain_name(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map(ToOwned::to_owned).unwrap_or(name)
}

/// What the attribute stands on, where that is no function.
pub(crate) fn not_a_function(item: &TokenStream, error: &Error) -> Error {
    if syn::parse2::<syn::TraitItemFn>(item.clone()).is_ok() {
        return Error::new(
            error.span(),
            "a function without a body can't be guarded; guard those that implement it",
        );
    }
    Error::new(error.span(), "`#[guarded_action]` guards functions and methods only")
}

/// Adds what is wrong with the function itself.
pub(crate) fn check(function: &ItemFn, mistakes: &mut Vec<Error>) {
    let Signature { constness, abi, output, ident, .. } = &function.sig;
    if let Some(constness) = constness {
        mistakes.push(Error::new(constness.span, "a `const fn` can't be guarded: the compiler runs it too"));
    }
    if let Some(abi) = abi {
        mistakes.push(Error::new(
            abi.extern_token.span,
            "an `extern fn` can't be guarded: its callers have no way to learn of a denial",
        ));
    }
    if matches!(output, ReturnType::Default) {
        mistakes.push(Error::new(
            ident.span(),
            "a guarded action returns a `Result<_, E>` with `E: From<sentinel_sdk::Error>`, so that its caller learns of a denial; \
             write `-> Result<(), sentinel_sdk::Error>`",
        ));
    }
}

/// The names that the arguments bind; not `self`.
pub(crate) fn bindings(function: &Signature) -> Vec<Ident> {
    let mut names = Vec::new();
    for argument in &function.inputs {
        if let FnArg::Typed(argument) = argument {
            collect(&argument.pat, &mut names);
        }
    }
    names
}

fn collect(pattern: &Pat, names: &mut Vec<Ident>) {
    match pattern {
        Pat::Ident(pattern) => {
            names.push(pattern.ident.clone());
            if let Some((_, inner)) = &pattern.subpat {
                collect(inner, names);
            }
        }
        Pat::Paren(pattern) => collect(&pattern.pat, names),
        Pat::Reference(pattern) => collect(&pattern.pat, names),
        Pat::Type(pattern) => collect(&pattern.pat, names),
        Pat::Tuple(pattern) => pattern.elems.iter().for_each(|inner| collect(inner, names)),
        Pat::TupleStruct(pattern) => pattern.elems.iter().for_each(|inner| collect(inner, names)),
        Pat::Slice(pattern) => pattern.elems.iter().for_each(|inner| collect(inner, names)),
        Pat::Struct(pattern) => pattern.fields.iter().for_each(|field| collect(&field.pat, names)),
        // `_` and the like bind nothing, and arguments have no alternatives.
        _ => {}
    }
}

/// The return type as it may stand inside the function: what is hidden behind `impl` is for the compiler to find.
pub(crate) fn nameable(mut output: Type) -> Type {
    struct Hidden;
    impl VisitMut for Hidden {
        fn visit_type_mut(&mut self, node: &mut Type) {
            if matches!(node, Type::ImplTrait(_)) {
                *node = parse_quote!(_);
            } else {
                visit_mut::visit_type_mut(self, node);
            }
        }
    }
    Hidden.visit_type_mut(&mut output);
    output
}
