//! What stands in the attribute's parentheses. Every mistake is kept, each at its own place.

use proc_macro2::{Span, TokenStream};
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Expr, ExprLit, Lit, MetaNameValue, Token, UnOp};

/// What the attribute says.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub(crate) name: Option<String>,
    pub(crate) cost_usd: f64,
    pub(crate) tags: Vec<String>,
    pub(crate) inputs: bool,
    pub(crate) outputs: bool,
}

/// The longest name and tag that the agent takes, in characters.
const MAX_NAME: usize = 128;
const MAX_TAG: usize = 64;
const MAX_TAGS: usize = 32;

/// Reads the attribute, and collects what is wrong with it.
pub(crate) fn parse(tokens: TokenStream) -> (Attribute, Vec<syn::Error>) {
    let mut attribute =
        Attribute { name: None, cost_usd: 0.0, tags: Vec::new(), inputs: true, outputs: true };
    let mut errors = Vec::new();
    let pairs = match Punctuated::<MetaNameValue, Token![,]>::parse_terminated.parse2(tokens) {
        Ok(pairs) => pairs,
        Err(error) => return (attribute, vec![error]),
    };
    let mut seen: Vec<String> = Vec::new();
    for pair in pairs {
        let key = pair.path.get_ident().map(ToString::to_string).unwrap_or_default();
        if seen.contains(&key) {
            errors.push(syn::Error::new(pair.path.span(), format!("`{key}` stands there twice")));
            continue;
        }
        let result = match key.as_str() {
            "name" => text(&pair.value, MAX_NAME).map(|name| attribute.name = Some(name)),
            "cost_usd" => dollars(&pair.value).map(|cost| attribute.cost_usd = cost),
            "tags" => tags(&pair.value, &mut errors).map(|tags| attribute.tags = tags),
            "inputs" => truth(&pair.value).map(|inputs| attribute.inputs = inputs),
            "outputs" => truth(&pair.value).map(|outputs| attribute.outputs = outputs),
            _ => Err(syn::Error::new(
                pair.path.span(),
                "unknown key; known are `name`, `cost_usd`, `tags`, `inputs` and `outputs`",
            )),
        };
        errors.extend(result.err());
        seen.push(key);
    }
    (attribute, errors)
}

fn text(value: &Expr, max: usize) -> syn::Result<String> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = value else {
        return Err(syn::Error::new(value.span(), "write a text such as \"search_web\""));
    };
    let text = text.value();
    if text.is_empty() || text.chars().count() > max || text.chars().any(char::is_control) {
        return Err(syn::Error::new(value.span(), format!("write 1 to {max} printable characters")));
    }
    Ok(text)
}

fn dollars(value: &Expr) -> syn::Result<f64> {
    let wrong = || syn::Error::new(value.span(), "write an amount in dollars, 0 or more, such as 0.05");
    let cost: f64 = match value {
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => number.base10_parse()?,
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse()?,
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => return Err(wrong()),
        _ => return Err(wrong()),
    };
    if cost.is_finite() && cost <= 9_000_000.0 { Ok(cost) } else { Err(wrong()) }
}

fn tags(value: &Expr, errors: &mut Vec<syn::Error>) -> syn::Result<Vec<String>> {
    let Expr::Array(array) = value else {
        return Err(syn::Error::new(value.span(), "write a list of texts such as [\"web\", \"search\"]"));
    };
    if array.elems.len() > MAX_TAGS {
        return Err(syn::Error::new(value.span(), format!("at most {MAX_TAGS} tags are allowed")));
    }
    let mut tags = Vec::new();
    for element in &array.elems {
        match text(element, MAX_TAG) {
            Ok(tag) => tags.push(tag),
            Err(error) => errors.push(error),
        }
    }
    Ok(tags)
}

fn truth(value: &Expr) -> syn::Result<bool> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Bool(truth), .. }) => Ok(truth.value),
        _ => Err(syn::Error::new(value.span(), "write `true` or `false`")),
    }
}

/// The compile errors for these mistakes.
pub(crate) fn compile_errors(errors: &[syn::Error]) -> TokenStream {
    errors.iter().map(syn::Error::to_compile_error).collect()
}

/// One mistake.
pub(crate) fn mistake(span: Span, message: &str) -> syn::Error {
    syn::Error::new(span, message)
}
