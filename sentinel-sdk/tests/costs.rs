//! What guarded functions cost: as their arguments make it before, and as their results tell it afterwards.

mod agent;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use agent::{block_on, of_process};
use sentinel_proto::{Money, Outcome};
use sentinel_sdk::{Error, guarded_action};

fn usd(text: &str) -> Money {
    Money::from_decimal(text).unwrap()
}

/// What the last `begin` of this action was expected to cost.
fn expected(action: &str) -> Money {
    of_process().begins(action).last().unwrap().cost_usd
}

const PER_LETTER: f64 = 0.001;

#[guarded_action(cost_usd = PER_LETTER * prompt.len() as f64)]
fn by_length(prompt: &str) -> Result<usize, Error> {
    Ok(prompt.len())
}

#[guarded_action(cost_usd = PER_LETTER * prompt.len() as f64)]
async fn by_length_async(mut prompt: String) -> Result<String, Error> {
    prompt.clear();
    Ok(prompt)
}

#[test]
fn a_cost_may_be_computed_from_the_arguments() {
    of_process();
    assert_eq!(by_length("four").unwrap(), 4);
    assert_eq!(expected("by_length"), usd("0.004"));
    assert_eq!(block_on(by_length_async("fives".to_owned())).unwrap(), "");
    assert_eq!(expected("by_length_async"), usd("0.005"), "as they were before the body ran");
}

struct Model {
    price: f64,
}

trait Answers {
    fn price(&self) -> f64;

    #[guarded_action(cost_usd = self.price() * words.into_iter().sum::<f64>())]
    fn answer<const N: usize>(&mut self, words: [f64; N]) -> Result<(), Error> {
        Ok(())
    }
}

impl Answers for Model {
    fn price(&self) -> f64 {
        self.price
    }
}

#[test]
fn a_methods_cost_may_be_computed_from_its_self() {
    of_process();
    Model { price: 0.5 }.answer([1.0, 2.0]).unwrap();
    assert_eq!(expected("answer"), usd("1.5"));
}

static RAN: AtomicU64 = AtomicU64::new(0);

#[guarded_action(cost_usd = dollars)]
fn at_any_cost(dollars: f64) -> Result<(), Error> {
    RAN.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[guarded_action(cost_usd = dollars)]
async fn at_any_cost_async(dollars: f64) -> Result<(), Error> {
    RAN.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[test]
fn a_computed_cost_that_is_no_money_denies_without_asking() {
    let agent = of_process();
    for (dollars, said) in [
        (f64::NAN, "`NaN` is not an amount"),
        (-0.01, "`-0.01` is negative"),
        (f64::INFINITY, "`inf` is not an amount"),
        (5e6, "more than the largest amount"),
    ] {
        for error in [at_any_cost(dollars).unwrap_err(), block_on(at_any_cost_async(dollars)).unwrap_err()] {
            assert!(error.is_denied());
            assert_eq!(error.reason_code(), Some("INVALID_REQUEST"));
            assert!(error.to_string().contains(said), "{error}");
        }
    }
    assert_eq!(RAN.load(Ordering::SeqCst), 0);
    assert!(agent.begins("at_any_cost").is_empty());
    at_any_cost(0.25).unwrap();
    block_on(at_any_cost_async(0.25)).unwrap();
    assert_eq!((RAN.load(Ordering::SeqCst), expected("at_any_cost")), (2, usd("0.25")));
}

#[guarded_action(cost_usd = { let lengths: BTreeMap<&str, usize> = BTreeMap::new(); lengths["none"] as f64 })]
fn cost_that_panics() -> Result<(), Error> {
    Ok(())
}

#[test]
fn a_panic_while_the_cost_is_computed_goes_on_and_nothing_is_asked() {
    let agent = of_process();
    assert!(std::panic::catch_unwind(cost_that_panics).is_err());
    assert!(agent.begins("cost_that_panics").is_empty());
}

#[derive(Debug)]
struct Page {
    cost: f64,
}

#[guarded_action(cost_usd = 0.05, actual_cost_usd = |page| page.cost)]
fn fetch(cost: f64) -> Result<Page, Error> {
    Ok(Page { cost })
}

#[guarded_action(name = "door_fetch", cost_usd = 0.05, actual_cost_usd = |pages: &Vec<Page>| pages.iter().map(|page| page.cost).sum())]
async fn fetch_all(costs: [f64; 2]) -> Result<Vec<Page>, Error> {
    tokio::task::yield_now().await;
    Ok(costs.map(|cost| Page { cost }).into_iter().collect())
}

#[test]
fn what_it_really_cost_is_told_by_what_came_out() {
    let agent = of_process();
    assert_eq!(fetch(0.02).unwrap().cost, 0.02);
    assert_eq!((expected("fetch"), agent.end("fetch").cost_usd), (usd("0.05"), Some(usd("0.02"))));
    assert_eq!(block_on(fetch_all([0.02, 0.04])).unwrap().len(), 2);
    assert_eq!(agent.end("door_fetch").cost_usd, Some(usd("0.06")), "also when it is more");
}

#[guarded_action(cost_usd = 0.05, actual_cost_usd = |cost| *cost)]
fn costs_nonsense(cost: f64) -> Result<f64, Error> {
    Ok(cost)
}

#[test]
fn a_real_cost_that_is_no_money_leaves_the_estimate() {
    let agent = of_process();
    assert!(costs_nonsense(f64::NAN).unwrap().is_nan(), "the body has run, so its result counts");
    let end = agent.end("costs_nonsense");
    assert_eq!((end.outcome, end.cost_usd), (Outcome::Success, None));
}

#[guarded_action(cost_usd = 0.05, actual_cost_usd = |()| 0.0)]
fn fails() -> Result<(), std::io::Error> {
    Err(std::io::ErrorKind::NotFound.into())
}

#[test]
fn a_body_that_fails_costs_its_estimate() {
    of_process();
    fails().unwrap_err();
    let end = of_process().end("fails");
    assert_eq!((end.outcome, end.cost_usd), (Outcome::Error, None));
}

#[guarded_action(actual_cost_usd = |_| panic!("as told"))]
fn real_cost_panics() -> Result<(), Error> {
    Ok(())
}

#[test]
fn a_panic_while_the_real_cost_is_computed_goes_on_and_counts_as_the_bodys() {
    let agent = of_process();
    let panic = std::panic::catch_unwind(real_cost_panics).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"as told"));
    assert_eq!(agent.end("real_cost_panics").outcome, Outcome::Panicked);
}

#[guarded_action(name = "outer_cost", actual_cost_usd = |inner| inner + 0.5)]
async fn outer(costs: [f64; 2]) -> Result<f64, Error> {
    let [one, other] = costs;
    // Both are in flight at once, and each is told its own.
    let (one, other) = tokio::join!(inner_one(one), inner_other(other));
    Ok(one? + other?)
}

#[guarded_action(name = "inner_one", actual_cost_usd = |cost| *cost)]
async fn inner_one(cost: f64) -> Result<f64, Error> {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    Ok(cost)
}

#[guarded_action(name = "inner_other", actual_cost_usd = |cost| *cost)]
async fn inner_other(cost: f64) -> Result<f64, Error> {
    Ok(cost)
}

#[test]
fn actions_within_actions_and_beside_each_other_cost_each_their_own() {
    let agent = of_process();
    block_on(outer([0.25, 0.125])).unwrap();
    assert_eq!(agent.end("inner_one").cost_usd, Some(usd("0.25")));
    assert_eq!(agent.end("inner_other").cost_usd, Some(usd("0.125")));
    assert_eq!(agent.end("outer_cost").cost_usd, Some(usd("0.875")));
}

#[guarded_action(cost_usd = { evaluated.set(evaluated.get() + 1); 0.0 })]
fn counts_evaluations(evaluated: &Cell<u8>) -> Result<u8, Error> {
    Ok(evaluated.get())
}

#[test]
fn a_cost_is_computed_once_a_call_and_before_the_body() {
    of_process();
    assert_eq!(counts_evaluations(&Cell::new(0)).unwrap(), 1);
}

#[guarded_action(risk_level = "high")]
fn risky() -> Result<(), Error> {
    Ok(())
}

#[test]
fn how_risky_an_action_is_is_told() {
    let agent = of_process();
    risky().unwrap();
    assert_eq!(agent.begins("risky")[0].risk_level.as_ref().unwrap().as_str(), "high");
}
