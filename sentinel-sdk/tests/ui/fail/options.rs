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
    = 3,
    budget = 1,
    shop::name = "path",
    risk_level = "very high",
)]
fn log_in(password: &str) -> Result<usize, sentinel_sdk::Error> {
    Ok(password.len())
}

#[guarded_action(name = NAME, tags = "search", skip = "password", inputs(false), risk_level = 3)]
async fn no_texts(password: &str) -> Result<usize, sentinel_sdk::Error> {
    Ok(password.len())
}

#[guarded_action(name = "a\u{1b}[2J", tags)]
fn no_names() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

// What is missing is told where it is missing, and what comes after it is read all the same.
#[guarded_action("search_web", name = "a" outputs = 0, cost_usd = , tags = ["a"] ["b"], skip password, nmae = "b", inputs = 1 +)]
fn no_list(password: &str) -> Result<usize, sentinel_sdk::Error> {
    Ok(password.len())
}

struct Shop;

impl Shop {
    #[guarded_action(skip(self, name, name, address, 7th))]
    fn no_arguments(&self, name: &str) -> Result<usize, sentinel_sdk::Error> {
        Ok(name.len())
    }

    #[guarded_action(skip(self, name, name, address, _))]
    fn wrong_arguments(&self, name: &str, _: u8) -> Result<usize, sentinel_sdk::Error> {
        Ok(name.len())
    }

    #[guarded_action(skip(), inputs = true)]
    fn skips_nothing(&self) -> Result<(), sentinel_sdk::Error> {
        Ok(())
    }

    #[guarded_action(skip(name))]
    fn has_nothing_to_skip(&self) -> Result<(), sentinel_sdk::Error> {
        Ok(())
    }
}

fn main() {
    // The functions are still there: no error follows from theirs.
    let _ = (log_in("hunter2"), no_texts("hunter2"), no_names(), no_list("hunter2"));
    let _ = (Shop.no_arguments("ann"), Shop.wrong_arguments("ann", 1), Shop.skips_nothing(), Shop.has_nothing_to_skip());
}
