//! What the guarded function looks like.

use proc_macro2::TokenStream;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Error, FnArg, GenericArgument, Ident, Item, ItemFn, Pat, PathArguments, ReturnType, Signature, Token,
    Type, TypeParamBound, parse_quote,
};

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
    let message = match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Impl(_) | Item::Trait(_) | Item::Mod(_) | Item::ForeignMod(_)) => {
            "`#[guarded_action]` guards functions and methods only; write it on each in here that acts"
        }
        Ok(Item::Macro(_)) => {
            "`#[guarded_action]` guards functions and methods only; write it inside the macro, on the function"
        }
        _ => "`#[guarded_action]` guards functions and methods only",
    };
    Error::new(error.span(), message)
}

/// Adds what is wrong with the function itself.
pub(crate) fn check(function: &ItemFn, mistakes: &mut Vec<Error>) {
    let Signature { constness, abi, asyncness, output, ident, .. } = &function.sig;
    if let Some(constness) = constness {
        mistakes.push(Error::new(constness.span, "a `const fn` can't be guarded: the compiler runs it too"));
    }
    if let Some(abi) = abi {
        mistakes.push(Error::new(
            abi.extern_token.span,
            "an `extern fn` can't be guarded: its callers have no way to learn of a denial",
        ));
    }
    let no_result = |span| {
        Error::new(
            span,
            "a guarded action returns a `Result<_, E>` with `E: From<sentinel_sdk::Error>`, so that its caller learns of a denial; \
             write `-> Result<(), sentinel_sdk::Error>`",
        )
    };
    match output {
        ReturnType::Default => mistakes.push(no_result(ident.span())),
        ReturnType::Type(_, output) if matches!(**output, Type::Never(_)) => {
            mistakes.push(no_result(output.span()));
        }
        ReturnType::Type(_, output) if asyncness.is_none() && is_future(output) => mistakes.push(Error::new(
            output.span(),
            "this returns a future, which would run when the action is over; write it as an `async fn`, \
             or guard the `async fn` that it calls, as below `#[async_trait]`",
        )),
        ReturnType::Type(..) => {}
    }
    for attribute in &function.attrs {
        if attribute.path().segments.last().is_some_and(|last| last.ident == "guarded_action") {
            mistakes.push(Error::new(
                attribute.path().span(),
                "`#[guarded_action]` stands here twice: one call would be two actions; keep one",
            ));
        }
    }
}

/// Whether a type is, by its looks, a future: `impl Future`, or a pinned box of one.
fn is_future(output: &Type) -> bool {
    let is_one = |bounds: &Punctuated<TypeParamBound, Token![+]>| {
        bounds.iter().any(|bound| {
            matches!(bound, TypeParamBound::Trait(bound)
                if bound.path.segments.last().is_some_and(|last| last.ident == "Future"))
        })
    };
    match output {
        Type::ImplTrait(hidden) => is_one(&hidden.bounds),
        Type::TraitObject(object) => is_one(&object.bounds),
        Type::Paren(inner) => is_future(&inner.elem),
        Type::Group(inner) => is_future(&inner.elem),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| match &last.arguments {
            PathArguments::AngleBracketed(inner) if last.ident == "Pin" || last.ident == "Box" => inner
                .args
                .iter()
                .any(|inner| matches!(inner, GenericArgument::Type(inner) if is_future(inner))),
            _ => matches!(last.ident.to_string().as_str(), "BoxFuture" | "LocalBoxFuture"),
        }),
        _ => false,
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
