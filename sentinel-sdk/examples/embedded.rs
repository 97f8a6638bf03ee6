//! A program that decides for itself: no agent, no root, and its policy stands in here.
//!
//! ```sh
//! cargo run --package sentinel-sdk --features embedded --example embedded
//! ```
//!
//! Same decisions and same ledger as with an agent, but advisory: the kernel holds nobody to it. Each line that it
//! prints is `what it tried: what came of it`.

#![expect(clippy::print_stdout, reason = "it reports on standard output")]

use std::error::Error;

use sentinel_sdk::embedded::{Embedded, EmbeddedPolicy};
use sentinel_sdk::{Client, guarded_action};

const POLICY: &str = "
budgets: {session: 0.05}
denied_actions: [delete_database]
";

#[guarded_action(cost_usd = 0.001 * text.len() as f64, tags = ["llm"])]
fn summarise(text: &str) -> Result<&str, sentinel_sdk::Error> {
    // Where a language model would be asked: the first sentence says most.
    Ok(text.split_inclusive('.').next().unwrap_or(text))
}

#[guarded_action]
fn delete_database() -> Result<&'static str, sentinel_sdk::Error> {
    Ok("the body of delete_database ran")
}

fn main() -> Result<(), Box<dyn Error>> {
    // Processes that name the same folder share budgets and ledger. This one begins anew each time.
    let home = std::env::temp_dir().join(format!("sentinel-example-{}", std::process::id()));
    let embedded = Embedded::new(&home);
    let ledger = embedded.ledger().to_owned();
    embedded.set_policy(EmbeddedPolicy::parse("example", POLICY)?);
    Client::embedded(embedded).use_for_process()?;

    report("summarise", summarise("Doors are shut. Nothing opens."));
    report("summarise something longer", summarise("Doors are shut, and nobody opens one. Not even now."));
    report("delete_database", delete_database());

    let totals = sentinel_sdk::totals_blocking()?;
    println!("spent: {} of {} dollars", totals.session_usd, totals.session_limit_usd.unwrap_or_default());
    println!("the ledger: {} lines", std::fs::read_to_string(ledger)?.lines().count());
    std::fs::remove_dir_all(home)?;
    Ok(())
}

fn report(tried: &str, result: Result<&str, sentinel_sdk::Error>) {
    match result {
        Ok(happened) => println!("{tried}: {happened}"),
        // What was denied, why, and the way out.
        Err(error) => println!("{tried}: {error}"),
    }
}
