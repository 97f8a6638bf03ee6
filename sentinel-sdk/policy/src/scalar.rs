//! Texts, numbers, amounts and truth values.
//!
//! Invariant: a scalar that two YAML versions read differently (`010`, `yes`, `1_000`) is refused, with both ways out.

use std::ops::RangeInclusive;

use sentinel_proto::{Money, MoneyError};

use crate::field::{Field, written};
use crate::problem::{Complaint, Findings};
use crate::quoted::{Quoted, shown};
use crate::suggest::closest;
use crate::tree::Scalar;

/// An amount in dollars.
pub(crate) fn money(field: &Field<'_>, found: &mut Findings) -> Option<Money> {
    let scalar = field.scalar("an amount in dollars", "5.00", found)?;
    let amount = number(scalar, "an amount in dollars", "5.00").and_then(amount);
    amount.map_err(|complaint| field.complain(complaint, found)).ok()
}

fn amount(text: &str) -> Result<Money, Complaint> {
    Money::from_decimal(text).map_err(|error| match error {
        MoneyError::Negative(_) => {
            Complaint::new(format!("{} is negative", Quoted(text)), "write an amount of 0 or more")
        }
        MoneyError::TooLarge(_) => Complaint::new(
            format!("{} is more than the largest amount", Quoted(text)),
            format!("write at most {} dollars, or leave the limit out", Money::MAX),
        ),
        MoneyError::TooFine(_) => Complaint::new(
            format!("{} is finer than a nano-dollar", Quoted(text)),
            "write at most 9 decimals",
        ),
        MoneyError::NotANumber(_) => not_a_number(text, "an amount in dollars", "5.00"),
    })
}

/// A whole number within the range of its shape.
pub(crate) fn whole_number(field: &Field<'_>, found: &mut Findings) -> Option<u64> {
    let (what, range) = field.shape.whole();
    let example = range.end().min(&60).to_string();
    let scalar = field.scalar(what, &example, found)?;
    let whole = number(scalar, what, &example).and_then(|text| whole(text, what, &range));
    whole.map_err(|complaint| field.complain(complaint, found)).ok()
}

fn whole(text: &str, what: &str, range: &RangeInclusive<u64>) -> Result<u64, Complaint> {
    let (least, most) = (range.start(), range.end());
    let within = format!("write {what} from {least} to {most}");
    if text.contains('.') {
        return Err(Complaint::new(format!("{} is not a whole number", Quoted(text)), within));
    }
    match text.parse::<u64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(_) | Err(_) if text.starts_with('-') => {
            Err(Complaint::new(format!("{} is negative", Quoted(text)), within))
        }
        Ok(number) if number < *least => {
            Err(Complaint::new(format!("{} is too small", Quoted(text)), within))
        }
        Ok(_) | Err(_) => Err(Complaint::new(format!("{} is too large", Quoted(text)), within)),
    }
}

/// `true` or `false`.
pub(crate) fn truth(field: &Field<'_>, found: &mut Findings) -> Option<bool> {
    let scalar = field.scalar("`true` or `false`", "", found)?;
    let text = scalar.text.as_str();
    let complaint = match (text, scalar.quoted) {
        ("true" | "True" | "TRUE", false) => return Some(true),
        ("false" | "False" | "FALSE", false) => return Some(false),
        ("true" | "false", true) => Complaint::new(
            format!("`'{text}'` is in quotes, so it is text"),
            format!("write `{text}` without quotes"),
        ),
        _ => match (text.to_lowercase().as_str(), scalar.quoted) {
            (word @ ("yes" | "on" | "y" | "no" | "off" | "n"), false) => {
                let meant = matches!(word, "yes" | "on" | "y");
                Complaint::new(
                    format!("{} is a truth value only in YAML 1.1, and text since", Quoted(text)),
                    format!("write `{meant}`"),
                )
            }
            _ => Complaint::new(
                format!("{} is no truth value", Quoted(&written(scalar))),
                "write `true` or `false`",
            ),
        },
    };
    field.complain(complaint, found);
    None
}

/// What one of its shape's words stands for.
pub(crate) fn choice<T: Copy>(field: &Field<'_>, choices: &[(&str, T)], found: &mut Findings) -> Option<T> {
    let words = field.shape.words();
    let expected = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    let scalar = field.scalar(&expected, "", found)?;
    let chosen = choices.iter().find(|(word, _)| *word == scalar.text && words.contains(word));
    if let Some((_, choice)) = chosen {
        return Some(*choice);
    }
    let way_out = match closest(&scalar.text, words.iter().copied()) {
        Some(meant) if words.len() > 1 => format!("did you mean `{meant}`? write {expected}"),
        Some(_) | None => format!("write {expected}"),
    };
    field.complain(Complaint::new(format!("{} is not known here", Quoted(&written(scalar))), way_out), found);
    None
}

/// A text that can't be taken for anything else.
pub(crate) fn unambiguous(scalar: &Scalar) -> Result<&str, Complaint> {
    let text = scalar.text.as_str();
    if scalar.quoted {
        return Ok(text);
    }
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.contains(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_hexdigit() || matches!(c, '+' | '-' | '.' | '_' | 'x' | 'o' | ':'));
    let lower = text.to_lowercase();
    let kind = match lower.as_str() {
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" => "a truth value",
        "null" | "~" | "" => "no value at all",
        ".nan" | ".inf" | "-.inf" | "+.inf" => "a number",
        _ if is_number => "a number",
        _ => return Ok(text),
    };
    Err(Complaint::new(
        format!("{} can be read as {kind}", Quoted(text)),
        format!("put it in quotes: `'{}'`", shown(text)),
    ))
}

/// A scalar's text, if it is an optional `-`, digits and at most one point: what every reader takes for the same number.
fn number<'s>(scalar: &'s Scalar, what: &str, example: &str) -> Result<&'s str, Complaint> {
    let text = scalar.text.as_str();
    if scalar.quoted {
        let way_out = if is_decimal(text) {
            format!("write it without quotes: `{}`", shown(text))
        } else {
            format!("write {what} such as `{example}`")
        };
        return Err(Complaint::new(format!("`'{}'` is in quotes, so it is text", shown(text)), way_out));
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let octal_like = digits.len() > 1
        && digits.starts_with('0')
        && digits.chars().nth(1).is_some_and(|second| second.is_ascii_digit());
    if is_decimal(text) && octal_like {
        let plain = digits.trim_start_matches('0');
        let plain =
            if plain.is_empty() || plain.starts_with('.') { format!("0{plain}") } else { plain.to_owned() };
        return Err(Complaint::new(
            format!("{} begins with 0, which some readers take for octal", Quoted(text)),
            format!("write it without: `{}`", shown(&plain)),
        ));
    }
    if is_decimal(text) { Ok(text) } else { Err(not_a_number(text, what, example)) }
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.contains(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
        && digits.matches('.').count() <= 1
}

fn not_a_number(text: &str, what: &str, example: &str) -> Complaint {
    let lower = text.to_lowercase();
    let bare = lower.trim_start_matches(['+', '-']);
    let way_out = format!("write {what} such as `{example}`");
    let message = if matches!(bare, ".nan" | "nan" | ".inf" | "inf" | "infinity") {
        let way_out = if bare.contains("inf") {
            format!("{way_out}; where nothing is to be limited, leave the key out")
        } else {
            way_out
        };
        return Complaint::new(format!("{} is not a finite number", Quoted(text)), way_out);
    } else if ["0x", "0o", "0b"].iter().any(|prefix| bare.starts_with(prefix)) {
        format!("{} is not decimal", Quoted(text))
    } else if text.starts_with('+') {
        format!("{} begins with a plus sign", Quoted(text))
    } else if is_decimal(&text.replace('_', "")) {
        format!("{} holds an underscore, which not every reader takes for part of a number", Quoted(text))
    } else if is_decimal(&text.replace(',', ".")) || is_decimal(&text.replace(',', "")) {
        return Complaint::new(
            format!("{} holds a comma", Quoted(text)),
            format!("{way_out}, with a point before the decimals and nothing between thousands"),
        );
    } else if is_decimal(text.trim_matches(|c: char| !c.is_ascii_digit() && c != '.')) {
        format!("{} has something before or behind the number", Quoted(text))
    } else if lower.split_once('e').is_some_and(|(mantissa, exponent)| {
        is_decimal(mantissa) && is_decimal(exponent.trim_start_matches('+'))
    }) {
        format!("{} is written with an exponent", Quoted(text))
    } else {
        format!("{} is not a number", Quoted(text))
    };
    Complaint::new(message, way_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.to_owned(), quoted: false }
    }

    #[test]
    fn an_amount_is_read_exactly() {
        for (text, nanos) in
            [("5.0", 5_000_000_000), (".5", 500_000_000), ("0", 0), ("0.000000001", 1), ("0.10", 100_000_000)]
        {
            let number = number(&plain(text), "an amount", "1").and_then(amount);
            assert_eq!(number.unwrap().nanos(), nanos, "{text}");
        }
    }

    #[test]
    fn what_readers_disagree_about_is_no_number() {
        for text in [
            "010", "-010", "00", "1_000", "0x10", "0o17", "1e3", "+5", ".nan", ".inf", "-.INF", "1:30",
            "1,5", "$5", "5 USD", "", "-", ".", "1.2.3", "١",
        ] {
            assert!(number(&plain(text), "an amount", "1").is_err(), "`{text}` was taken for a number");
        }
    }

    #[test]
    fn a_number_in_quotes_is_told_to_drop_them() {
        let quoted = Scalar { text: "1.0".to_owned(), quoted: true };
        let complaint = number(&quoted, "an amount", "1").unwrap_err();
        assert_eq!(complaint.way_out, "write it without quotes: `1.0`");
    }

    #[test]
    fn a_name_that_looks_like_something_else_has_to_be_quoted() {
        for text in ["1", "1.0", "0x1f", "yes", "No", "on", "true", "null", "~", ".inf", "12:30", "1e3"] {
            assert!(unambiguous(&plain(text)).is_err(), "`{text}` was taken for a name");
            assert!(unambiguous(&Scalar { text: text.to_owned(), quoted: true }).is_ok());
        }
        for text in ["search_web", "e2e", "-", "a1", "yesterday", "3d_render", "add", "fade", "1st"] {
            assert!(unambiguous(&plain(text)).is_ok(), "`{text}` was not taken for a name");
        }
    }

    #[test]
    fn a_whole_number_keeps_to_its_range() {
        let range = 1..=86_400;
        assert_eq!(whole("86400", "seconds", &range), Ok(86_400));
        for text in ["0", "86401", "-1", "1.0", "99999999999999999999999"] {
            assert!(whole(text, "seconds", &range).is_err(), "{text}");
        }
    }
}
