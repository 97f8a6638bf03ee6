//! Reads what stands in the attribute's parentheses.
//!
//! Invariant: an option is read on its own, so a mistake in one hides no mistake in another.

use proc_macro2::{Span, TokenStream, TokenTree};
use sentinel_proto::{ActionName, Money, Tag, app::MAX_TAGS};
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Error, Expr, ExprArray, ExprLit, Ident, Lit, LitBool, LitStr, Meta, Signature, Token};

use crate::signature;

const KNOWN: &str = "known are `name`, `cost_usd`, `tags`, `skip`, `inputs` and `outputs`";

/// What the attribute says.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) cost: Money,
    pub(crate) tags: Vec<String>,
    pub(crate) skip: Vec<Ident>,
    pub(crate) inputs: bool,
    pub(crate) outputs: bool,
}

/// Reads the options; mistakes are added, and their options left as if they were absent.
pub(crate) fn parse(attribute: TokenStream, function: &Signature, mistakes: &mut Vec<Error>) -> Options {
    let name = signature::plain_name(&function.ident);
    let mut options =
        Options { name, cost: Money::ZERO, tags: Vec::new(), skip: Vec::new(), inputs: true, outputs: true };
    let mut seen: Vec<String> = Vec::new();
    for part in parts(attribute) {
        let option: Meta = match syn::parse2(part.clone()) {
            Ok(option) => option,
            Err(_unlike_an_option) => {
                mistakes.push(Error::new(part.span(), "no option; write it like `name = \"search_web\"`"));
                continue;
            }
        };
        let key = option.path().get_ident().map(ToString::to_string).unwrap_or_default();
        if seen.contains(&key) {
            mistakes.push(Error::new(option.path().span(), format!("`{key}` stands here twice; keep one")));
            continue;
        }
        if let Err(mistake) = options.read(&key, &option, function, mistakes) {
            mistakes.push(mistake);
        }
        seen.push(key);
    }
    if !seen.iter().any(|key| key == "name")
        && let Err(error) = ActionName::new(options.name.as_str())
    {
        mistakes
            .push(Error::new(function.ident.span(), format!("the function's name is no action's: {error}")));
    }
    options
}

/// The tokens between the commas.
fn parts(attribute: TokenStream) -> Vec<TokenStream> {
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
    let tokens: Vec<TokenTree> = attribute.into_iter().collect();
    tokens
        .split(is_comma)
        .filter(|part| !part.is_empty())
        .map(|part| part.iter().cloned().collect())
        .collect()
}

impl Options {
    fn read(
        &mut self,
        key: &str,
        option: &Meta,
        function: &Signature,
        mistakes: &mut Vec<Error>,
    ) -> Result<(), Error> {
        match key {
            "name" => self.name = name(value(option, "a text such as `\"search_web\"`")?)?,
            "cost_usd" => self.cost = cost(value(option, "a number such as `0.01`")?)?,
            "tags" => self.tags = tags(value(option, "texts such as `[\"search\"]`")?, mistakes)?,
            "skip" => self.skip = skipped(option, function, mistakes)?,
            "inputs" => self.inputs = flag(value(option, "`true` or `false`")?)?,
            "outputs" => self.outputs = flag(value(option, "`true` or `false`")?)?,
            "" => return Err(Error::new(option.path().span(), format!("no such option; {KNOWN}"))),
            other => return Err(Error::new(option.path().span(), format!("no option `{other}`; {KNOWN}"))),
        }
        Ok(())
    }
}

/// What stands behind the option's `=`.
fn value<'option>(option: &'option Meta, wanted: &str) -> Result<&'option Expr, Error> {
    match option {
        Meta::NameValue(option) => Ok(&option.value),
        Meta::Path(_) | Meta::List(_) => {
            let key = option.path().get_ident().map(ToString::to_string).unwrap_or_default();
            Err(Error::new(option.span(), format!("`{key}` has no value; write `{key} = …` with {wanted}")))
        }
    }
}

fn text(value: &Expr) -> Option<&LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text),
        _ => None,
    }
}

fn name(value: &Expr) -> Result<String, Error> {
    let Some(name) = text(value) else {
        return Err(Error::new(
            value.span(),
            "the name is no text in quotes; for one that only the running program knows use `sentinel_sdk::action`",
        ));
    };
    ActionName::new(name.value()).map_err(|error| Error::new(name.span(), error))?;
    Ok(name.value())
}

fn cost(value: &Expr) -> Result<Money, Error> {
    let digits = match value {
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => number.base10_digits().to_owned(),
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_digits().to_owned(),
        Expr::Unary(syn::ExprUnary { op: syn::UnOp::Neg(_), .. }) => {
            return Err(Error::new(value.span(), "a cost is 0 or more"));
        }
        _ => {
            return Err(Error::new(
                value.span(),
                "the cost is no number such as `0.01`; for one that only the running program knows use `sentinel_sdk::action`",
            ));
        }
    };
    Money::from_decimal(&digits).map_err(|error| Error::new(value.span(), error))
}

fn tags(value: &Expr, mistakes: &mut Vec<Error>) -> Result<Vec<String>, Error> {
    let Expr::Array(ExprArray { elems, .. }) = value else {
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

fn skipped(option: &Meta, function: &Signature, mistakes: &mut Vec<Error>) -> Result<Vec<Ident>, Error> {
    let Meta::List(list) = option else {
        return Err(Error::new(option.span(), "write the arguments in parentheses: `skip(password)`"));
    };
    let names = Punctuated::<Ident, Token![,]>::parse_terminated
        .parse2(list.tokens.clone())
        .map_err(|_no_names| Error::new(list.tokens.span(), "`skip` takes names of arguments"))?;
    let known = signature::bindings(function);
    for name in &names {
        if !known.contains(name) {
            mistakes.push(Error::new(
                name.span(),
                format!("there is no argument `{name}` that could be recorded"),
            ));
        }
    }
    Ok(names.into_iter().collect())
}

fn flag(value: &Expr) -> Result<bool, Error> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Bool(LitBool { value, .. }), .. }) => Ok(*value),
        _ => Err(Error::new(value.span(), "write `true` or `false`")),
    }
}

/// The place of what the macro writes: names that no user's code can see.
pub(crate) fn unseen() -> Span {
    Span::mixed_site()
}
