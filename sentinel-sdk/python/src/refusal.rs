//! A denial as a Python exception, which the package turns into those that its users know.

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use sentinel_proto::{BudgetScope, Denial, Reason};
use sentinel_sdk::Error;
use serde_json::{Value, json};

create_exception!(
    agent_sentinel._native,
    Refused,
    PyException,
    "An action was refused, or a question not answered."
);

/// `Refused(code, message, details)`, the details as JSON.
pub(crate) fn refused(error: &Error) -> PyErr {
    let approval = error.approval().map(|id| id.to_string());
    let code = error.reason_code().unwrap_or("POLICY_VIOLATION");
    Refused::new_err((code, error.to_string(), told(error.denial(), approval, &error.way_out()).to_string()))
}

/// The same for what the host agent says of an action that this process let start.
pub(crate) fn refused_by_agent(error: &Error) -> PyErr {
    let approval = error.approval().map(|id| id.to_string());
    let code = error.reason_code().unwrap_or("POLICY_VIOLATION");
    let mut details = told(error.denial(), approval, &error.way_out());
    details["decided_by"] = json!("host");
    Refused::new_err((code, error.to_string(), details.to_string()))
}

/// The same for what the authority in the process says.
pub(crate) fn denied(denial: &Denial) -> PyErr {
    let way_out = denial.reason.way_out();
    Refused::new_err((
        denial.reason.code(),
        denial.to_string(),
        told(Some(denial), None, &way_out).to_string(),
    ))
}

pub(crate) fn invalid(cause: &str) -> PyErr {
    denied(&Denial { reason: Reason::InvalidRequest { cause: cause.to_owned() }, rule: None })
}

fn told(denial: Option<&Denial>, approval: Option<String>, way_out: &str) -> Value {
    let mut details = json!({ "approval": approval, "way_out": way_out });
    let Some(denial) = denial else { return details };
    details["remediation"] = json!(denial.reason.remediation());
    details["reason"] = json!(denial.reason);
    if let Some(place) = &denial.rule {
        details["rule"] = json!(place);
    }
    if let Reason::BudgetExceeded { budget, spent, limit } = &denial.reason {
        let budget = match budget {
            BudgetScope::Session => "session",
            BudgetScope::Run => "run",
            BudgetScope::Day => "day",
            BudgetScope::Action => "action",
        };
        details["budget_type"] = json!(budget);
        details["spent"] = json!(spent);
        details["limit"] = json!(limit);
    }
    details
}
