//! A guard by hand, for what the attribute can't say: a name, a cost and an end that only the running program knows.
//!
//! ```sh
//! cargo run --package sentinel-sdk --features embedded --example manual_guard
//! ```
//!
//! A call of a model is reserved at the most that it may cost, and settled at what it did cost. So the second call fits
//! into the budget, though the most of both doesn't. It decides for itself, as `embedded.rs` does; with an agent only
//! the client is another: `sentinel_sdk::action(…)` instead of `client.action(…)`.

#![expect(clippy::print_stdout, reason = "it reports on standard output")]

use std::error::Error;

use sentinel_sdk::Client;
use sentinel_sdk::embedded::{Embedded, EmbeddedPolicy};

const POLICY: &str = "budgets: {session: 1.00}";

/// Of a language model, in dollars.
const PER_TOKEN: f64 = 0.01;
const MOST_TOKENS: u32 = 60;

struct Answer {
    text: String,
    tokens: u32,
}

/// Where a language model would be asked.
fn complete(prompt: &str) -> Result<Answer, String> {
    match prompt.split_whitespace().count() {
        0 => Err("the model has no answer to nothing".to_owned()),
        words => Ok(Answer {
            text: format!("{words} words"),
            tokens: 5 * u32::try_from(words).unwrap_or(MOST_TOKENS),
        }),
    }
}

fn ask(client: &Client, model: &str, prompt: &str) -> Result<String, Box<dyn Error>> {
    let mut guard = client
        .action(format!("ask_{model}"))
        .cost_usd(PER_TOKEN * f64::from(MOST_TOKENS))
        .tag("llm")
        .inputs(&prompt)
        .begin_blocking()?; // A `?` here is a denial: nothing has run, and nothing is charged.
    match complete(prompt) {
        Ok(answer) => {
            guard.actual_cost_usd(PER_TOKEN * f64::from(answer.tokens))?;
            guard.success(&answer.text);
            Ok(answer.text)
        }
        Err(error) => {
            // It costs its estimate, as nobody says otherwise. So does a guard that is just dropped, as `cancelled`.
            guard.error(&error);
            Err(error.into())
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let home = std::env::temp_dir().join(format!("sentinel-example-{}", std::process::id()));
    let embedded = Embedded::new(&home);
    embedded.set_policy(EmbeddedPolicy::parse("example", POLICY)?);
    let client = Client::embedded(embedded);

    for prompt in ["Who may act?", "Who opens doors?", "", "Who pays?"] {
        match ask(&client, "small", prompt) {
            Ok(answer) => println!("{prompt:?}: {answer}"),
            Err(error) => println!("{prompt:?}: {error}"),
        }
        println!("spent so far: {} dollars", client.totals_blocking()?.session_usd);
    }
    std::fs::remove_dir_all(home)?;
    Ok(())
}
