//! Records a value by the best that its type offers.
//!
//! Method lookup picks the first trait whose bounds hold: a call on `&&&Probe` finds the impl for `&&Probe` before the
//! one for `&Probe` before the one for `Probe`. In generic code it goes by the bounds that stand there.

use std::error::Error;
use std::fmt::{Debug, Display};

use serde::Serialize;

use crate::explain::{is_refusal, tells_of_refusal};
use crate::record;

/// A recorded value: JSON text.
#[derive(Clone, Debug)]
pub struct Captured(String);

impl Captured {
    pub(crate) fn as_json(&self) -> &str {
        &self.0
    }
}

/// A value to be recorded.
#[expect(missing_debug_implementations, reason = "it holds what may have none")]
pub struct Probe<'value, T: ?Sized>(pub &'value T);

/// As JSON.
pub trait ViaSerialize {
    /// Records it.
    fn capture(&self) -> Captured;
}

impl<T: Serialize + ?Sized> ViaSerialize for &&Probe<'_, T> {
    fn capture(&self) -> Captured {
        Captured(record::json(self.0))
    }
}

/// As its debug text.
pub trait ViaDebug {
    /// Records it.
    fn capture(&self) -> Captured;
}

impl<T: Debug + ?Sized> ViaDebug for &Probe<'_, T> {
    fn capture(&self) -> Captured {
        Captured(record::text(&format!("{:?}", self.0)))
    }
}

/// As the name of its type.
pub trait ViaTypeName {
    /// Records it.
    fn capture(&self) -> Captured;
}

impl<T: ?Sized> ViaTypeName for Probe<'_, T> {
    fn capture(&self) -> Captured {
        Captured(record::text(&type_name::<T>()))
    }
}

/// An error's text, and whether the kernel may have caused it.
#[derive(Clone, Debug)]
pub struct Described {
    pub(crate) text: String,
    pub(crate) tells_of_refusal: bool,
}

impl Described {
    fn of_text(text: String) -> Self {
        Self { tells_of_refusal: tells_of_refusal(&text), text }
    }
}

/// An error to be described.
#[expect(missing_debug_implementations, reason = "it holds what may have none")]
pub struct ErrorProbe<'error, E: ?Sized>(pub &'error E);

/// By its own text and those of its sources.
pub trait ViaError {
    /// Describes it.
    fn describe(&self) -> Described;
}

impl<E: Error + 'static> ViaError for &&&ErrorProbe<'_, E> {
    fn describe(&self) -> Described {
        let error: &(dyn Error + 'static) = self.0;
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors' texts end with their sources'.
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Described { text, tells_of_refusal: is_refusal(error) }
    }
}

/// By its text, with those of its sources where the alternate form gives them.
pub trait ViaDisplay {
    /// Describes it.
    fn describe(&self) -> Described;
}

impl<E: Display + ?Sized> ViaDisplay for &&ErrorProbe<'_, E> {
    fn describe(&self) -> Described {
        Described::of_text(format!("{:#}", self.0))
    }
}

/// By its debug text.
pub trait ViaErrorDebug {
    /// Describes it.
    fn describe(&self) -> Described;
}

impl<E: Debug + ?Sized> ViaErrorDebug for &ErrorProbe<'_, E> {
    fn describe(&self) -> Described {
        Described::of_text(format!("{:?}", self.0))
    }
}

/// By the name of its type.
pub trait ViaErrorTypeName {
    /// Describes it.
    fn describe(&self) -> Described;
}

impl<E: ?Sized> ViaErrorTypeName for ErrorProbe<'_, E> {
    fn describe(&self) -> Described {
        Described { text: type_name::<E>(), tells_of_refusal: false }
    }
}

fn type_name<T: ?Sized>() -> String {
    format!("<{}>", std::any::type_name::<T>())
}

#[cfg(test)]
#[expect(clippy::needless_borrow, reason = "as many as the attribute writes, whatever the type")]
mod tests {
    use super::*;

    struct Opaque;

    #[derive(Debug)]
    struct OnlyDebug(#[expect(dead_code, reason = "for its text")] u8);

    #[test]
    fn a_value_is_recorded_by_the_best_that_its_type_offers() {
        assert_eq!((&&&Probe(&vec![1, 2])).capture().as_json(), "[1,2]");
        assert_eq!((&&&Probe(&"a")).capture().as_json(), "\"a\"");
        assert_eq!((&&&Probe(&OnlyDebug(1))).capture().as_json(), "\"OnlyDebug(1)\"");
        assert!((&&&Probe(&Opaque)).capture().as_json().ends_with("::Opaque>\""));
    }

    #[test]
    fn an_error_is_described_by_the_best_that_its_type_offers() {
        let refused = std::io::Error::from_raw_os_error(1);
        let boxed: Box<dyn Error> = Box::new(std::io::Error::from_raw_os_error(1));
        let described = (&&&&ErrorProbe(&refused)).describe();
        assert!(described.tells_of_refusal && described.text.contains("not permitted"));
        assert!((&&&&ErrorProbe(&boxed)).describe().tells_of_refusal);
        assert_eq!((&&&&ErrorProbe(&"text")).describe().text, "text");
        assert_eq!((&&&&ErrorProbe(&OnlyDebug(1))).describe().text, "OnlyDebug(1)");
        assert!((&&&&ErrorProbe(&Opaque)).describe().text.ends_with("::Opaque>"));
    }
}
