//! Reads the value of one option.

use sentinel_proto::{ActionName, RiskLevel, Tag, app::MAX_TAGS};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Error, Expr, ExprArray, ExprLit, Ident, Lit, LitBool, LitStr, Meta, Signature, Token};

use super::{key_of, suggestion};
use crate::signature;

/// What stands behind the option's `=`.
pub(super) fn of<'option>(option: &'option Meta, wanted: &str) -> Result<&'option Expr, Error> {
    match option {
        Meta::NameValue(option) => Ok(&option.value),
        Meta::Path(_) | Meta::List(_) => {
            let key = key_of(option);
            Err(Error::new(option.span(), format!("`{key}` has no value; write `{key} = …` with {wanted}")))
        }
    }
}

/// The expression without parentheses, and without the invisible ones around what a `macro_rules!` has put in.
pub(super) fn bare(value: &Expr) -> &Expr {
    match value {
        Expr::Paren(inner) => bare(&inner.expr),
        Expr::Group(inner) => bare(&inner.expr),
        value => value,
    }
}

fn text(value: &Expr) -> Option<&LitStr> {
    match bare(value) {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text),
        _ => None,
    }
}

pub(super) fn name(value: &Expr) -> Result<String, Error> {
    let Some(name) = text(value) else {
        return Err(Error::new(
            value.span(),
            "the name is no text in quotes; for one that only the running program knows use `sentinel_sdk::action`",
        ));
    };
    ActionName::new(name.value()).map_err(|error| Error::new(name.span(), error))?;
    Ok(name.value())
}

pub(super) fn risk_level(value: &Expr) -> Result<String, Error> {
    let Some(level) = text(value) else {
        return Err(Error::new(value.span(), "the risk level is no text in quotes, such as `\"high\"`"));
    };
    RiskLevel::new(level.value())
        .map_err(|error| Error::new(level.span(), format!("of a risk level: {error}")))?;
    Ok(level.value())
}

pub(super) fn tags(value: &Expr, mistakes: &mut Vec<Error>) -> Result<Vec<String>, Error> {
    let Expr::Array(ExprArray { elems, .. }) = bare(value) else {
        return Err(Error::new(value.span(), "tags are texts in brackets, such as `[\"search\"]`"));
    };
    if elems.len() > MAX_TAGS {
        mistakes
            .push(Error::new(value.span(), format!("{} tags; at most {MAX_TAGS} are allowed", elems.len())));
    }
    let mut tags: Vec<String> = Vec::new();
    for element in elems {
        let Some(tag) = text(element) else {
            mistakes.push(Error::new(element.span(), "a tag is a text in quotes"));
            continue;
        };
        if let Err(error) = Tag::new(tag.value()) {
            mistakes.push(Error::new(tag.span(), format!("of a tag: {error}")));
        } else if tags.contains(&tag.value()) {
            mistakes.push(Error::new(tag.span(), format!("the tag `{}` stands here twice", tag.value())));
        } else {
            tags.push(tag.value());
        }
    }
    Ok(tags)
}

pub(super) fn skipped(
    option: &Meta,
    function: &Signature,
    mistakes: &mut Vec<Error>,
) -> Result<Vec<Ident>, Error> {
    let Meta::List(list) = option else {
        return Err(Error::new(option.span(), "write the arguments in parentheses: `skip(password)`"));
    };
    let names = |input: ParseStream<'_>| {
        Punctuated::<Ident, Token![,]>::parse_terminated_with(input, Ident::parse_any)
    };
    let names = names
        .parse2(list.tokens.clone())
        .map_err(|_no_names| Error::new(list.tokens.span(), "`skip` takes names of arguments"))?;
    if names.is_empty() {
        return Err(Error::new(
            option.span(),
            "`skip` names no argument; leave it out, or write `skip(password)`",
        ));
    }
    let known = signature::bindings(function);
    let mut skipped: Vec<Ident> = Vec::new();
    for name in names {
        if name == "self" {
            mistakes.push(Error::new(name.span(), "`self` is never recorded"));
        } else if !known.contains(&name) {
            mistakes.push(Error::new(name.span(), no_such_argument(&name, &known)));
        } else if skipped.contains(&name) {
            mistakes.push(Error::new(name.span(), format!("`{name}` stands here twice")));
        } else {
            skipped.push(name);
        }
    }
    Ok(skipped)
}

fn no_such_argument(name: &Ident, known: &[Ident]) -> String {
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let shown = format!("there is no argument `{name}` that could be recorded");
    match suggestion::closest(&name.to_string(), &known) {
        Some(meant) => format!("{shown}; did you mean `{meant}`?"),
        None if known.is_empty() => shown,
        None => format!("{shown}; those that are recorded: {}", suggestion::listed(&known)),
    }
}

pub(super) fn flag(value: &Expr) -> Result<bool, Error> {
    match bare(value) {
        Expr::Lit(ExprLit { lit: Lit::Bool(LitBool { value, .. }), .. }) => Ok(*value),
        _ => Err(Error::new(value.span(), "write `true` or `false`")),
    }
}
