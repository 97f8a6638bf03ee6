//! An [`Enforcer`] without a kernel, for the tests of what drives it: keeps what it is told, fails when asked to.
//!
//! Invariant: like the real one, a call that fails has changed nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use sentinel_engine::{GrantSet, Opening, Policy, ScopeId};
use sentinel_proto::examination::{Examination, Hold, Proof, Row};
use sentinel_proto::{HostName, SessionId};

use super::{Enforcement, Enforcer, EnforcerError, FirstImage, KernelRecord, Mark, Tier, ToldAddress};

/// One call of a method that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    StartSession { session: SessionId, cgroup_id: u64, user: u32 },
    BindCgroup { session: SessionId },
    Enrol { session: SessionId, tgid: u32, first: FirstImage },
    EnrolRunning { session: SessionId, tgid: u32 },
    PutScopeInFront { tgid: u32, scope: ScopeId },
    SetDoors { session: SessionId, scope: ScopeId, open: GrantSet, until: Duration },
    SetBaselineNetwork { session: SessionId, open: bool },
    AdoptSession { session: SessionId, cgroup_id: u64 },
    PrepareRules { session: SessionId, user: u32 },
    CommitRules { session: SessionId },
    DiscardRules { session: SessionId },
    LetResolve { port: Option<NonZeroU16> },
    OpenName { session: SessionId, name: HostName, addresses: Vec<ToldAddress> },
    StopSession { session: SessionId },
    Beat { now: Duration },
}

#[derive(Debug, Default)]
struct Recorded {
    calls: Vec<Call>,
    fail_at: Option<usize>,
    marks: BTreeMap<u32, Mark>,
    doors: BTreeMap<ScopeId, (SessionId, GrantSet, Duration)>,
    baseline: BTreeMap<SessionId, bool>,
    records: VecDeque<KernelRecord>,
    dropped: u64,
    failure: Option<String>,
}

/// Clones share what was recorded: keep one, hand the other to the driver.
#[derive(Clone, Debug)]
pub(crate) struct RecordingEnforcer {
    enforcement: Enforcement,
    recorded: Rc<RefCell<Recorded>>,
}

impl Default for RecordingEnforcer {
    fn default() -> Self {
        let enforcement = Enforcement { tier: Tier::Kill, proven: true };
        Self { enforcement, recorded: Rc::default() }
    }
}

impl RecordingEnforcer {
    /// What was called, heartbeats left out: those come with time.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let recorded = self.recorded.borrow();
        recorded.calls.iter().filter(|call| !matches!(call, Call::Beat { .. })).cloned().collect()
    }

    /// When the heartbeat was last written.
    pub(crate) fn last_beat(&self) -> Option<Duration> {
        let recorded = self.recorded.borrow();
        recorded
            .calls
            .iter()
            .rev()
            .find_map(|call| if let Call::Beat { now } = call { Some(*now) } else { None })
    }

    /// The call after the next `calls` ones fails, once. Calls that only read are not counted.
    pub(crate) fn fail_after(&self, calls: usize) {
        let mut recorded = self.recorded.borrow_mut();
        let at = recorded.calls.len() + calls;
        recorded.fail_at = Some(at);
    }

    /// Gives a process a mark, as enrolment or a fork would.
    pub(crate) fn set_mark(&self, tgid: u32, mark: Mark) {
        self.recorded.borrow_mut().marks.insert(tgid, mark);
    }

    /// Takes a process's mark, as its end would.
    pub(crate) fn forget_mark(&self, tgid: u32) {
        self.recorded.borrow_mut().marks.remove(&tgid);
    }

    /// What is open for a scope, and until when.
    pub(crate) fn doors(&self, scope: ScopeId) -> (GrantSet, Duration) {
        let recorded = self.recorded.borrow();
        recorded
            .doors
            .get(&scope)
            .map_or((GrantSet::EMPTY, Duration::ZERO), |(_, open, until)| (*open, *until))
    }

    /// Whether a session's baseline network is open.
    pub(crate) fn baseline_network(&self, session: SessionId) -> bool {
        self.recorded.borrow().baseline.get(&session).copied().unwrap_or(false)
    }

    /// Reports a denial, as a hook would.
    pub(crate) fn report(&self, record: KernelRecord) {
        self.recorded.borrow_mut().records.push_back(record);
    }

    /// Counts records as lost.
    pub(crate) fn drop_records(&self, count: u64) {
        self.recorded.borrow_mut().dropped += count;
    }

    /// From now on an examination finds this wrong.
    pub(crate) fn fail_examinations(&self, failure: Option<&str>) {
        self.recorded.borrow_mut().failure = failure.map(str::to_owned);
    }

    fn call(&self, call: Call) -> Result<std::cell::RefMut<'_, Recorded>, EnforcerError> {
        let mut recorded = self.recorded.borrow_mut();
        let at = recorded.calls.len();
        recorded.calls.push(call);
        if recorded.fail_at == Some(at) {
            recorded.fail_at = None;
            return Err(EnforcerError::Map { map: "TEST", cause: "fails as the test asked".to_owned() });
        }
        Ok(recorded)
    }
}

fn no_mark(tgid: u32) -> EnforcerError {
    EnforcerError::Missing(format!("process {tgid} is in no session"))
}

impl Enforcer for RecordingEnforcer {
    fn enforcement(&self) -> &Enforcement {
        &self.enforcement
    }

    fn start_session(
        &mut self,
        session: SessionId,
        cgroup_id: u64,
        _policy: &Policy,
        user: u32,
    ) -> Result<(), EnforcerError> {
        self.call(Call::StartSession { session, cgroup_id, user })?.baseline.insert(session, true);
        Ok(())
    }

    fn sessions(&self) -> Result<Vec<SessionId>, EnforcerError> {
        Ok(self.recorded.borrow().baseline.keys().copied().collect())
    }

    fn cgroup_of(&self, session: SessionId) -> Result<Option<u64>, EnforcerError> {
        let recorded = self.recorded.borrow();
        Ok(recorded.calls.iter().rev().find_map(|call| match call {
            Call::StartSession { session: of, cgroup_id, .. } if *of == session => Some(*cgroup_id),
            _ => None,
        }))
    }

    fn adopt_session(
        &mut self,
        session: SessionId,
        cgroup_id: u64,
        _is_same_policy: bool,
    ) -> Result<(), EnforcerError> {
        self.call(Call::AdoptSession { session, cgroup_id }).map(drop)
    }

    fn enrol(&mut self, session: SessionId, tgid: u32, first: FirstImage) -> Result<(), EnforcerError> {
        let mark = Mark { session, scopes: [None; 4], marked_at: Duration::ZERO };
        self.call(Call::Enrol { session, tgid, first })?.marks.insert(tgid, mark);
        Ok(())
    }

    fn bind_cgroup(&mut self, session: SessionId, _cgroup: &Path) -> Result<(), EnforcerError> {
        self.call(Call::BindCgroup { session }).map(drop)
    }

    fn enrol_running(&mut self, session: SessionId, tgid: u32) -> Result<(), EnforcerError> {
        let mark = Mark { session, scopes: [None; 4], marked_at: Duration::ZERO };
        self.call(Call::EnrolRunning { session, tgid })?.marks.insert(tgid, mark);
        Ok(())
    }

    fn marks(&self) -> Result<Vec<(u32, Mark)>, EnforcerError> {
        Ok(self.recorded.borrow().marks.iter().map(|(tgid, mark)| (*tgid, *mark)).collect())
    }

    fn mark(&self, tgid: u32) -> Result<Option<Mark>, EnforcerError> {
        Ok(self.recorded.borrow().marks.get(&tgid).copied())
    }

    fn forget_ended(&mut self, tgid: u32) -> Result<(), EnforcerError> {
        self.recorded.borrow_mut().marks.remove(&tgid);
        Ok(())
    }

    fn put_scope_in_front(&mut self, tgid: u32, scope: ScopeId) -> Result<(), EnforcerError> {
        let mut recorded = self.call(Call::PutScopeInFront { tgid, scope })?;
        let mark = recorded.marks.get_mut(&tgid).ok_or_else(|| no_mark(tgid))?;
        mark.scopes.rotate_right(1);
        mark.scopes[0] = Some(scope);
        Ok(())
    }

    fn set_doors(
        &mut self,
        session: SessionId,
        scope: ScopeId,
        open: GrantSet,
        until: Duration,
        _openings: &[Opening],
    ) -> Result<(), EnforcerError> {
        let mut recorded = self.call(Call::SetDoors { session, scope, open, until })?;
        if open.is_empty() {
            recorded.doors.remove(&scope);
        } else {
            recorded.doors.insert(scope, (session, open, until));
        }
        Ok(())
    }

    fn set_baseline_network(&mut self, session: SessionId, open: bool) -> Result<(), EnforcerError> {
        self.call(Call::SetBaselineNetwork { session, open })?.baseline.insert(session, open);
        Ok(())
    }

    fn prepare_rules(
        &mut self,
        session: SessionId,
        _policy: &Policy,
        user: u32,
    ) -> Result<(), EnforcerError> {
        self.call(Call::PrepareRules { session, user }).map(drop)
    }

    fn commit_rules(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        let mut recorded = self.call(Call::CommitRules { session })?;
        recorded.doors.retain(|_, (of, _, _)| *of != session);
        Ok(())
    }

    fn discard_rules(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        self.call(Call::DiscardRules { session }).map(drop)
    }

    fn stop_session(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        let mut recorded = self.call(Call::StopSession { session })?;
        recorded.marks.retain(|_, mark| mark.session != session);
        recorded.doors.retain(|_, (of, _, _)| *of != session);
        recorded.baseline.remove(&session);
        Ok(())
    }

    fn let_resolve(&mut self, port: Option<NonZeroU16>) -> Result<(), EnforcerError> {
        self.call(Call::LetResolve { port }).map(drop)
    }

    fn open_name(
        &mut self,
        session: SessionId,
        name: &HostName,
        addresses: &[ToldAddress],
    ) -> Result<(), EnforcerError> {
        let (name, addresses) = (name.clone(), addresses.to_vec());
        self.call(Call::OpenName { session, name, addresses }).map(drop)
    }

    fn sweep_names(&mut self) -> Result<(), EnforcerError> {
        Ok(())
    }

    fn names_of(&self, session: SessionId, address: IpAddr) -> Vec<HostName> {
        let recorded = self.recorded.borrow();
        let names = recorded.calls.iter().rev().filter_map(|call| match call {
            Call::OpenName { session: of, name, addresses } if *of == session => {
                addresses.iter().any(|told| told.address == address).then(|| name.clone())
            }
            _ => None,
        });
        names.collect()
    }

    fn beat(&mut self, now: Duration) -> Result<(), EnforcerError> {
        self.call(Call::Beat { now })?;
        Ok(())
    }

    fn examine(&mut self) -> Result<Examination, EnforcerError> {
        let failure = self.recorded.borrow().failure.clone();
        let proof = failure.map_or(Proof::Tried, Proof::Failed);
        let row = Row { what: "a connect".to_owned(), hold: Hold::DeniedBeforeExecution, proof };
        Ok(Examination { tier: "kill".to_owned(), rows: vec![row], ..Examination::default() })
    }

    fn drain_records(&mut self, records: &mut Vec<KernelRecord>, limit: usize) {
        let mut recorded = self.recorded.borrow_mut();
        let taken = recorded.records.len().min(limit);
        records.extend(recorded.records.drain(..taken));
    }

    fn dropped_records(&self) -> Result<u64, EnforcerError> {
        Ok(self.recorded.borrow().dropped)
    }
}
