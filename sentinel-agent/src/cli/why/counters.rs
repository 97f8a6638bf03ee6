//! What a session had spent and done up to a line of the ledger.

use std::collections::BTreeMap;

use sentinel_proto::Money;
use serde_json::Value;

use super::string;

/// The counters of all sessions, up to the line that was counted last.
#[derive(Debug, Default)]
pub(super) struct Counters(BTreeMap<u64, OfSession>);

#[derive(Debug, Default)]
struct OfSession {
    spent: Money,
    allowed: u64,
    denied: u64,
    kernel_denials: u64,
}

fn money(line: &Value, key: &str) -> Money {
    let dollars = line.get(key).and_then(Value::as_f64);
    dollars.and_then(|dollars| Money::from_dollars(dollars).ok()).unwrap_or_default()
}

impl Counters {
    pub(super) fn count(&mut self, line: &Value) {
        let Some(id) = line.get("session_id").and_then(Value::as_u64) else { return };
        let session = self.0.entry(id).or_default();
        match (string(line, "kind"), string(line, "outcome")) {
            ("action", "started" | "warned") => {}
            ("action", "blocked") => session.denied = session.denied.saturating_add(1),
            ("action", "corrected") => {
                let before = money(line, "reserved_usd");
                session.spent =
                    session.spent.saturating_sub(before).saturating_add(money(line, "charged_usd"));
            }
            ("action", _) => {
                session.allowed = session.allowed.saturating_add(1);
                session.spent = session.spent.saturating_add(money(line, "cost_usd"));
            }
            ("kernel", _) => {
                let count = line.get("count").and_then(Value::as_u64).unwrap_or(1);
                session.kernel_denials = session.kernel_denials.saturating_add(count);
            }
            _ => {}
        }
    }

    /// Those of the line's session, in words.
    pub(super) fn of(&self, line: &Value) -> String {
        let id = line.get("session_id").and_then(Value::as_u64);
        let Some(session) = id.and_then(|id| self.0.get(&id)) else { return "no counters".to_owned() };
        format!(
            "by then spent {} USD; {} allowed, {} denied, {} refused by the kernel",
            session.spent, session.allowed, session.denied, session.kernel_denials
        )
    }
}
