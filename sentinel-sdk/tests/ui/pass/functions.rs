//! No warning either, with the strictest lints.
#![deny(warnings, unused, unused_qualifications)]

use sentinel_sdk::guarded_action;

type Short<T> = Result<T, sentinel_sdk::Error>;

#[guarded_action]
fn plain() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

#[guarded_action()]
fn empty_parentheses() -> std::io::Result<u8> {
    Ok(1)
}

#[guarded_action(
    name = "everything",
    cost_usd = 1,
    actual_cost_usd = |_| 0.5,
    tags = ["a", "b"],
    risk_level = "high",
    skip(secret),
    inputs = true,
    outputs = true,
)]
pub(crate) async fn everything<T: Clone>(secret: &T, mut count: u8) -> Result<T, Box<dyn std::error::Error>> {
    count += 1;
    if count == 0 {
        return Err("wrapped".into());
    }
    std::future::ready(()).await;
    Ok(secret.clone())
}

/// Documented, and with attributes of its own.
#[inline]
#[must_use = "it may have been denied"]
#[track_caller]
#[guarded_action(cost_usd = 0.000_001)]
unsafe fn attributes(address: *const u8) -> Short<u8> {
    // SAFETY: as the caller promises.
    Ok(unsafe { *address })
}

#[guarded_action]
async unsafe fn attributes_async(address: usize) -> Short<u8> {
    // SAFETY: as the caller promises.
    Ok(unsafe { *(address as *const u8) })
}

// Lifetimes that are named, those that aren't, and those that end before the action does.
#[guarded_action]
fn longest<'a, 'b: 'a>(one: &'a str, other: &'b str) -> Short<&'a str> {
    Ok(if one.len() > other.len() { one } else { other })
}

#[guarded_action]
async fn longest_async<'a>(one: &'a str, other: &str) -> Short<&'a str> {
    std::future::ready(()).await;
    if other.is_empty() {
        return Ok("");
    }
    Ok(one)
}

// What is hidden behind `impl` stays so, in arguments and results.
#[guarded_action]
fn hidden<'a>(texts: impl IntoIterator<Item = &'a str>) -> Short<impl Iterator<Item = usize>> {
    Ok(texts.into_iter().map(str::len).collect::<Vec<_>>().into_iter())
}

#[guarded_action]
async fn hidden_async<N: AsyncFnOnce() -> u8>(count: &mut u8, next: N) -> Short<impl Send + use<N>> {
    *count += next().await;
    Ok(*count)
}

#[guarded_action]
fn hidden_error<E>(error: Option<E>) -> Result<(), E>
where
    E: From<sentinel_sdk::Error> + std::fmt::Display,
{
    error.map_or(Ok(()), Err)
}

#[guarded_action]
fn const_generic<const N: usize>(bytes: [u8; N]) -> Short<u8>
where
    [u8; N]: Sized,
{
    Ok(bytes[0])
}

// Every way out of a body is one out of the action.
#[guarded_action]
fn ways_out(text: &str) -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = 'found: {
        for word in text.split(' ') {
            if let Ok(number) = word.parse::<u8>() {
                break 'found number;
            }
        }
        Err("no number")?
    };
    Ok(number)
}

#[guarded_action]
async fn only_fails() -> Short<std::convert::Infallible> {
    Err(plain().unwrap_err())
}

struct Page {
    text: String,
    cost: f64,
}

// Any pattern that an argument may be.
#[guarded_action]
#[expect(clippy::too_many_arguments, reason = "one of each kind")]
fn patterns(
    &(left, ref right): &(u8, String),
    [first, .., last]: [u8; 3],
    whole @ (_, _): (u8, u8),
    Page { text: ref title, .. }: Page,
    (mut grown, _): (Vec<u8>, ()),
    _: u8,
    std::num::Wrapping(inner): std::num::Wrapping<u8>,
    [.., [deep, ..]]: &[[u8; 2]; 2],
) -> Short<usize> {
    grown.extend([left, first, last, whole.0, inner, *deep]);
    Ok(grown.len() + right.len() + title.len())
}

#[guarded_action]
async fn patterns_async((left, _): (u8, u8), mut grown: Vec<u8>) -> Short<Vec<u8>> {
    grown.push(left);
    Ok(grown)
}

// Names that the macro might want for itself.
#[guarded_action(cost_usd = *guard as f64, actual_cost_usd = |value| *value as f64)]
fn any_name(guard: &u8, result: u8, inputs: u8, declared: u8, value: u8, error: u8) -> Short<u8> {
    Ok(guard + result + inputs + declared + value + error)
}

#[guarded_action(cost_usd = f64::from(inputs + declared))]
async fn any_name_async(guard: u8, result: u8, inputs: u8, declared: u8, body: u8, r#async: u8) -> Short<u8> {
    Ok(guard + result + inputs + declared + body + r#async)
}

// A cost is any expression over the arguments; the real one any over what came out.
const PRICE: f64 = 0.001;

#[guarded_action(cost_usd = PRICE)]
fn constant_price() -> Short<()> {
    Ok(())
}

#[guarded_action(cost_usd = PRICE * prompt.len() as f64, actual_cost_usd = |page: &Page| page.cost)]
fn by_length(prompt: String) -> Short<Page> {
    Ok(Page { text: prompt, cost: 0.02 })
}

#[guarded_action(
    cost_usd = { let words = prompt.split(' ').collect::<Vec<&str>>(); if words.is_empty() { return 0.0 } words.len() as f64 },
    actual_cost_usd = |pages: &std::collections::HashMap<String, Page>| pages.values().map(|page| page.cost).sum(),
    name = "by_block",
)]
async fn by_block(prompt: &mut String) -> Short<std::collections::HashMap<String, Page>> {
    prompt.clear();
    Ok(std::collections::HashMap::new())
}

fn cost_of(page: &Page) -> f64 {
    page.cost
}

#[guarded_action(actual_cost_usd = cost_of, outputs = false)]
async fn by_function() -> Short<Page> {
    Ok(Page { text: String::new(), cost: 0.02 })
}

#[guarded_action(cost_usd = count::<u8, u16>(), actual_cost_usd = |found| found.len() as f64 * PRICE * factor)]
fn with_commas(factor: f64) -> Short<Vec<u8>> {
    Ok(Vec::new())
}

fn count<A, B>() -> f64 {
    (size_of::<A>() + size_of::<B>()) as f64
}

// Written by another macro.
macro_rules! priced {
    ($function:ident, $name:expr, $cost:expr, $tag:literal) => {
        #[guarded_action(name = $name, cost_usd = $cost, tags = [$tag])]
        fn $function(text: &str) -> Short<usize> {
            Ok(text.len())
        }
    };
}
priced!(cheap, "cheap", 0.001, "web");
priced!(dear, "dear", (0.1), "web");

fn main() {
    let _ = (plain, empty_parentheses, everything::<u8>, attributes, attributes_async, longest, longest_async);
    let _ = (hidden_error::<sentinel_sdk::Error>, const_generic::<2>, ways_out, only_fails, patterns);
    let _ = (patterns_async, any_name, any_name_async, constant_price, by_length, by_block, by_function);
    let _ = (with_commas, cheap, dear);
    let (mut count, next) = (1, async || 1);
    let (_sync, _async) = (|| hidden(["a"]).map(Iterator::count), hidden_async(&mut count, next));
}
