//! What a decorator was told of its action, so that it needn't be told with every call.

use pyo3::prelude::*;

use crate::client::Wish;

/// What a decorator was told of its action.
#[pyclass(frozen, module = "agent_sentinel._native")]
#[derive(Debug)]
pub(crate) struct Declared {
    action: String,
    cost_usd: f64,
    tags: Vec<String>,
    risk_level: Option<String>,
    approval_seconds: Option<f64>,
    needs_approval: bool,
}

#[pymethods]
impl Declared {
    #[new]
    #[pyo3(signature = (action, cost_usd, tags, risk_level, approval_seconds, needs_approval))]
    fn new(
        action: String,
        cost_usd: f64,
        tags: Vec<String>,
        risk_level: Option<String>,
        approval_seconds: Option<f64>,
        needs_approval: bool,
    ) -> Self {
        Self { action, cost_usd, tags, risk_level, approval_seconds, needs_approval }
    }
}

impl Declared {
    /// One call of it. `inputs` is JSON text.
    pub(crate) fn wish<'python>(
        &'python self,
        inputs: &'python str,
        annotations: Option<&'python str>,
    ) -> Wish<'python> {
        Wish {
            action: &self.action,
            cost_usd: self.cost_usd,
            tags: &self.tags,
            inputs,
            risk_level: self.risk_level.as_deref(),
            approval_seconds: self.approval_seconds,
            needs_approval: self.needs_approval,
            annotations,
        }
    }
}
