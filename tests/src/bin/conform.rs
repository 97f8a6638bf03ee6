//! Makes the calls of a conformance case with the Rust SDK, and prints what came of each as a line of JSON. Every SDK has such a program;
//! what they print for the same calls has to be the same.
//!
//! `conform CALLS`, a JSON array of calls: an action (`action`, `cost_usd`, `tags`, `risk_level`, `inputs`, `returns`, `raises`, `actual_cost_usd`,
//! `threads`), `{"totals": …}`, `{"reset_run": true}`, `{"wait": SECONDS}`. A call's other keys are what is expected of it, and not read here.

#![expect(clippy::print_stdout, reason = "it prints what came of each call")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sentinel_proto::{BudgetScope, Reason};
use sentinel_sdk::Error;
use serde_json::{Map, Value, json};

fn main() {
    let calls = std::env::args().nth(1).expect("the calls are the argument");
    let calls: Vec<Value> = serde_json::from_str(&calls).expect("calls are a JSON array");
    for call in &calls {
        println!("{}", made(call));
    }
}

fn made(call: &Value) -> Value {
    if call.get("totals").is_some() {
        return totals(sentinel_sdk::totals_blocking());
    }
    if call.get("reset_run").is_some() {
        return totals(sentinel_sdk::reset_run_blocking());
    }
    if let Some(seconds) = call.get("wait").and_then(Value::as_f64) {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        return json!({});
    }
    match call.get("threads").and_then(Value::as_u64) {
        None => one(call),
        Some(threads) => {
            let ran = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        if one(call).get("ran").is_some() {
                            ran.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            json!({"ran": ran.into_inner()})
        }
    }
}

/// An action from its begin to its end.
fn one(call: &Value) -> Value {
    let text = |key: &str| call.get(key).and_then(Value::as_str);
    let mut action = sentinel_sdk::action(text("action").expect("a call names its action"));
    action = match call.get("cost_usd") {
        None => action,
        // What JSON has no number for: `NaN`, `inf`.
        Some(Value::String(cost)) => action.cost_usd(cost.parse().expect("a number in words")),
        Some(cost) => action.cost_usd(cost.as_f64().expect("a cost is a number")),
    };
    for tag in call.get("tags").and_then(Value::as_array).into_iter().flatten() {
        action = action.tag(tag.as_str().expect("a tag is text"));
    }
    if let Some(level) = text("risk_level") {
        action = action.risk_level(level);
    }
    let empty = json!({"args": [], "kwargs": {}});
    action = action.inputs(call.get("inputs").unwrap_or(&empty)).wait_for_approval(Duration::from_millis(
        call.get("approval_milliseconds").and_then(Value::as_u64).unwrap_or(0),
    ));
    let mut guard = match action.begin_blocking() {
        Ok(guard) => guard,
        Err(error) => return refused(&error),
    };
    if let Some(cost) = call.get("actual_cost_usd").and_then(Value::as_f64) {
        guard.actual_cost_usd(cost).expect("a cost");
    }
    match text("raises") {
        Some(message) => {
            guard.error(&message);
        }
        None => {
            guard.success(call.get("returns").unwrap_or(&Value::Null));
        }
    }
    json!({"ran": 1})
}

fn totals(totals: Result<sentinel_sdk::Totals, Error>) -> Value {
    match totals {
        Ok(totals) => json!({"session": totals.session_usd, "run": totals.run_usd}),
        Err(error) => refused(&error),
    }
}

fn refused(error: &Error) -> Value {
    let mut told = Map::new();
    told.insert("refused".to_owned(), json!(error.reason_code()));
    match error.denial().map(|denial| &denial.reason) {
        Some(Reason::BudgetExceeded { budget, spent, limit }) => {
            let budget = match budget {
                BudgetScope::Session => "session",
                BudgetScope::Run => "run",
                BudgetScope::Day => "day",
                BudgetScope::Action => "action",
            };
            told.extend([
                ("budget".to_owned(), json!(budget)),
                ("spent".to_owned(), json!(spent)),
                ("limit".to_owned(), json!(limit)),
            ]);
        }
        Some(Reason::NotInAllowlist { allowed }) => {
            told.insert("safe_alternatives".to_owned(), json!(allowed));
        }
        Some(Reason::RateLimited { retry_after_ms, .. }) => {
            told.insert("recoverable".to_owned(), json!(retry_after_ms.is_some()));
        }
        _ => {}
    }
    Value::Object(told)
}
