//! What the Python package `agent_sentinel` is built on: the blocking client, and the authority in the process.
//!
//! Invariant: whatever goes wrong is a Python exception with a text of ours, never a panic's; and nothing waits for others while it holds the
//! interpreter's lock.

mod client;
mod declared;
mod guard;
mod json;
mod recording;
mod refusal;

use pyo3::prelude::*;

/// What a ledger line tells of an intervention, as JSON; none where it tells of something else.
#[pyfunction]
fn intervention(line: &[u8]) -> PyResult<Option<String>> {
    let told = sentinel_sdk::embedded::intervention(line);
    let told = told.map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
    Ok(told.and_then(|told| serde_json::to_string(&told).ok()))
}

/// The compiled half of the package.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<client::Client>()?;
    module.add_class::<declared::Declared>()?;
    module.add_class::<guard::Guard>()?;
    module.add_class::<recording::Recording>()?;
    module.add_function(wrap_pyfunction!(intervention, module)?)?;
    module.add_function(wrap_pyfunction!(json::json, module)?)?;
    module.add_function(wrap_pyfunction!(json::json_of_call, module)?)?;
    module.add("Diverged", module.py().get_type::<recording::Diverged>())?;
    module.add("Refused", module.py().get_type::<refusal::Refused>())?;
    Ok(())
}
