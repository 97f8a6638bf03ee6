//! A ledger line as a row of CSV, as RFC 4180 has it.
//!
//! Invariant: no cell is taken for a formula by a spreadsheet; what is in it came from an application.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// What stands where in a row: the seed's eight keys first.
const COLUMNS: [&str; 16] = [
    "id",
    "timestamp",
    "action",
    "cost_usd",
    "duration_ms",
    "outcome",
    "tags",
    "payload",
    "kind",
    "session",
    "run",
    "reason",
    "rule",
    "line",
    "seq",
    "hash",
];

type Keys<'line> = BTreeMap<String, &'line RawValue>;

/// The first row.
pub(super) fn header() -> String {
    row(COLUMNS.map(str::to_owned))
}

/// The row of a line: its strings without their quotes, all other values as JSON.
///
/// # Errors
/// It is no JSON object.
pub(super) fn of_line(line: &[u8]) -> Result<String, serde_json::Error> {
    let keys: Keys<'_> = serde_json::from_slice(line)?;
    Ok(row(COLUMNS.map(|column| match column {
        // The kernel gives its reason as a verdict.
        "reason" if keys.contains_key("verdict") => cell(&keys, "verdict"),
        "reason" => cell(&inner(&keys, "reason"), "code"),
        "rule" | "line" => cell(&inner(&keys, "rule"), column),
        _ => cell(&keys, column),
    })))
}

/// The keys of an object within a line; none, where there is no object.
fn inner<'line>(keys: &Keys<'line>, key: &str) -> Keys<'line> {
    keys.get(key).and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default()
}

fn cell(keys: &Keys<'_>, key: &str) -> String {
    let Some(value) = keys.get(key).map(|value| value.get()).filter(|value| *value != "null") else {
        return String::new();
    };
    serde_json::from_str(value).unwrap_or_else(|_no_string| value.to_owned())
}

fn row(cells: [String; COLUMNS.len()]) -> String {
    let cells = cells.map(|cell| quoted(harmless(cell)));
    cells.join(",") + "\r\n"
}

/// The cell with a `'` before it where a spreadsheet would calculate it.
fn harmless(cell: String) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let is_number = || {
        cell.parse::<f64>().is_ok()
            && cell.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
    };
    if is_formula && !is_number() { format!("'{cell}") } else { cell }
}

fn quoted(cell: String) -> String {
    if cell.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_seed_s_keys_first_and_every_value_of_the_line() {
        assert_eq!(
            header(),
            "id,timestamp,action,cost_usd,duration_ms,outcome,tags,payload,kind,session,run,reason,rule,line,seq,hash\r\n"
        );
        let line = r#"{"id":"a","timestamp":"t","action":"drop","cost_usd":0.10,"duration_ms":0.0,"outcome":"blocked","tags":["x"],"payload":{"inputs":1e999,"outputs":"\ud800"},"kind":"action","session":null,"run":1,"reason":{"code":"DENIED_ACTION"},"rule":{"rule":"denied_actions","line":4},"seq":7,"hash":"h"}"#;
        assert_eq!(
            of_line(line.as_bytes()).unwrap(),
            concat!(
                r#"a,t,drop,0.10,0.0,blocked,"[""x""]","{""inputs"":1e999,""outputs"":""\ud800""}",action,,1,DENIED_ACTION,denied_actions,4,7,h"#,
                "\r\n"
            )
        );
        let kernel = of_line(br#"{"id":"k","verdict":"no_rule","seq":8}"#).unwrap();
        assert_eq!(kernel, "k,,,,,,,,,,,no_rule,,,8,\r\n");
        assert!(of_line(b"garbage").is_err());
    }

    #[test]
    fn quotes_commas_and_line_breaks_stay_within_their_cell() {
        for (given, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\nb", "\"a\nb\""),
            ("a\r\nb", "\"a\r\nb\""),
            (" a ", " a "),
        ] {
            assert_eq!(quoted(given.to_owned()), expected);
        }
    }

    #[test]
    fn no_cell_is_a_formula_and_numbers_stay_numbers() {
        for formula in ["=1+1", "+1+1", "-1-1", "@SUM(A1)", "\t=1", "\r=1", "-", "+inf", "-nan", "=", "-1e"] {
            assert_eq!(harmless(formula.to_owned()), format!("'{formula}"));
        }
        for harmless_one in ["", "1", "-1", "-1.5e-7", "+3", "a=b", "{}", "'=1"] {
            assert_eq!(harmless(harmless_one.to_owned()), harmless_one);
        }
    }
}
