//! Reads what stands in the attribute's parentheses.
//!
//! Invariant: an option is read on its own, so a mistake in one hides no mistake in another.

mod cost;
mod suggestion;
mod value;

use proc_macro2::{Span, TokenStream, TokenTree};
use sentinel_proto::ActionName;
use syn::ext::IdentExt as _;
use syn::parse::discouraged::Speculative as _;
use syn::parse::{Parse as _, ParseStream, Parser as _};
use syn::spanned::Spanned as _;
use syn::{Error, Expr, Ident, Lit, Meta, Signature, Token};

use crate::signature;

pub(crate) use cost::Cost;

/// All options, as messages name them.
const KNOWN: [&str; 9] =
    ["name", "cost_usd", "actual_cost_usd", "tags", "risk_level", "skip", "inputs", "outputs", "replay"];

/// What the attribute says.
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) cost: Cost,
    /// What tells the real cost from what an `Ok` holds.
    pub(crate) actual_cost: Option<Expr>,
    pub(crate) tags: Vec<String>,
    pub(crate) risk_level: Option<String>,
    pub(crate) skip: Vec<Ident>,
    pub(crate) inputs: bool,
    pub(crate) outputs: bool,
    /// Whether what it returns can be made of its JSON again.
    pub(crate) replay: bool,
}

/// Reads the options; mistakes are added, and their options left as if they were absent.
pub(crate) fn parse(attribute: TokenStream, function: &Signature, mistakes: &mut Vec<Error>) -> Options {
    let mut options = Options {
        name: signature::plain_name(&function.ident),
        cost: Cost::default(),
        actual_cost: None,
        tags: Vec::new(),
        risk_level: None,
        skip: Vec::new(),
        inputs: true,
        outputs: true,
        replay: false,
    };
    let mut seen: Vec<String> = Vec::new();
    let (metas, unreadable) = split(attribute);
    mistakes.extend(unreadable);
    for option in metas {
        let key = key_of(&option);
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
        mistakes.push(Error::new(
            function.ident.span(),
            format!("the function's name is no action's: {error}; give it one with `name = \"…\"`"),
        ));
    }
    options
}

/// What stands between the commas: the options, and what is none.
fn split(attribute: TokenStream) -> (Vec<Meta>, Vec<Error>) {
    let mut options = Vec::new();
    let mut unreadable = Vec::new();
    let split = |input: ParseStream<'_>| {
        while !input.is_empty() {
            // What is no option is read on behind its comma.
            let ahead = input.fork();
            match Meta::parse(&ahead) {
                Ok(option) => {
                    input.advance_to(&ahead);
                    unreadable.extend(end_of(&option, input));
                    options.push(option);
                }
                Err(error) => {
                    unreadable.push(no_option(input, &error));
                    skip_to_comma(input);
                }
            }
        }
        Ok(())
    };
    if let Err(error) = split.parse2(attribute) {
        unreadable.push(error);
    }
    (options, unreadable)
}

/// Reads the comma behind an option; what is wrong if there is none.
fn end_of(option: &Meta, input: ParseStream<'_>) -> Option<Error> {
    if input.is_empty() || input.parse::<Token![,]>().is_ok() {
        return None;
    }
    if matches!(option, Meta::Path(_)) {
        // That it has no value is told anyway.
        skip_to_comma(input);
        return None;
    }
    let error = Error::new(input.span(), "a comma is missing before this");
    if !input.peek(Ident::peek_any) {
        skip_to_comma(input);
    }
    Some(error)
}

fn skip_to_comma(input: ParseStream<'_>) {
    while let Ok(token) = input.parse::<TokenTree>() {
        if matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',') {
            return;
        }
    }
}

fn no_option(input: ParseStream<'_>, error: &Error) -> Error {
    if input.peek(Lit) {
        return Error::new(input.span(), "a value without its option; write it like `name = \"search_web\"`");
    }
    if input.peek(Ident::peek_any)
        && input.peek2(Token![=])
        && let Ok(key) = input.fork().call(Ident::parse_any)
    {
        return Error::new(key.span(), format!("the value of `{key}` can't be read: {error}"));
    }
    Error::new(input.span(), "no option; write it like `name = \"search_web\"`")
}

fn key_of(option: &Meta) -> String {
    option.path().get_ident().map(ToString::to_string).unwrap_or_default()
}

impl Options {
    fn read(
        &mut self,
        key: &str,
        option: &Meta,
        function: &Signature,
        mistakes: &mut Vec<Error>,
    ) -> Result<(), Error> {
        let of = |wanted| value::of(option, wanted);
        match key {
            "name" => self.name = value::name(of("a text such as `\"search_web\"`")?)?,
            "cost_usd" => self.cost = cost::expected(of("a number such as `0.01`, or an expression")?)?,
            "actual_cost_usd" => {
                self.actual_cost = Some(cost::actual(of("a closure such as `|page| page.cost`")?)?);
            }
            "tags" => self.tags = value::tags(of("texts such as `[\"search\"]`")?, mistakes)?,
            "risk_level" => self.risk_level = Some(value::risk_level(of("a text such as `\"high\"`")?)?),
            "skip" => self.skip = value::skipped(option, function, mistakes)?,
            "inputs" => self.inputs = value::flag(of("`true` or `false`")?)?,
            "replay" => self.replay = value::flag(of("`true` or `false`")?)?,
            "outputs" => self.outputs = value::flag(of("`true` or `false`")?)?,
            unknown => return Err(no_such(unknown, option.path().span())),
        }
        Ok(())
    }
}

fn no_such(key: &str, span: Span) -> Error {
    let shown = if key.is_empty() { "no such option".to_owned() } else { format!("no option `{key}`") };
    let message = match suggestion::closest(key, &KNOWN) {
        Some(meant) => format!("{shown}; did you mean `{meant}`?"),
        None => format!("{shown}; known are {}", suggestion::listed(&KNOWN)),
    };
    Error::new(span, message)
}

/// The place of what the macro writes: names that no user's code can see.
pub(crate) fn unseen() -> Span {
    Span::mixed_site()
}
