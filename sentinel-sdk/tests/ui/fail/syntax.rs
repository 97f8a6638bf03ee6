use sentinel_sdk::guarded_action;

#[guarded_action = "search_web"]
fn without_parentheses() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

fn main() {}
