use sentinel_sdk::guarded_action;

type Done = Result<f64, sentinel_sdk::Error>;

// What can be told before the program runs is told when it is compiled.
#[guarded_action(cost_usd = -1.5)]
fn negative() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = -(1.5))]
fn negative_all_the_same() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = f64::NAN)]
fn not_a_number() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = f64::INFINITY)]
fn infinite() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = "0.01")]
fn a_text() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = true)]
fn a_flag() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = 0.0000000001)]
fn finer_than_money() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = 5_000_000)]
fn more_than_there_is() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = 1e-3)]
fn not_decimal() -> Done {
    Ok(1.0)
}

#[guarded_action(cost_usd = |prompt| 0.01)]
fn a_closure_over_arguments(prompt: &str) -> Done {
    Ok(prompt.len() as f64)
}

#[guarded_action(actual_cost_usd = 0.02)]
fn known_beforehand() -> Done {
    Ok(1.0)
}

#[guarded_action(actual_cost_usd = || 0.02)]
fn closure_of_nothing() -> Done {
    Ok(1.0)
}

#[guarded_action(actual_cost_usd = |a, b| 0.02)]
fn closure_of_two() -> Done {
    Ok(1.0)
}

#[guarded_action(actual_cost_usd)]
fn nothing_at_all() -> Done {
    Ok(1.0)
}

fn main() {}
