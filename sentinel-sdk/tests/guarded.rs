//! Functions under `#[guarded_action]`: whether their bodies run, what they return, and what the agent hears.

mod agent;

use std::fmt::Debug;
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use agent::Agent;
use sentinel_proto::app::Request;
use sentinel_proto::{Money, Outcome};
use sentinel_sdk::{Error, guarded_action};

/// The agent of this process's own client.
static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    let agent = Agent::start();
    // SAFETY: nothing in this program reads or writes the environment but through the standard library.
    unsafe { std::env::set_var("AGENT_SENTINEL_SOCKET", agent.path()) };
    // SAFETY: what is registered takes nothing and panics never.
    unsafe { libc::atexit(remove_socket) };
    agent
});

/// A static is never dropped.
extern "C" fn remove_socket() {
    drop(std::fs::remove_file(AGENT.path()));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    LazyLock::force(&AGENT);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn kwargs(action: &str) -> serde_json::Value {
    let begins = AGENT.begins(action);
    let inputs: serde_json::Value = serde_json::from_str(begins.last().unwrap().inputs.as_json()).unwrap();
    assert_eq!(inputs["args"], serde_json::json!([]));
    inputs["kwargs"].clone()
}

#[guarded_action(name = "search_web", cost_usd = 0.01, tags = ["web", "search"])]
fn search(query: &str, limit: usize) -> Result<Vec<String>, Error> {
    Ok(vec![query.to_owned(); limit])
}

#[test]
fn a_guarded_function_does_what_it_does_and_the_agent_hears_all_of_it() {
    LazyLock::force(&AGENT);
    assert_eq!(search("ferris", 2).unwrap(), ["ferris", "ferris"]);
    let begin = AGENT.begins("search_web").remove(0);
    assert_eq!(begin.cost_usd, Money::from_decimal("0.01").unwrap());
    assert_eq!(begin.tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web", "search"]);
    assert_eq!(kwargs("search_web"), serde_json::json!({"query": "ferris", "limit": 2}));
    let end = AGENT.end("search_web");
    assert_eq!((end.outcome, end.outputs.as_json()), (Outcome::Success, r#"["ferris","ferris"]"#));
}

static RAN: AtomicU64 = AtomicU64::new(0);

#[guarded_action]
fn denied_by_name() -> Result<(), Error> {
    RAN.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[guarded_action(name = "denied_async")]
async fn denied_too(_what: String) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    RAN.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[guarded_action(name = "denied_io")]
fn denied_io() -> io::Result<()> {
    RAN.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[test]
fn a_denied_functions_body_does_not_run() {
    LazyLock::force(&AGENT);
    let error = denied_by_name().unwrap_err();
    assert_eq!((error.is_denied(), error.action()), (true, Some("denied_by_name")));
    let error = block_on(denied_too("all".to_owned())).unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_denied());
    let error = denied_io().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.get_ref().unwrap().downcast_ref::<Error>().unwrap().is_denied());
    assert_eq!(RAN.load(Ordering::SeqCst), 0);
}

#[derive(Debug)]
enum FetchError {
    Denied(#[expect(dead_code, reason = "for its text")] Error),
    Status(u16),
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        Self::Denied(error)
    }
}

#[guarded_action]
fn fetch(status: u16) -> Result<u16, FetchError> {
    if status != 200 {
        return Err(FetchError::Status(status));
    }
    Ok(status)
}

#[guarded_action]
async fn read_page(name: &str) -> io::Result<String> {
    let text = std::fs::read_to_string(name)?;
    Ok(text)
}

#[test]
fn an_error_comes_back_as_it_is_and_its_text_is_recorded() {
    LazyLock::force(&AGENT);
    assert!(matches!(fetch(404), Err(FetchError::Status(404))));
    let end = AGENT.end("fetch");
    assert_eq!((end.outcome, end.outputs.as_json()), (Outcome::Error, "\"Status(404)\""));

    let error = block_on(read_page("/no/such/page")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert!(AGENT.end("read_page").outputs.as_json().contains("No such file"));
}

#[guarded_action]
fn refused_by_kernel() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

#[guarded_action]
async fn refused_by_kernel_async() -> Result<(), Box<dyn std::error::Error>> {
    Err(io::Error::from_raw_os_error(libc::EPERM))?
}

#[test]
fn an_eperm_is_recorded_with_what_the_kernel_refused_meanwhile() {
    LazyLock::force(&AGENT);
    refused_by_kernel().unwrap_err();
    block_on(refused_by_kernel_async()).unwrap_err();
    for action in ["refused_by_kernel", "refused_by_kernel_async"] {
        let outputs: serde_json::Value = serde_json::from_str(AGENT.end(action).outputs.as_json()).unwrap();
        assert!(outputs["error"].as_str().unwrap().contains("not permitted"), "{outputs}");
        assert_eq!(outputs["kernel_denials"][0]["attempt"], "connect to 192.0.2.1:443 (tcp)");
    }
    let reach = AGENT.seen().into_iter().find_map(|seen| match seen.request {
        Request::Denials(denials) => Some(denials.within_ms),
        _ => None,
    });
    assert!(reach >= Some(50), "it reaches back to the action's begin, however late it arrives: {reach:?}");
    let explained = sentinel_sdk::explain(&io::Error::from_raw_os_error(libc::EPERM)).unwrap();
    assert_eq!(explained, [agent::kernel_denial()]);
    assert_eq!(sentinel_sdk::explain(&io::Error::from_raw_os_error(libc::ENOENT)), None);
}

#[guarded_action]
fn panics(code: i32) -> Result<(), Error> {
    std::panic::panic_any(code)
}

#[guarded_action]
async fn panics_async() -> Result<(), Error> {
    panic!("as told")
}

#[test]
fn a_panic_goes_on_as_it_was_and_counts_as_panicked() {
    LazyLock::force(&AGENT);
    assert_eq!(std::panic::catch_unwind(|| panics(7)).unwrap_err().downcast_ref(), Some(&7));
    assert!(std::panic::catch_unwind(|| block_on(panics_async())).is_err());
    assert_eq!(AGENT.end("panics").outcome, Outcome::Panicked);
    assert_eq!(AGENT.end("panics_async").outcome, Outcome::Panicked);
}

#[guarded_action]
async fn door_never_done() -> Result<(), Error> {
    std::future::pending().await
}

#[test]
fn an_async_function_that_is_dropped_counts_as_cancelled() {
    block_on(async {
        tokio::select! {
            _ = door_never_done() => unreachable!("it never ends"),
            () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
        }
    });
    assert_eq!(AGENT.ends("door_never_done").len(), 1);
    assert_eq!(AGENT.end("door_never_done").outcome, Outcome::Cancelled);
}

#[derive(Clone, Debug, Default)]
struct Shop {
    orders: Vec<String>,
}

trait Buys {
    fn buy(&mut self, what: &str) -> Result<&mut String, Error>;
}

impl Buys for Shop {
    #[guarded_action(name = "buy")]
    fn buy(&mut self, what: &str) -> Result<&mut String, Error> {
        self.orders.push(what.to_owned());
        Ok(self.orders.last_mut().unwrap())
    }
}

impl Shop {
    #[guarded_action]
    async fn first(&self) -> Result<&String, Error> {
        self.orders.first().ok_or_else(|| unreachable!("something was bought"))
    }

    #[guarded_action]
    fn close(self) -> Result<Vec<String>, Error> {
        Ok(self.orders)
    }
}

#[test]
fn methods_can_be_guarded_and_may_lend_what_is_theirs() {
    LazyLock::force(&AGENT);
    let mut shop = Shop::default();
    shop.buy("tea").unwrap().push('s');
    assert_eq!(block_on(shop.first()).unwrap(), "teas");
    assert_eq!(shop.close().unwrap(), ["teas"]);
    assert_eq!(kwargs("buy"), serde_json::json!({"what": "tea"}));
}

trait Sells {
    async fn sell(&self, what: &str) -> Result<String, Error>;

    #[guarded_action]
    async fn denied_by_default(&self) -> Result<(), Error> {
        RAN.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Sells for Shop {
    #[guarded_action]
    async fn sell(&self, what: &str) -> Result<String, Error> {
        tokio::task::yield_now().await;
        Ok(format!("{what} of {}", self.orders.len()))
    }
}

#[test]
fn async_methods_of_traits_and_their_default_bodies_can_be_guarded() {
    let shop = Shop { orders: vec!["tea".to_owned()] };
    assert_eq!(block_on(shop.sell("tea")).unwrap(), "tea of 1");
    let ran = RAN.load(Ordering::SeqCst);
    assert!(block_on(shop.denied_by_default()).unwrap_err().is_denied());
    assert_eq!(RAN.load(Ordering::SeqCst), ran);
    assert_eq!(kwargs("sell"), serde_json::json!({"what": "tea"}));
}

/// # Safety
/// The address is one of a byte.
#[guarded_action(skip(address))]
unsafe fn read_byte(address: *const u8, times: u8) -> Result<u8, Error> {
    // SAFETY: as the caller promises.
    Ok(unsafe { *address } * times)
}

#[test]
fn an_unsafe_function_can_be_guarded_and_stays_unsafe() {
    LazyLock::force(&AGENT);
    // SAFETY: the byte lives through the call.
    assert_eq!(unsafe { read_byte(&7, 2) }.unwrap(), 14);
    assert_eq!(kwargs("read_byte"), serde_json::json!({"times": 2}));
}

#[guarded_action(name = "door_first_number")]
fn first_number(text: &str) -> Result<u8, Box<dyn std::error::Error>> {
    for word in text.split(' ') {
        if let Ok(number) = word.parse() {
            return Ok(number);
        }
    }
    Err("no number")?
}

#[test]
fn an_early_return_and_a_question_mark_end_the_action_and_no_more() {
    LazyLock::force(&AGENT);
    assert_eq!(first_number("a 7 9").unwrap(), 7);
    assert_eq!(first_number("a b").unwrap_err().to_string(), "no number");
    let ends = AGENT.ends("door_first_number");
    let ended: Vec<_> = ends.iter().map(|end| (end.outcome, end.outputs.as_json())).collect();
    assert_eq!(ended, [(Outcome::Success, "7"), (Outcome::Error, "\"no number\"")]);
}

struct Opaque;

#[guarded_action]
#[expect(clippy::too_many_arguments, reason = "one of each kind")]
fn generic<'a, T, U: Debug>(
    shown: U,
    hidden: T,
    Shop { orders }: Shop,
    (left, _): (u8, u8),
    mut grown: Vec<u8>,
    each: impl Fn(&'a str) -> usize,
    r#type: &'a str,
    _opaque: Opaque,
) -> Result<impl Iterator<Item = usize>, Error>
where
    T: Clone,
{
    drop((shown, hidden.clone(), orders));
    grown.push(left);
    Ok(vec![each(r#type), grown.len()].into_iter())
}

#[test]
fn all_kinds_of_arguments_are_recorded_by_the_best_that_their_types_offer() {
    LazyLock::force(&AGENT);
    let shop = Shop { orders: vec!["tea".to_owned()] };
    let counted = generic(Some(1), "no bounds", shop, (1, 2), vec![3], str::len, "raw", Opaque).unwrap();
    assert_eq!(counted.collect::<Vec<_>>(), [3, 2]);
    let kwargs = kwargs("generic");
    assert_eq!(kwargs["shown"], "Some(1)", "the bound is `Debug`, whatever else the type is");
    assert_eq!(kwargs["hidden"], "<&str>");
    assert_eq!(kwargs["orders"], serde_json::json!(["tea"]));
    assert_eq!((&kwargs["left"], &kwargs["grown"]), (&serde_json::json!(1), &serde_json::json!([3])));
    assert_eq!(kwargs["type"], "raw");
    assert_eq!(kwargs["_opaque"], "<guarded::Opaque>");
}

#[guarded_action(skip(password), outputs = false)]
fn log_in(user: &str, password: &str) -> Result<String, Error> {
    Ok(format!("{user}:{password}"))
}

#[guarded_action(inputs = false)]
async fn whisper(secret: String) -> Result<usize, Error> {
    Ok(secret.len())
}

#[test]
fn what_is_left_out_is_not_recorded() {
    LazyLock::force(&AGENT);
    log_in("ann", "hunter2").unwrap();
    assert_eq!(block_on(whisper("psst".to_owned())).unwrap(), 4);
    assert_eq!(kwargs("log_in"), serde_json::json!({"user": "ann"}));
    assert_eq!(AGENT.end("log_in").outputs.as_json(), "null");
    assert_eq!(AGENT.begins("whisper")[0].inputs.as_json(), "null");
}

#[guarded_action]
fn reads_much(page: String) -> Result<usize, Error> {
    Ok(page.len())
}

#[test]
fn long_arguments_leave_a_digest() {
    LazyLock::force(&AGENT);
    assert_eq!(reads_much("x".repeat(100_000)).unwrap(), 100_000);
    let inputs: serde_json::Value =
        serde_json::from_str(AGENT.begins("reads_much")[0].inputs.as_json()).unwrap();
    assert!(inputs["truncated"].as_str().unwrap().starts_with(r#"{"args":[],"kwargs":{"page":"xxx"#));
    assert!(inputs["bytes"].as_u64().unwrap() > 100_000);
}

#[guarded_action]
fn outer() -> Result<u8, Error> {
    inner()
}

#[guarded_action]
fn inner() -> Result<u8, Error> {
    denied_by_name().map(|()| 1)
}

#[test]
fn guarded_functions_nest() {
    LazyLock::force(&AGENT);
    let ran = RAN.load(Ordering::SeqCst);
    assert!(outer().unwrap_err().is_denied());
    assert_eq!((AGENT.end("outer").outcome, AGENT.end("inner").outcome), (Outcome::Error, Outcome::Error));
    assert_eq!(RAN.load(Ordering::SeqCst), ran);
}

#[test]
fn a_guarded_future_may_move_to_another_thread() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    LazyLock::force(&AGENT);
    let task = runtime.spawn(is_send(async { whisper("psst".to_owned()).await.unwrap() }));
    assert_eq!(runtime.block_on(task).unwrap(), 4);
}
