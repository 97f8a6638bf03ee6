//! What the engine makes of an action in a fresh session.

use sentinel_engine::{
    ActionRequest, Approver, Event, Fact, Now, Operator, Policy, ScopeId, State, Wish, decide,
};
use sentinel_proto::{ActionId, ApprovalId, Denial, Money, Payload, SessionId};
use uuid::Uuid;

use super::ExplainArguments;

/// What the engine says becomes of the action.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// What it is charged.
    pub(super) cost: Money,
    pub(super) denial: Option<Denial>,
    pub(super) wish: Option<Wish>,
    /// Rules that it breaks and starts in spite of, once approved if need be.
    pub(super) warnings: Vec<Denial>,
}

pub(super) fn course(policy: &Policy, arguments: &ExplainArguments, now: Now) -> Course {
    let mut state = State::new();
    let session = state.next_session();
    let start = Event::SessionStart {
        session,
        name: None,
        policy: String::new(),
        policy_sha256: String::new(),
        command: Vec::new(),
        uid: 0,
        tier: String::new(),
    };
    let mut course = Course::default();
    let mut events = vec![begin(session, arguments), start];
    while let Some(event) = events.pop() {
        for fact in decide(Some(policy), &state, &event, now) {
            state.apply(&fact, now);
            match fact {
                Fact::ActionStarted { reserved, .. } => course.cost = reserved,
                Fact::ActionDenied { denial, cost, .. } => {
                    (course.denial, course.cost) = (Some(denial), cost);
                }
                Fact::ActionWarned { denial, .. } => course.warnings.push(denial),
                Fact::ApprovalRequested { wish } => {
                    // What comes after a human's yes is worth knowing too.
                    events = vec![begin(session, arguments), approve(policy, wish.approval_id)];
                    course.cost = wish.cost;
                    course.wish = Some(*wish);
                }
                _ => {}
            }
        }
    }
    course
}

fn begin(session: SessionId, arguments: &ExplainArguments) -> Event {
    Event::Begin(Box::new(ActionRequest {
        action_id: ActionId(Uuid::nil()),
        session,
        scope: ScopeId(1),
        action: arguments.action.clone(),
        cost: arguments.cost,
        tags: arguments.tags.clone(),
        risk: arguments.risk.clone(),
        needs_approval: false,
        approval_id: ApprovalId(Uuid::nil()),
        inputs: Payload::null(),
        annotations: None,
        pid: 0,
    }))
}

/// One of those who may says yes.
fn approve(policy: &Policy, approval_id: ApprovalId) -> Event {
    let approvers = policy.approvals.as_ref().and_then(|approvals| approvals.approvers.as_ref());
    let mut operator = Operator { uid: 0, user: None, groups: Vec::new() };
    match approvers.and_then(|approvers| approvers.first()) {
        Some(Approver::User(name)) => operator.user = Some(name.clone()),
        Some(Approver::Group(name)) => operator.groups.push(name.clone()),
        None => {}
    }
    Event::Approve { approval_id, operator, note: None, uses: None, seconds: None, up_to: None }
}
