use sentinel_sdk::guarded_action;

#[guarded_action]
struct Shop;

trait Buys {
    #[guarded_action]
    fn buy(&self) -> Result<(), sentinel_sdk::Error>;
}

#[guarded_action]
const fn constant() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

#[guarded_action]
extern "C" fn foreign() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

fn main() {}
