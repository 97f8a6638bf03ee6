use sentinel_sdk::guarded_action;

// Every mistake is told, each at its place.
#[guarded_action(
    name = "",
    cost = 0.01,
    cost_usd = -0.5,
    tags = ["search", 7, "search", ""],
    skip(passwort),
    inputs = "no",
    outputs,
    name = "twice",
    = 3
)]
fn log_in(password: &str) -> Result<usize, sentinel_sdk::Error> {
    Ok(password.len())
}

#[guarded_action(name = NAME, cost_usd = PRICE, tags = "search", skip = "password")]
async fn constants(password: &str) -> Result<usize, sentinel_sdk::Error> {
    Ok(password.len())
}

#[guarded_action(cost_usd = 0.0000000001, name = "a\u{1b}[2J", tags)]
fn finer_than_money() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

fn main() {
    // The functions are still there: no error follows from theirs.
    let _ = (log_in("hunter2"), constants("hunter2"), finer_than_money());
}
