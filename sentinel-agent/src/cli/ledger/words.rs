//! A ledger line as a person reads it.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::terminal::visible;

/// Of a line's particulars: number, time, session, what, how it went, and what only lines of its kind have.
pub(super) fn in_words(line: &Value) -> String {
    let text = |key: &str| line.get(key).and_then(Value::as_str).map(visible).unwrap_or_default();
    let number = |key: &str| line.get(key).and_then(Value::as_f64).filter(|number| *number != 0.0);
    let seq = line.get("seq").and_then(Value::as_u64).unwrap_or(0);
    let session = if text("session").is_empty() { "-".to_owned() } else { text("session") };
    let mut words = format!("{seq:>6}  {}  {session:<10} {}", text("timestamp"), text("action"));
    let mut add = |word: &str| {
        if !word.is_empty() {
            let _infallible = write!(words, "  {word}");
        }
    };
    if text("outcome") != "recorded" {
        add(&text("outcome"));
    }
    add(&text("target"));
    if !text("process").is_empty() {
        let pid = line.get("pid").and_then(Value::as_u64).unwrap_or(0);
        add(&format!("by {} (pid {pid})", text("process")));
    }
    add(&text("fate"));
    add(&text("verdict"));
    if let Some(code) = line.get("reason").and_then(|reason| reason.get("code")).and_then(Value::as_str) {
        add(&visible(code));
    }
    if let Some(reserved) = number("reserved_usd") {
        add(&format!("reserved {reserved} USD"));
    }
    if let Some(cost) = number("cost_usd") {
        add(&format!("{cost} USD"));
    }
    if let Some(count) = line.get("count").and_then(Value::as_u64).filter(|count| *count > 1) {
        add(&format!("x{count}"));
    }
    words.push('\n');
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_in_words_and_never_raw() {
        let told = |line: &str| in_words(&sentinel_authority::particulars(line.as_bytes()).unwrap());
        let action = r#"{"timestamp":"t","action":"fetch\u001b[2J","cost_usd":0.01,"outcome":"success","kind":"action","session":"s1","seq":7}"#;
        assert_eq!(told(action), "     7  t  s1         fetch\\u{1b}[2J  success  0.01 USD\n");
        let kernel = r#"{"timestamp":"t","action":"kernel.connect","cost_usd":0,"outcome":"recorded","kind":"kernel","session":"s1","target":"192.0.2.1:443/tcp","verdict":"no_rule","fate":"refused","process":"curl","pid":9,"count":3,"seq":8}"#;
        assert_eq!(
            told(kernel),
            "     8  t  s1         kernel.connect  192.0.2.1:443/tcp  by curl (pid 9)  refused  no_rule  x3\n"
        );
    }
}
