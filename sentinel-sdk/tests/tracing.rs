//! What a program's own log hears of its guarded actions: a span for each, what happens in it, and what its body says.

mod agent;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, Once};

use agent::{block_on, fresh_path, of_process};
use sentinel_sdk::{Client, Error, guarded_action};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A span, and what was told in it.
#[derive(Clone, Debug, Default)]
struct Told {
    name: &'static str,
    target: &'static str,
    parent: Option<Id>,
    fields: Fields,
    /// Each as `LEVEL message`.
    events: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Fields(HashMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// A subscriber that remembers all spans.
struct Log(Mutex<Vec<Told>>);

static LOG: LazyLock<Arc<Log>> = LazyLock::new(|| Arc::new(Log(Mutex::default())));

thread_local! {
    /// The spans that this thread is in.
    static ENTERED: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
}

fn current() -> Option<Id> {
    ENTERED.with_borrow(|entered| entered.last().cloned())
}

impl Log {
    fn change(&self, span: &Id, change: impl FnOnce(&mut Told)) {
        let index = usize::try_from(span.into_u64()).unwrap() - 1;
        change(&mut self.0.lock().unwrap()[index]);
    }
}

impl Subscriber for Log {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let metadata = span.metadata();
        let parent = if span.is_contextual() { current() } else { span.parent().cloned() };
        let mut fields = Fields::default();
        span.record(&mut fields);
        let mut all = self.0.lock().unwrap();
        all.push(Told {
            name: metadata.name(),
            target: metadata.target(),
            parent,
            fields,
            events: Vec::new(),
        });
        Id::from_u64(all.len().try_into().unwrap())
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.change(span, |told| values.record(&mut told.fields));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let span = if event.is_contextual() { current() } else { event.parent().cloned() };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = format!("{} {}", event.metadata().level(), fields.0["message"]);
        if let Some(span) = span {
            self.change(&span, |told| told.events.push(line));
        }
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.clone()));
    }

    fn exit(&self, span: &Id) {
        assert_eq!(ENTERED.with_borrow_mut(Vec::pop).as_ref(), Some(span));
    }
}

/// Listens from now on.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Arc::clone(&LOG)).unwrap());
    of_process();
}

/// The one span of this action.
fn span_of(action: &str) -> Told {
    let all = LOG.0.lock().unwrap();
    let mut of_action = all.iter().filter(|told| told.fields.0.get("action").is_some_and(|it| it == action));
    let told = of_action.next().unwrap_or_else(|| panic!("no span of `{action}`: {all:#?}")).clone();
    assert_eq!(of_action.count(), 0, "more than one span of `{action}`");
    told
}

#[guarded_action(cost_usd = 0.01)]
fn search(query: &str) -> Result<usize, Error> {
    tracing::info!("searching");
    Ok(query.len())
}

#[test]
fn an_action_is_a_span_in_which_its_body_runs() {
    listen();
    search("a secret").unwrap();
    let told = span_of("search");
    assert_eq!((told.name, told.target, told.parent), ("guarded_action", "sentinel_sdk", None));
    assert_eq!(told.fields.0["outcome"], "success");
    assert_eq!(told.fields.0["id"].len(), 36, "as in the ledger: {:?}", told.fields);
    assert_eq!(told.events, ["DEBUG allowed", "INFO searching", "DEBUG ended"]);
}

#[guarded_action]
fn denied_search(query: &str) -> Result<usize, Error> {
    tracing::info!("searching");
    Ok(query.len())
}

#[test]
fn a_denied_action_is_warned_of_with_its_reason() {
    listen();
    let error = denied_search("a secret").unwrap_err();
    let told = span_of("denied_search");
    assert_eq!(told.fields.0["outcome"], "blocked");
    assert_eq!(told.events, [format!("WARN {error}")]);
}

#[test]
fn an_action_that_is_declared_wrongly_is_warned_of_too() {
    listen();
    Client::new(fresh_path()).action("worthless").cost_usd(f64::NAN).begin_blocking().unwrap_err();
    assert!(span_of("worthless").events[0].starts_with("WARN action `worthless` denied: "));
}

#[guarded_action]
async fn outer_async(pauses: u8) -> Result<(), Error> {
    for pause in 0..pauses {
        tracing::info!("pause {pause}");
        tokio::task::yield_now().await;
    }
    inner_async(pauses).await
}

#[guarded_action]
async fn inner_async(pauses: u8) -> Result<(), Error> {
    for _ in 0..pauses {
        tokio::task::yield_now().await;
    }
    tracing::info!("inside");
    Ok(())
}

#[guarded_action]
async fn beside_async() -> Result<(), Error> {
    for _ in 0..5 {
        tracing::info!("beside");
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[test]
fn an_async_body_is_in_its_span_whenever_it_runs_and_only_it() {
    listen();
    block_on(async { tokio::try_join!(outer_async(2), beside_async()) }).unwrap();
    let outer = span_of("outer_async");
    assert_eq!(outer.events, ["DEBUG allowed", "INFO pause 0", "INFO pause 1", "DEBUG ended"]);
    let inner = span_of("inner_async");
    assert_eq!(inner.events, ["DEBUG allowed", "INFO inside", "DEBUG ended"]);
    assert_eq!(span_of("beside_async").events[1..6], ["INFO beside"; 5]);
    let parent = inner.parent.expect("an action within another is a span within its span");
    LOG.change(&parent, |told| assert_eq!(told.fields.0["action"], "outer_async"));
}

#[guarded_action]
fn fails() -> Result<(), std::io::Error> {
    Err(std::io::ErrorKind::NotFound.into())
}

#[guarded_action]
fn panics() -> Result<(), Error> {
    panic!("as told")
}

#[guarded_action]
async fn never_done(is_running: &Cell<bool>) -> Result<(), Error> {
    is_running.set(true);
    std::future::pending().await
}

#[test]
fn a_span_tells_how_its_action_ended() {
    listen();
    fails().unwrap_err();
    std::panic::catch_unwind(panics).unwrap_err();
    let is_running = Cell::new(false);
    block_on(async {
        tokio::select! {
            _ = never_done(&is_running) => unreachable!("it never ends"),
            () = async { while !is_running.get() { tokio::task::yield_now().await } } => {}
        }
    });
    for (action, outcome) in [("fails", "error"), ("panics", "panicked"), ("never_done", "cancelled")] {
        assert_eq!(span_of(action).fields.0["outcome"], outcome);
    }
}

#[test]
fn a_guard_by_hand_has_a_span_too() {
    listen();
    let client = Client::new(of_process().path());
    client.action("by_hand").begin_blocking().unwrap().cancel();
    block_on(async { drop(client.action("by_hand_async").begin().await.unwrap()) });
    for action in ["by_hand", "by_hand_async"] {
        let told = span_of(action);
        assert_eq!(told.fields.0["outcome"], "cancelled");
        assert_eq!(told.events, ["DEBUG allowed", "DEBUG ended"]);
    }
}

#[test]
fn an_end_that_the_agent_did_not_confirm_is_warned_of() {
    listen();
    let agent = agent::Agent::start();
    let guard = Client::new(agent.path()).action("unheard").begin_blocking().unwrap();
    drop(agent);
    guard.success(&());
    let events = span_of("unheard").events;
    assert!(events[1].starts_with("WARN ended, but the agent has not confirmed it"), "{events:?}");
}

#[guarded_action(actual_cost_usd = |_| f64::NAN)]
fn worth_nothing() -> Result<(), Error> {
    Ok(())
}

#[test]
fn a_real_cost_that_is_none_is_warned_of() {
    listen();
    worth_nothing().unwrap();
    let events = span_of("worth_nothing").events;
    assert!(events[1].starts_with("WARN the estimated cost stays: actual cost: "), "{events:?}");
}

#[guarded_action]
fn whisper(secret: &str) -> Result<String, Error> {
    Ok(secret.to_owned())
}

#[test]
fn arguments_and_results_are_not_told() {
    listen();
    whisper("hunter2").unwrap();
    assert!(!format!("{:?}", span_of("whisper")).contains("hunter2"));
}
