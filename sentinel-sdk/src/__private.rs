//! What `#[guarded_action]` expands to. Not part of the interface.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant};

use sentinel_proto::Payload;
use sentinel_proto::app::KernelDenial;
use serde::Serialize;
use serde::ser::SerializeMap as _;

use crate::{AsyncGuard, Error, Guard, record};

/// What a guarded function returns.
#[diagnostic::on_unimplemented(
    message = "a guarded function returns a `Result` whose error can hold a denial",
    label = "this function's return type can't say that the action was denied",
    note = "return `Result<T, E>` where `E: From<sentinel_sdk::Error>`; `Result<T, sentinel_sdk::Error>` is the simplest"
)]
pub trait GuardedReturn {
    /// The value of a success.
    type Value;
    /// The error, which can hold a denial.
    type Failure;
    /// The return value of a function whose body did not run.
    fn denied(error: Error) -> Self;
    /// The return value as it is.
    fn as_result(&self) -> Result<&Self::Value, &Self::Failure>;
}

impl<T, E: From<Error>> GuardedReturn for Result<T, E> {
    type Value = T;
    type Failure = E;

    fn denied(error: Error) -> Self {
        Err(error.into())
    }

    fn as_result(&self) -> Result<&T, &E> {
        self.as_ref()
    }
}

/// Says what the function returns.
pub fn denied<R: GuardedReturn>(error: Error) -> R {
    R::denied(error)
}

/// A value to be recorded as well as it can be: as JSON, else in its debug form, else by its type. Which one is found by the compiler,
/// which takes the trait that needs the fewest `&`.
#[derive(Debug)]
pub struct Recorded<'value, T: ?Sized>(pub &'value T);

/// As JSON.
pub trait AsJson {
    /// The value for the ledger.
    fn record(&self) -> Payload;
}

impl<T: Serialize + ?Sized> AsJson for &&Recorded<'_, T> {
    fn record(&self) -> Payload {
        record::payload(self.0)
    }
}

/// In its debug form.
pub trait AsDebug {
    /// The value for the ledger.
    fn record(&self) -> Payload;
}

impl<T: Debug + ?Sized> AsDebug for &Recorded<'_, T> {
    fn record(&self) -> Payload {
        record::payload(&format!("{:?}", self.0))
    }
}

/// By its type.
pub trait AsType {
    /// The value for the ledger.
    fn record(&self) -> Payload;
}

impl<T: ?Sized> AsType for Recorded<'_, T> {
    fn record(&self) -> Payload {
        record::payload(&format!("<{}>", std::any::type_name::<T>()))
    }
}

/// An error to be told as well as it can be.
#[derive(Debug)]
pub struct Told<'value, T: ?Sized>(pub &'value T);

/// By its message.
pub trait TellDisplay {
    /// The error in words.
    fn tell(&self) -> String;
}

impl<T: Display + ?Sized> TellDisplay for &&Told<'_, T> {
    fn tell(&self) -> String {
        self.0.to_string()
    }
}

/// In its debug form.
pub trait TellDebug {
    /// The error in words.
    fn tell(&self) -> String;
}

impl<T: Debug + ?Sized> TellDebug for &Told<'_, T> {
    fn tell(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// By its type.
pub trait TellType {
    /// The error in words.
    fn tell(&self) -> String;
}

impl<T: ?Sized> TellType for Told<'_, T> {
    fn tell(&self) -> String {
        format!("<{}>", std::any::type_name::<T>())
    }
}

/// A call's arguments, in the form that the ledger's readers know.
#[derive(Debug, Serialize)]
pub struct Inputs<'name> {
    args: [(); 0],
    #[serde(serialize_with = "as_map")]
    kwargs: Vec<(&'name str, Payload)>,
}

impl<'name> Inputs<'name> {
    /// All arguments by name.
    #[must_use]
    pub fn new(kwargs: Vec<(&'name str, Payload)>) -> Self {
        Self { args: [], kwargs }
    }
}

fn as_map<S: serde::Serializer>(pairs: &[(&str, Payload)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, payload) in pairs {
        map.serialize_entry(name, payload)?;
    }
    map.end()
}

/// How a body that has returned ended, for the ledger.
#[derive(Debug)]
pub enum Ending {
    /// With this value.
    Success(Payload),
    /// With this error.
    Error(String),
}

#[derive(Serialize)]
struct Explained<'denial> {
    error: String,
    kernel_denials: &'denial [KernelDenial],
}

/// An error that tells of an `EPERM` is recorded with what the kernel refused meanwhile.
fn is_not_permitted(error: &str) -> bool {
    error.contains("os error 1)")
        || error.contains("Operation not permitted")
        || error.contains("PermissionDenied")
}

fn explained(error: String, denials: &[KernelDenial]) -> Payload {
    if denials.is_empty() {
        record::payload(&error)
    } else {
        record::payload(&Explained { error, kernel_denials: denials })
    }
}

fn since(started: Instant) -> Duration {
    started.elapsed() + Duration::from_millis(100)
}

/// Ends the action of a body that has returned.
pub fn finish(guard: Guard, started: Instant, ending: Ending) {
    match ending {
        Ending::Success(value) => guard.success(&value),
        Ending::Error(error) => {
            let asked = is_not_permitted(&error)
                .then(|| crate::kernel_denials_blocking(since(started)).ok())
                .flatten();
            guard.error(&explained(error, &asked.unwrap_or_default()));
        }
    }
}

/// As [`finish`], for an asynchronous body.
pub async fn finish_async(guard: AsyncGuard, started: Instant, ending: Ending) {
    match ending {
        Ending::Success(value) => guard.success(&value).await,
        Ending::Error(error) => {
            let denials = if is_not_permitted(&error) {
                crate::kernel_denials(since(started)).await.ok()
            } else {
                None
            };
            guard.error(&explained(error, &denials.unwrap_or_default())).await;
        }
    }
}
