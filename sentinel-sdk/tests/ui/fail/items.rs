use sentinel_sdk::guarded_action;

#[guarded_action]
struct Shop;

#[guarded_action]
impl Shop {
    fn buy(&self) {}
}

#[guarded_action]
trait Sells {
    fn sell(&self) {}
}

#[guarded_action]
mod shops {}

#[guarded_action]
static PRICE: f64 = 0.01;

#[guarded_action]
macro_rules! sells {
    () => {};
}
sells!();

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

#[guarded_action]
#[guarded_action(name = "again")]
fn twice() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

// Only what is inside of it acts.
#[guarded_action]
fn main() {}
