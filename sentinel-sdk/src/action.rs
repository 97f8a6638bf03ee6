//! An action that is to be begun.

use std::time::Duration;

use sentinel_proto::app::{Answer, Begin, Reply, Request};
use sentinel_proto::{
    ActionId, ActionName, Annotations, Decision, Denial, Money, Payload, Reason, RiskLevel, Tag,
};
use serde::Serialize;

use crate::approval::{self, Word};
use crate::client::{Client, Link};
#[cfg(feature = "embedded")]
use crate::embedded::Embedded;
use crate::error::Error;
use crate::guard::{AsyncGuard, Guard, InFlight};
use crate::pool::{LinkError, Waiting, finish};
use crate::record;
use crate::trace::ActionSpan;

/// An action that is to be begun, for what `#[guarded_action]` can't say: a cost or a tag that is known only when
/// the program runs.
///
/// # Examples
/// ```no_run
/// # fn search(query: &str) -> Vec<String> { vec![query.to_owned()] }
/// # fn main() -> Result<(), sentinel_sdk::Error> {
/// # let query = "ferris";
/// let mut guard = sentinel_sdk::action("search_web").cost_usd(0.001 * query.len() as f64).tag("search").begin_blocking()?;
/// let found = search(query);
/// guard.actual_cost_usd(0.0005 * found.len() as f64)?;
/// guard.success(&found);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an action does nothing until it is begun"]
pub struct Action {
    client: Client,
    name: String,
    cost: Money,
    tags: Vec<String>,
    risk_level: Option<String>,
    needs_approval: bool,
    inputs: Payload,
    annotations: Annotations,
    /// The longest to wait for a human's word; none: as long as the policy lets it.
    approval_patience: Option<Duration>,
    /// The first mistake in what was declared. It denies the action.
    mistake: Option<String>,
}

impl Action {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self {
            client,
            name,
            cost: Money::ZERO,
            tags: Vec::new(),
            risk_level: None,
            needs_approval: false,
            inputs: Payload::null(),
            annotations: Annotations::default(),
            approval_patience: None,
            mistake: None,
        }
    }

    /// What it is expected to cost, in US dollars. The policy may charge more, never less. Not a number, or a negative
    /// one, denies the action.
    pub fn cost_usd(self, dollars: f64) -> Self {
        match Money::from_dollars(dollars) {
            Ok(cost) => self.cost(cost),
            Err(error) => self.mistaken(error.to_string()),
        }
    }

    /// What it is expected to cost.
    pub fn cost(mut self, cost: Money) -> Self {
        self.cost = cost;
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// How risky it is: a word that the policy may ask a human about. Upper and lower case are alike.
    pub fn risk_level(mut self, level: impl Into<String>) -> Self {
        self.risk_level = Some(level.into());
        self
    }

    /// Wants a human's word first, whatever the policy says: one that its `approvals.approvers` names, else any operator.
    pub fn needs_approval(mut self) -> Self {
        self.needs_approval = true;
        self
    }

    /// How long to wait for a human's word, where the policy wants one; otherwise as long as the policy lets it wait. After that the wish is
    /// withdrawn, and the action denied. Zero: it is denied at once, and the wish stays for who asks again.
    pub fn wait_for_approval(mut self, patience: Duration) -> Self {
        self.approval_patience = Some(patience);
        self
    }

    /// What it is called with, for the ledger. Beyond 64 KiB of JSON only the beginning and a digest are kept.
    pub fn inputs<T: Serialize + ?Sized>(self, inputs: &T) -> Self {
        self.recorded_inputs(record::payload(inputs))
    }

    /// What it is called with, as JSON text that somebody else has made. What is no JSON is kept as a text.
    pub fn inputs_json(self, json: &str) -> Self {
        self.recorded_inputs(record::bounded(json))
    }

    pub(crate) fn recorded_inputs(mut self, inputs: Payload) -> Self {
        self.inputs = inputs;
        self
    }

    /// What else is to be recorded of it: whose it is, and what it was begun in.
    pub fn annotations(mut self, annotations: Annotations) -> Self {
        self.annotations = annotations;
        self
    }

    pub(crate) fn mistaken(mut self, mistake: String) -> Self {
        self.mistake.get_or_insert(mistake);
        self
    }

    /// Asks whether it may run. It runs from now on, until the guard says how it ended.
    ///
    /// Where the policy wants a human's word, it waits for that; see [`Action::wait_for_approval`]. A program that is started anew and asks for the
    /// same action finds the same wish, and so does one whose agent was.
    ///
    /// Waits in its task on a tokio runtime, which must drive I/O and time; elsewhere its thread is blocked.
    /// Dropping the future before it is done takes back what the agent may have allowed meanwhile.
    ///
    /// # Errors
    /// It was denied, or the agent doesn't answer: it must not run.
    ///
    /// # Panics
    /// In tokio, on a runtime that doesn't drive I/O or time.
    pub async fn begin(self) -> Result<AsyncGuard, Error> {
        self.ask_in_span(Waiting::of_caller()).await.map(AsyncGuard::new)
    }

    /// [`Action::begin`] for code that isn't async.
    ///
    /// # Errors
    /// As there.
    pub fn begin_blocking(self) -> Result<Guard, Error> {
        finish(self.ask_in_span(Waiting::InThread)).map(Guard::new)
    }

    async fn ask_in_span(self, waiting: Waiting) -> Result<InFlight, Error> {
        #[cfg(feature = "embedded")]
        crate::replay::refuse(&self.name)?;
        let span = ActionSpan::of(&self.name);
        span.told(self.ask(waiting).await)
    }

    /// [`Action::begin_blocking`], without waiting for anybody. None: something has to be waited for, and nothing has begun. So it always is where a
    /// host agent decides.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn begin_at_once(self) -> Option<Result<Guard, Error>> {
        self.begin_by(Embedded::answer_at_once)
    }

    /// [`Action::begin_blocking`] in embedded mode, where another process is waited for at most some such time. None: it had its turn all the time, and
    /// nothing has begun. So it always is where a host agent decides.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn begin_within(self, patience: Duration) -> Option<Result<Guard, Error>> {
        self.begin_by(|embedded, request| embedded.answer_within(request, patience))
    }

    #[cfg(feature = "embedded")]
    fn begin_by(
        self,
        answer: impl FnOnce(&Embedded, Request) -> Option<Reply>,
    ) -> Option<Result<Guard, Error>> {
        let client = self.client.clone();
        let embedded = client.as_embedded()?;
        if let Err(error) = crate::replay::refuse(&self.name) {
            return Some(Err(error));
        }
        let span = ActionSpan::of(&self.name);
        let begun = match self.checked() {
            Ok(Checked { name, begin, approval_patience }) => {
                let reply = answer(embedded, Request::Begin(begin))?;
                match approval::wish_of(&reply) {
                    None => begun(&name, client, reply, None),
                    Some(wish) => {
                        let denial = approval::unwaited(approval_patience)?;
                        Err(Error::denied(&name, denial, client).of_wish(wish.id))
                    }
                }
            }
            Err(error) => Err(error),
        };
        Some(span.told(begun).map(Guard::new))
    }

    async fn ask(self, waiting: Waiting) -> Result<InFlight, Error> {
        let client = self.client.clone();
        let Checked { name, begin, approval_patience } = self.checked()?;
        let (reply, connection) = loop {
            let request = |request| Request::Begin(Begin { request, ..begin.clone() });
            let (reply, connection) = match client.ask(request, None, waiting).await {
                Ok(answered) => answered,
                Err(error) => return Err(Error::not_begun(&name, &error, client)),
            };
            let Some(wish) = approval::wish_of(&reply) else { break (reply, connection) };
            match approval::wait(&client, wish, approval_patience, waiting).await {
                Word::Yes => {}
                Word::No(denial) => return Err(Error::denied(&name, denial, client).of_wish(wish.id)),
            }
        };
        begun(&name, client, reply, connection)
    }

    /// What is to be asked. A mistake in what was declared denies the action.
    fn checked(self) -> Result<Checked, Error> {
        let Self {
            client,
            name,
            cost,
            tags,
            risk_level,
            needs_approval,
            inputs,
            annotations,
            approval_patience,
            mistake,
        } = self;
        let valid = match mistake {
            Some(mistake) => Err(mistake),
            None => named(&name, tags, risk_level),
        };
        let (action, tags, risk_level) = match valid {
            Ok(valid) => valid,
            Err(cause) => {
                let denial = Denial { reason: Reason::InvalidRequest { cause }, rule: None };
                return Err(Error::denied(&name, denial, client));
            }
        };
        let annotations = annotations.boxed();
        let begin = Begin {
            request: 0,
            action,
            cost_usd: cost,
            tags,
            risk_level,
            needs_approval,
            inputs,
            annotations,
        };
        Ok(Checked { name, begin, approval_patience })
    }
}

/// An action that may be asked for.
struct Checked {
    name: String,
    begin: Begin,
    approval_patience: Option<Duration>,
}

/// The action that an answer lets start.
fn begun(name: &str, client: Client, reply: Reply, connection: Link) -> Result<InFlight, Error> {
    let allows = matches!(&reply, Reply::Decision(answer) if answer.decision == Decision::Allow);
    match started(reply) {
        Ok(Started { id, has_doors }) => Ok(InFlight::new(client, connection, id, has_doors)),
        Err(denial) => {
            if allows {
                // It may have opened doors for an action that can't be ended.
                if let Some(connection) = &connection {
                    connection.shut();
                }
            }
            Err(Error::denied(name, denial, client))
        }
    }
}

/// An action that may run.
struct Started {
    id: ActionId,
    /// Whether its end is to be waited for.
    has_doors: bool,
}

fn named(
    name: &str,
    tags: Vec<String>,
    risk_level: Option<String>,
) -> Result<(ActionName, Vec<Tag>, Option<RiskLevel>), String> {
    let name = ActionName::new(name).map_err(|error| error.to_string())?;
    let tags: Result<Vec<Tag>, _> = tags.into_iter().map(Tag::new).collect();
    let risk_level = risk_level.map(RiskLevel::new).transpose();
    let risk_level = risk_level.map_err(|error| format!("of a risk level: {error}"))?;
    Ok((name, tags.map_err(|error| format!("of a tag: {error}"))?, risk_level))
}

/// Reads an answer. Anything but a plain *allow* denies.
fn started(reply: Reply) -> Result<Started, Denial> {
    let because = |reason| Denial { reason, rule: None };
    let unavailable = |cause: &str| because(Reason::AgentUnavailable { cause: cause.to_owned() });
    let answer = match reply {
        Reply::Decision(answer) => *answer,
        Reply::Refused(refused) => return Err(because(LinkError::Refused(refused).reason())),
        Reply::Welcome(_) | Reply::Ended(_) | Reply::Denials(_) | Reply::Totals(_) | Reply::Approval(_) => {
            return Err(because(LinkError::Unexpected.reason()));
        }
    };
    match answer {
        Answer { decision: Decision::Allow, action_id: Some(id), acknowledge_end, denial: None, .. } => {
            Ok(Started { id, has_doors: acknowledge_end })
        }
        Answer { decision: Decision::Allow, .. } => {
            Err(unavailable("its answer makes no sense: it allows, but not one action"))
        }
        Answer { denial: Some(denial), .. } => Err(denial),
        Answer { decision: Decision::Pending, .. } => {
            Err(unavailable("it wants a human to decide, but doesn't say which wish that is"))
        }
        Answer { decision: Decision::Deny, .. } => Err(unavailable("it denied without a reason")),
    }
}
