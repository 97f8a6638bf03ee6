// What is wrong with an expression is the compiler's to tell, at the expression.
use sentinel_sdk::{Error, guarded_action};

#[guarded_action(cost_usd = prompt.len())]
fn whole_numbers(prompt: &str) -> Result<(), Error> {
    let _ = prompt;
    Ok(())
}

#[guarded_action(cost_usd = price(prompt)?)]
async fn not_always_there(prompt: &str) -> Result<(), Error> {
    let _ = prompt;
    Ok(())
}

#[guarded_action(cost_usd = 0.01 * pages as f64)]
fn of_nothing_here() -> Result<(), Error> {
    Ok(())
}

#[guarded_action(cost_usd = declared.cost + guard.cost)]
fn the_macros_own_names_are_not_there() -> Result<(), Error> {
    Ok(())
}

#[guarded_action(actual_cost_usd = |page: &str| page.len() as f64)]
fn of_something_else() -> Result<Vec<u8>, Error> {
    Ok(Vec::new())
}

#[guarded_action(actual_cost_usd = |page| page.len())]
async fn counts() -> Result<Vec<u8>, Error> {
    Ok(Vec::new())
}

fn price(prompt: &str) -> Option<f64> {
    Some(prompt.len() as f64)
}

fn main() {}
