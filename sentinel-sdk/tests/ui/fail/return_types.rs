use sentinel_sdk::guarded_action;

#[derive(Debug)]
struct Mine;

#[guarded_action]
fn an_error_that_cannot_be_a_denial() -> Result<(), Mine> {
    Ok(())
}

#[guarded_action]
async fn no_result() -> u8 {
    7
}

#[guarded_action]
fn an_option() -> Option<u8> {
    None
}

#[guarded_action]
fn nothing_at_all() {}

#[guarded_action]
fn a_future() -> impl Future<Output = Result<(), sentinel_sdk::Error>> {
    async { Ok(()) }
}

#[guarded_action]
fn a_boxed_future() -> std::pin::Pin<Box<dyn Future<Output = Result<(), sentinel_sdk::Error>> + Send>> {
    Box::pin(async { Ok(()) })
}

#[guarded_action]
fn never() -> ! {
    loop {}
}

fn main() {}
