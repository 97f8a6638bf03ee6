//! Reads what an action costs: known when the attribute is read, or computed when the program runs.
//!
//! Invariant: an amount that stands there as a number is money, or the function doesn't compile.

use sentinel_proto::Money;
use syn::spanned::Spanned as _;
use syn::{Error, Expr, ExprClosure, ExprLit, ExprPath, ExprUnary, Lit, UnOp};

use super::value::bare;

/// What a call is expected to cost.
pub(crate) enum Cost {
    /// Always so much.
    Known(Money),
    /// So many dollars, over the arguments.
    Computed(Box<Expr>),
}

impl Default for Cost {
    fn default() -> Self {
        Self::Known(Money::ZERO)
    }
}

/// The value of `cost_usd`.
pub(super) fn expected(value: &Expr) -> Result<Cost, Error> {
    match bare(value) {
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => known(value, number.base10_digits()),
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => known(value, number.base10_digits()),
        Expr::Lit(_) => Err(Error::new(
            value.span(),
            "the cost is no number; write it like `0.01`, or as an expression that gives an `f64`",
        )),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) if matches!(bare(expr), Expr::Lit(_)) => {
            Err(Error::new(value.span(), "the cost is negative; an amount is 0 or more"))
        }
        Expr::Path(path) if is_beyond_numbers(path) => {
            Err(Error::new(value.span(), "the cost is not finite; an amount is a number of dollars"))
        }
        Expr::Closure(_) => Err(Error::new(
            value.span(),
            "the cost is computed before the body runs, from the arguments: write the expression itself, without `|…|`",
        )),
        computed => Ok(Cost::Computed(Box::new(computed.clone()))),
    }
}

/// The value of `actual_cost_usd`: what is called with a reference to what an `Ok` holds.
pub(super) fn actual(value: &Expr) -> Result<Expr, Error> {
    const WANTED: &str =
        "write a closure that takes a reference to what an `Ok` holds, such as `|page| page.cost`";
    match bare(value) {
        Expr::Lit(_) | Expr::Unary(ExprUnary { op: UnOp::Neg(_), .. }) | Expr::Binary(_) => Err(Error::new(
            value.span(),
            format!("the actual cost is known only when the body is done; {WANTED}"),
        )),
        Expr::Closure(ExprClosure { inputs, .. }) if inputs.len() != 1 => Err(Error::new(
            value.span(),
            format!("this closure takes {} arguments instead of one; {WANTED}", inputs.len()),
        )),
        callable => Ok(callable.clone()),
    }
}

fn known(value: &Expr, digits: &str) -> Result<Cost, Error> {
    Money::from_decimal(digits).map(Cost::Known).map_err(|error| Error::new(value.span(), error))
}

/// Whether this is one of the constants that are no amount, as `f64::NAN`.
fn is_beyond_numbers(path: &ExprPath) -> bool {
    let names = ["NAN", "INFINITY", "NEG_INFINITY"];
    let last = path.path.segments.last();
    path.path.segments.len() > 1 && last.is_some_and(|last| names.iter().any(|name| last.ident == name))
}
