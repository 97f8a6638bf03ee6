//! The client as Python calls it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use sentinel_proto::{ActionName, Annotations, ApprovalId, Money, Outcome, Payload, Tag};
use sentinel_sdk::Error;
use sentinel_sdk::embedded::{Embedded, EmbeddedPolicy, Record};

use crate::declared::Declared;
use crate::guard::Guard;
use crate::json::json_of_call;
use crate::refusal::{Refused, denied, invalid, refused, refused_by_agent};

/// While a human or another process is waited for, Ctrl-C is answered after so long.
const SIGNALS_ARE_LOOKED_FOR: Duration = Duration::from_millis(50);

/// A way to whoever decides.
#[pyclass(frozen, module = "agent_sentinel._native")]
#[derive(Debug)]
pub(crate) struct Client(sentinel_sdk::Client);

/// Session and run total, their limits.
type Totals = (f64, f64, Option<f64>, Option<f64>);
/// Session and run total, and by each action how often it was started and what it cost.
type Snapshot = (f64, f64, BTreeMap<String, (u64, f64)>);
/// `(id, attempt, fate, would_allow)`.
type KernelDenial = (String, String, String, Option<String>);

impl Client {
    fn as_embedded(&self) -> PyResult<&Embedded> {
        self.0
            .as_embedded()
            .ok_or_else(|| invalid("only embedded mode has that; here the host agent decides"))
    }

    fn at_once(&self, wish: &Wish<'_>) -> PyResult<Option<Begun>> {
        if self.0.as_embedded().is_none() {
            return Ok(None);
        }
        Ok(wish.of(&self.0)?.begin_at_once())
    }

    /// Begins it without waiting, or else, where it `waits`, without the interpreter's lock: to give that away and take it again costs as much as
    /// the decision. None: something would have to be waited for.
    fn begun(&self, py: Python<'_>, wish: &Wish<'_>, waits: bool) -> PyResult<Option<sentinel_sdk::Guard>> {
        let begun = match self.at_once(wish)? {
            None if !waits => return Ok(None),
            None => wish.begin(py, &self.0)?,
            Some(begun) => begun,
        };
        begun.map(Some).map_err(|error| refused(&error))
    }

    /// Begins it, and then lets the agent, where there is one, have its say. Whom the program itself wants to ask is its own account's business; the
    /// operator's policy says whom the agent asks. What the agent doesn't let start is recorded as an action that never ran.
    fn begun_with(&self, py: Python<'_>, wish: Wish<'_>, agent: Option<&Bound<'_, Self>>) -> PyResult<Guard> {
        // This process waits for nobody outside of it unless that was declared.
        let own_patience = Some(wish.approval_seconds.unwrap_or(0.0));
        let own = self.begun(py, &Wish { approval_seconds: own_patience, ..wish }, true)?;
        let own = own.ok_or_else(|| invalid("it was waited for in vain"))?;
        match agent {
            None => Ok(Guard::new(own)),
            Some(agent) => agent.get().agreed(py, wish, own),
        }
    }

    /// The same action, once this agent lets it start too.
    fn agreed(&self, py: Python<'_>, wish: Wish<'_>, own: sentinel_sdk::Guard) -> PyResult<Guard> {
        let wish = Wish { needs_approval: false, ..wish };
        let refused = match wish.begin(py, &self.0) {
            Ok(Ok(agents)) => return Ok(Guard::of_both(own, agents)),
            Ok(Err(error)) => refused_by_agent(&error),
            Err(interrupted) => interrupted,
        };
        let cause = refused.value(py).getattr("args").and_then(|args| args.get_item(1));
        let cause = cause.map_or_else(|_no_text| refused.to_string(), |text| text.to_string());
        py.detach(|| own.withdraw(&cause));
        Err(refused)
    }
}

type Begun = Result<sentinel_sdk::Guard, sentinel_sdk::Error>;

/// An action that is to be begun.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'python> {
    pub(crate) action: &'python str,
    pub(crate) cost_usd: f64,
    pub(crate) tags: &'python [String],
    pub(crate) inputs: &'python str,
    pub(crate) risk_level: Option<&'python str>,
    pub(crate) approval_seconds: Option<f64>,
    pub(crate) needs_approval: bool,
    pub(crate) annotations: Option<&'python str>,
}

impl Wish<'_> {
    fn of(&self, client: &sentinel_sdk::Client) -> PyResult<sentinel_sdk::Action> {
        let mut asked = client.action(self.action).cost_usd(self.cost_usd).inputs_json(self.inputs);
        if let Some(annotations) = annotations(self.annotations)? {
            asked = asked.annotations(annotations);
        }
        for tag in self.tags {
            asked = asked.tag(tag);
        }
        if let Some(level) = self.risk_level {
            asked = asked.risk_level(level);
        }
        if self.needs_approval {
            asked = asked.needs_approval();
        }
        Ok(match self.patience()? {
            Some(patience) => asked.wait_for_approval(patience),
            None => asked,
        })
    }

    fn patience(&self) -> PyResult<Option<Duration>> {
        let patience = self.approval_seconds.map(Duration::try_from_secs_f64).transpose();
        patience.map_err(|error| invalid(&format!("an approval can't be waited for: {error}")))
    }

    /// Blocks, and gives the interpreter's lock away meanwhile. While a human is waited for, Ctrl-C ends the wait.
    fn begin(&self, py: Python<'_>, client: &sentinel_sdk::Client) -> PyResult<Begun> {
        let patience = self.patience()?;
        let until = patience.and_then(|patience| Instant::now().checked_add(patience));
        loop {
            let error = match self.begin_unapproved(py, client)? {
                Err(error) if error.reason_code() == Some("APPROVAL_NEEDED") => error,
                begun => return Ok(begun),
            };
            if patience == Some(Duration::ZERO) || error.approval().is_none() {
                return Ok(Err(error));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if let Err(no) = word_on(py, error, left)? {
                return Ok(Err(no));
            }
        }
    }
}

impl Wish<'_> {
    /// The same, where no human is waited for. While another process has the turn, Ctrl-C ends the wait.
    fn begin_unapproved(&self, py: Python<'_>, client: &sentinel_sdk::Client) -> PyResult<Begun> {
        loop {
            let asked = self.of(client)?.wait_for_approval(Duration::ZERO);
            if client.as_embedded().is_none() {
                return Ok(py.detach(|| asked.begin_blocking()));
            }
            match py.detach(|| asked.begin_within(SIGNALS_ARE_LOOKED_FOR)) {
                Some(begun) => return Ok(begun),
                None => py.check_signals()?,
            }
        }
    }
}

/// Waits for a human in a thread of its own, so that signals are answered here.
fn word_on(py: Python<'_>, error: Error, patience: Option<Duration>) -> PyResult<Result<(), Error>> {
    let (tell, mut told) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("sentinel-approval".to_owned()).spawn(move || {
        // Maybe nobody listens any more.
        drop(tell.send(error.await_approval_blocking(patience)));
    })?;
    loop {
        let answer;
        (answer, told) = py.detach(move || (told.recv_timeout(SIGNALS_ARE_LOOKED_FOR), told));
        match answer {
            Ok(word) => return Ok(word),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(invalid("its wait for an approval broke off"));
            }
        }
    }
}

#[pymethods]
impl Client {
    /// The host agent that listens there.
    #[staticmethod]
    fn host(socket: String) -> Self {
        Self(sentinel_sdk::Client::new(socket))
    }

    /// The authority in this process, with its ledger in that folder.
    #[staticmethod]
    fn embedded(home: String) -> Self {
        Self(sentinel_sdk::Client::embedded(Embedded::new(Path::new(&home))))
    }

    /// `host` or `embedded`.
    #[getter]
    fn mode(&self) -> &'static str {
        if self.0.as_embedded().is_some() { "embedded" } else { "host" }
    }

    /// The ledger's file in embedded mode, the socket in host mode.
    #[getter]
    fn place(&self) -> String {
        self.0.socket().display().to_string()
    }

    /// Lets an action start: here, and where an agent decides too, there. `inputs` is JSON text.
    #[pyo3(signature = (declared, inputs, annotations=None, agent=None))]
    fn begin(
        &self,
        py: Python<'_>,
        declared: &Declared,
        inputs: &str,
        annotations: Option<&str>,
        agent: Option<&Bound<'_, Self>>,
    ) -> PyResult<Guard> {
        self.begun_with(py, declared.wish(inputs, annotations), agent)
    }

    /// Lets an action start that its own process has let start. Where it doesn't, it is recorded there as one that never ran.
    #[pyo3(signature = (own, declared, inputs, annotations=None))]
    fn agree(
        &self,
        py: Python<'_>,
        own: &Bound<'_, Guard>,
        declared: &Declared,
        inputs: &str,
        annotations: Option<&str>,
    ) -> PyResult<Guard> {
        let own = own.get().take_own().ok_or_else(|| invalid("it has ended already"))?;
        self.agreed(py, declared.wish(inputs, annotations), own)
    }

    /// [`Client::begin`], if nothing and nobody has to be waited for. None: something has to, and nothing has begun.
    #[pyo3(signature = (declared, inputs, annotations=None))]
    fn begin_at_once(
        &self,
        py: Python<'_>,
        declared: &Declared,
        inputs: &str,
        annotations: Option<&str>,
    ) -> PyResult<Option<Guard>> {
        let wish = declared.wish(inputs, annotations);
        let own_patience = Some(wish.approval_seconds.unwrap_or(0.0));
        let begun = self.begun(py, &Wish { approval_seconds: own_patience, ..wish }, false)?;
        Ok(begun.map(Guard::new))
    }

    /// [`Client::begin`] with what a function is called with. None: something of that isn't plain; then its JSON is the package's to make.
    #[pyo3(signature = (declared, args, kwargs, annotations=None, agent=None))]
    fn begin_call(
        &self,
        py: Python<'_>,
        declared: &Declared,
        args: &Bound<'_, PyTuple>,
        kwargs: &Bound<'_, PyDict>,
        annotations: Option<&str>,
        agent: Option<&Bound<'_, Self>>,
    ) -> PyResult<Option<Guard>> {
        let Some(inputs) = json_of_call(args, kwargs) else { return Ok(None) };
        self.begun_with(py, declared.wish(&inputs, annotations), agent).map(Some)
    }

    /// The same, if nothing and nobody has to be waited for. None: something has to, or isn't plain, and nothing has begun.
    #[pyo3(signature = (declared, args, kwargs, annotations=None))]
    fn begin_call_at_once(
        &self,
        py: Python<'_>,
        declared: &Declared,
        args: &Bound<'_, PyTuple>,
        kwargs: &Bound<'_, PyDict>,
        annotations: Option<&str>,
    ) -> PyResult<Option<Guard>> {
        let Some(inputs) = json_of_call(args, kwargs) else { return Ok(None) };
        self.begin_at_once(py, declared, &inputs, annotations)
    }

    fn totals(&self, py: Python<'_>) -> PyResult<Totals> {
        let totals = py.detach(|| self.0.totals_blocking());
        totals.map(in_dollars).map_err(|error| refused(&error))
    }

    fn reset_run(&self, py: Python<'_>) -> PyResult<Totals> {
        let totals = py.detach(|| self.0.reset_run_blocking());
        totals.map(in_dollars).map_err(|error| refused(&error))
    }

    /// Decides by this policy from now on; none: by none, so that everything may start.
    #[pyo3(signature = (name, text))]
    fn set_policy(&self, name: &str, text: Option<&str>) -> PyResult<()> {
        let embedded = self.as_embedded()?;
        match text.map(|text| EmbeddedPolicy::parse(name, text)) {
            None => embedded.set_policy(EmbeddedPolicy::Unconfigured),
            Some(Ok(policy)) => embedded.set_policy(policy),
            // Its problems, each at its place: they are the whole message.
            Some(Err(error)) => return Err(Refused::new_err(("INVALID_POLICY", error.to_string(), "{}"))),
        }
        Ok(())
    }

    /// Lets nothing start from now on, and says why.
    fn fail_policy(&self, cause: String) -> PyResult<()> {
        self.as_embedded()?.set_policy(EmbeddedPolicy::Failed(cause));
        Ok(())
    }

    /// The policy in words that Python knows, as JSON; `null` where there is none.
    fn policy_summary(&self) -> PyResult<String> {
        Ok(self.as_embedded()?.policy().summary().to_string())
    }

    fn snapshot(&self, py: Python<'_>) -> PyResult<Snapshot> {
        let embedded = self.as_embedded()?;
        let snapshot = py.detach(|| embedded.snapshot()).map_err(|denial| denied(&denial))?;
        let actions = snapshot.actions.into_iter();
        let actions = actions.map(|(name, stats)| (name.to_string(), (stats.count, stats.cost.dollars())));
        Ok((snapshot.session.dollars(), snapshot.run.dollars(), actions.collect()))
    }

    /// Writes a line about something done elsewhere; answers its id.
    #[pyo3(signature = (action, cost_usd, outcome, tags, duration_ms, inputs, outputs, annotations=None))]
    #[expect(clippy::too_many_arguments, reason = "Python passes each by itself")]
    fn record(
        &self,
        py: Python<'_>,
        action: String,
        cost_usd: f64,
        outcome: &str,
        tags: Vec<String>,
        duration_ms: f64,
        inputs: &str,
        outputs: &str,
        annotations: Option<&str>,
    ) -> PyResult<String> {
        let embedded = self.as_embedded()?;
        let wrong = |what: &str, error: &dyn std::fmt::Display| invalid(&format!("of {what}: {error}"));
        let record = Record {
            action: ActionName::new(action).map_err(|error| wrong("the action", &error))?,
            cost: Money::from_dollars(cost_usd).map_err(|error| wrong("the cost", &error))?,
            outcome: match outcome {
                "success" => Outcome::Success,
                "error" => Outcome::Error,
                "cancelled" => Outcome::Cancelled,
                "replayed" => Outcome::Replayed,
                other => {
                    let known = "`success`, `error`, `cancelled` or `replayed`";
                    return Err(invalid(&format!(
                        "`{other}` is no outcome that can be recorded; write {known}"
                    )));
                }
            },
            tags: tags
                .into_iter()
                .map(Tag::new)
                .collect::<Result<_, _>>()
                .map_err(|error| wrong("a tag", &error))?,
            duration: Duration::try_from_secs_f64(duration_ms / 1_000.0)
                .map_err(|error| wrong("the duration", &error))?,
            inputs: payload(inputs),
            outputs: payload(outputs),
            annotations: self::annotations(annotations)?.and_then(Annotations::boxed),
        };
        let id = py.detach(|| embedded.record(record)).map_err(|denial| denied(&denial))?;
        Ok(id.to_string())
    }

    /// A human's word on an action that waits, in this process.
    #[pyo3(signature = (approval, approved, note=None))]
    fn decide_approval(
        &self,
        py: Python<'_>,
        approval: &str,
        approved: bool,
        note: Option<String>,
    ) -> PyResult<()> {
        let embedded = self.as_embedded()?;
        let id =
            approval.parse().map_err(|error| invalid(&format!("`{approval}` is no approval: {error}")))?;
        py.detach(|| embedded.decide_approval(ApprovalId(id), approved, note))
            .map_err(|denial| denied(&denial))
    }

    /// Gives the session its budgets back.
    fn reset_session(&self, py: Python<'_>) -> PyResult<()> {
        let embedded = self.as_embedded()?;
        py.detach(|| embedded.reset_session()).map_err(|denial| denied(&denial))
    }

    /// What the kernel refused to this process in the last so many seconds.
    fn kernel_denials(&self, py: Python<'_>, seconds: f64) -> PyResult<Vec<KernelDenial>> {
        let within = Duration::try_from_secs_f64(seconds).map_err(|error| invalid(&error.to_string()))?;
        let denials =
            py.detach(|| self.0.kernel_denials_blocking(within)).map_err(|error| refused(&error))?;
        Ok(denials.into_iter().map(|one| (one.id, one.attempt, one.fate, one.would_allow)).collect())
    }
}

fn in_dollars(totals: sentinel_sdk::Totals) -> Totals {
    (
        totals.session_usd.dollars(),
        totals.run_usd.dollars(),
        totals.session_limit_usd.map(Money::dollars),
        totals.run_limit_usd.map(Money::dollars),
    )
}

/// What else is to be recorded, as JSON.
pub(crate) fn annotations(json: Option<&str>) -> PyResult<Option<Annotations>> {
    json.map(serde_json::from_str)
        .transpose()
        .map_err(|error| invalid(&format!("what is said of the action: {error}")))
}

/// What the package wrote as JSON.
fn payload(json: &str) -> Payload {
    sentinel_sdk::payload_of_json(json)
}
