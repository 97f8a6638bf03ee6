//! Money: whole nano-dollars inside, decimal dollars on every surface.
//!
//! Invariant: an amount is never negative, never NaN and never above [`Money::MAX`], which is small enough
//! for a JSON number (a double) to hold each nano-dollar exactly.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS_PER_DOLLAR: u64 = 1_000_000_000;

/// An amount of US dollars, to the nano-dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

/// Why something is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number at all.
    #[error("`{0}` is not an amount in dollars; write a decimal number such as 0.05")]
    NotANumber(String),
    /// Below zero.
    #[error("`{0}` is negative; an amount is 0 or more")]
    Negative(String),
    /// Above [`Money::MAX`].
    #[error("`{0}` is more than the largest amount, {max} dollars", max = Money::MAX)]
    TooLarge(String),
    /// Finer than a nano-dollar.
    #[error("`{0}` is finer than a nano-dollar; write at most 9 decimals")]
    TooFine(String),
}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount: four million dollars: up to there a double of dollars tells neighbouring nano-dollars apart.
    pub const MAX: Self = Self(4_000_000 * NANOS_PER_DOLLAR);

    /// An amount from whole nano-dollars.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] above [`Money::MAX`].
    pub fn from_nanos(nanos: u64) -> Result<Self, MoneyError> {
        if nanos > Self::MAX.0 { Err(MoneyError::TooLarge(format!("{nanos}e-9"))) } else { Ok(Self(nanos)) }
    }

    /// The amount in whole nano-dollars.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// An amount from a double of dollars, as SDK users declare costs. Rounded to the nearest nano-dollar, but a
    /// positive amount never becomes nothing.
    ///
    /// # Errors
    /// NaN, infinities, negative amounts and those above [`Money::MAX`] are refused.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie between 0 and 2^53"
    )]
    pub fn from_dollars(dollars: f64) -> Result<Self, MoneyError> {
        if !dollars.is_finite() {
            return Err(MoneyError::NotANumber(dollars.to_string()));
        }
        if dollars < 0.0 {
            return Err(MoneyError::Negative(dollars.to_string()));
        }
        let nanos = (dollars * 1e9).round();
        if nanos > Self::MAX.0 as f64 {
            return Err(MoneyError::TooLarge(dollars.to_string()));
        }
        Ok(Self(if dollars > 0.0 { (nanos as u64).max(1) } else { 0 }))
    }

    /// The amount in dollars, exact to the nano-dollar when printed.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / NANOS_PER_DOLLAR as f64
    }

    /// An amount from decimal text such as `0.05`, exactly.
    ///
    /// # Errors
    /// Anything but digits with one optional point and at most 9 decimals.
    pub fn from_decimal(text: &str) -> Result<Self, MoneyError> {
        let not_a_number = || MoneyError::NotANumber(text.to_owned());
        if let Some(rest) = text.strip_prefix('-') {
            let digits = rest.chars().all(|c| c.is_ascii_digit() || c == '.') && !rest.is_empty();
            return Err(if digits { MoneyError::Negative(text.to_owned()) } else { not_a_number() });
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return Err(not_a_number());
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 9 {
            return Err(MoneyError::TooFine(text.to_owned()));
        }
        let too_large = || MoneyError::TooLarge(text.to_owned());
        let whole = if whole.is_empty() { "0" } else { whole };
        let nanos = format!("{whole}{fraction:0<9}").parse::<u64>().map_err(|_too_long| too_large())?;
        Self::from_nanos(nanos).map_err(|_above_max| too_large())
    }

    /// The sum, or none above [`Money::MAX`]: the caller must treat that as "too much".
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).filter(|sum| *sum <= Self::MAX.0).map(Self)
    }

    /// The sum, at most [`Money::MAX`]; for totals of what has already happened.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(Self::MAX.0))
    }

    /// The difference, at least nothing.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Money {
    /// Decimal dollars without trailing zeros: `0.05`, `5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.checked_div(NANOS_PER_DOLLAR).unwrap_or(0);
        let nanos = self.0.checked_rem(NANOS_PER_DOLLAR).unwrap_or(0);
        if nanos == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{nanos:09}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.dollars())
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(deserializer)?;
        Self::from_dollars(dollars).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_dimes_make_exactly_thirty_cents() {
        let dime = Money::from_dollars(0.1).unwrap();
        let sum = dime.checked_add(dime).unwrap().checked_add(dime).unwrap();
        assert_eq!(sum, Money::from_decimal("0.3").unwrap());
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for dollars in [f64::NAN, f64::INFINITY, -0.01, 1e300, 4_000_000.01] {
            assert!(Money::from_dollars(dollars).is_err(), "{dollars} was taken for money");
        }
        for text in [
            "",
            ".",
            "-1",
            "1e3",
            "0x1",
            "1,5",
            "+1",
            " 1",
            "0.0000000001",
            "4000000.01",
            "99999999999999999999999",
        ] {
            assert!(Money::from_decimal(text).is_err(), "`{text}` was taken for money");
        }
    }

    #[test]
    fn a_positive_amount_never_rounds_to_nothing() {
        assert_eq!(Money::from_dollars(1e-15).unwrap().nanos(), 1);
    }

    #[test]
    fn the_sum_beyond_the_largest_amount_is_none() {
        assert_eq!(Money::MAX.checked_add(Money(1)), None);
    }

    proptest! {
        #[test]
        fn every_amount_survives_json_and_decimal_text(nanos in 0..=Money::MAX.0) {
            let money = Money(nanos);
            let json = serde_json::to_string(&money).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), money);
            prop_assert_eq!(Money::from_decimal(&money.to_string()).unwrap(), money);
        }
    }
}
