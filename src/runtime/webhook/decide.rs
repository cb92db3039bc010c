//! Who decides whether an object may be admitted, and asking that one.
//!
//! Of n writes at the same moment, through as many replicas, one is admitted: all
//! replicas ask the owner of the namespace, which admits the first and reserves
//! what it claims until it shows up. It decides while it may act on the namespace, so
//! there are never two of them, whatever maps the replicas go by. Where matches are
//! compared over all namespaces, all ask the owner of one name.
//!
//! Admission must not wait for an owner that is away. Then all ask the same member
//! in its place, after a pause in which whatever the owner admitted last has shown
//! up there; that one asks the owner itself before it decides, for the line may be cut
//! only between the two that spoke first. For the same reason a member that has just
//! become the owner waits a moment before it decides. When nobody is reached, a replica
//! decides by itself; of what comes of that the oldest is delivered, as everywhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_core::ids::MemberName;
use flotilla_core::ring::Position;
use flotilla_grpc::clock::MonoClock;
use flotilla_grpc::peers::{AdmissionAnswer, AdmissionQuestion, AdmissionSource, Peers};
use flotilla_k8s::coordination::{ActingPermit, Handles, OwnershipView};
use futures::FutureExt as _;
use prometheus::IntCounterVec;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Known;

/// How long it may take until what one replica admitted has shown up at another:
/// the API server writes it in milliseconds, and watches are as fast.
const SHOWS_UP: Duration = Duration::from_secs(1);

/// How long one member may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// How long a member waits, of that, for its turn to decide.
const PATIENCE: Duration = Duration::from_millis(700);

/// How long a member that was not reached before may take to answer.
const ONCE_MORE: Duration = Duration::from_millis(300);

/// How long all of it may take; below what a request may take.
const ALL: Duration = Duration::from_secs(4);

/// Members that are asked besides the owner.
const STAND_INS: usize = 2;

/// Whose owner decides where matches are compared over all namespaces; no
/// namespace has such a name.
const EVERYWHERE: &str = "*";

/// Decides, together with the other replicas; clones are the same.
#[derive(Clone)]
pub struct Decider {
    known: Known,
    clock: MonoClock,
    /// `None`: there are no others.
    others: Option<Others>,
    decisions: IntCounterVec,
}

#[derive(Clone)]
struct Others {
    member: MemberName,
    peers: Peers,
    ownership: watch::Receiver<Arc<OwnershipView>>,
    permit: ActingPermit,
    handover: Arc<Mutex<Handover>>,
}

/// The present map, the one before, and since when this member acts by the one.
struct Handover {
    now: Arc<OwnershipView>,
    before: Arc<OwnershipView>,
    since: Instant,
    /// When somebody asked last and this member could not decide, by name: a stand-in
    /// may have.
    missed: BTreeMap<Arc<str>, Instant>,
}

/// Whether a member may decide.
enum Turn {
    /// From this moment on, unless something changes before.
    From(Instant),
    /// Not before something changes.
    Later,
    /// It is for another one, if this member knows of any.
    Another(Option<MemberName>),
}

impl Handover {
    fn note(&mut self, view: &Arc<OwnershipView>) {
        if (view.epoch(), view.acting()) == (self.now.epoch(), self.now.acting()) {
            return;
        }
        let former = std::mem::replace(&mut self.now, view.clone());
        // Of maps that follow each other at once the first counts: whoever owned
        // something in it may have decided a moment ago.
        if former.epoch() != view.epoch() && self.since.elapsed() >= SHOWS_UP {
            self.before = former;
        }
        self.since = Instant::now();
    }

    /// When whatever others admitted before this member became the owner has shown up.
    fn settled(&self, name: &str) -> Instant {
        let same = self.before.owner(name) == self.now.owner(name);
        let settled = if same { self.since } else { self.since + SHOWS_UP };
        self.missed.get(name).map_or(settled, |at| settled.max(*at + SHOWS_UP))
    }

    fn miss(&mut self, name: &str) {
        self.missed.retain(|_, at| at.elapsed() < SHOWS_UP);
        self.missed.insert(name.into(), Instant::now());
    }
}

/// Names by which decisions are counted.
pub(super) const BY: [&str; 3] = ["owner", "stand_in", "alone"];

impl Decider {
    /// Decides without asking anybody.
    pub fn alone(known: Known, decisions: IntCounterVec) -> Self {
        Decider { known, clock: MonoClock::start(), others: None, decisions }
    }

    /// Decides together with the others of a fleet.
    pub fn among(self, member: MemberName, peers: Peers, handles: &Handles) -> Self {
        let (ownership, permit) = (handles.ownership.clone(), handles.permit.clone());
        let now = ownership.borrow().clone();
        let handover = Handover { before: now.clone(), now, since: Instant::now(), missed: BTreeMap::new() };
        let handover = Arc::new(Mutex::new(handover));
        Decider { others: Some(Others { member, peers, ownership, permit, handover }), ..self }
    }

    /// Takes note of every map as soon as it is there, until cancelled.
    pub async fn follow(self, cancel: CancellationToken) {
        if let Some(Others { mut ownership, handover, .. }) = self.others {
            loop {
                let view = ownership.borrow_and_update().clone();
                handover.lock().unwrap_or_else(PoisonError::into_inner).note(&view);
                tokio::select! {
                    () = cancel.cancelled() => return,
                    changed = ownership.changed() => if changed.is_err() { break },
                }
            }
        }
        cancel.cancelled().await;
    }

    /// What answers the questions of other members.
    pub fn source(&self) -> AdmissionSource {
        let decider = self.clone();
        Arc::new(move |question| {
            let decider = decider.clone();
            async move { decider.answer(&question).await }.boxed()
        })
    }

    /// Until when all that one object asks has to be decided.
    pub(super) fn deadline() -> Instant {
        Instant::now() + ALL
    }

    /// Whether an object may be admitted; from the deadline on alone.
    pub(super) async fn ask(&self, question: AdmissionQuestion, deadline: Instant) -> AdmissionAnswer {
        let Some(others) = &self.others else { return self.by_itself(&question) };
        if question.claims.len() > AdmissionQuestion::MOST_CLAIMS {
            // Nobody takes a question of this size; what comes of it is settled by age.
            self.decisions.with_label_values(&["alone"]).inc();
            return self.by_itself(&AdmissionQuestion { reserve: false, ..question });
        }
        match timeout_at(deadline, self.ask_others(others, question.clone())).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => {
                self.decisions.with_label_values(&["alone"]).inc();
                tracing::warn!(kind = question.kind.name(), namespace = %question.key.namespace,
                    name = %question.key.name, "nobody decides about an admission, deciding alone");
                self.by_itself(&question)
            }
        }
    }

    async fn ask_others(&self, others: &Others, mut question: AdmissionQuestion) -> Option<AdmissionAnswer> {
        let name = self.decided_by(&question);
        if let Some(answer) = self.put_to_owner(others, &name, &question, ANSWER).await? {
            return Some(answer);
        }
        sleep(SHOWS_UP).await;
        // By now another one may own it, or the same one be there again.
        if let Some(answer) = self.put_to_owner(others, &name, &question, ONCE_MORE).await? {
            return Some(answer);
        }
        question.stand_in = true;
        let view = others.ownership.borrow().clone();
        for member in stand_ins(&view.members(), view.owner(&name)?, &name) {
            if let Some(answer) = self.put_to(others, &member, &question, ANSWER).await {
                self.decisions.with_label_values(&["stand_in"]).inc();
                return Some(answer);
            }
        }
        None
    }

    /// What the owner decides, if it does; `None` when nobody owns the name.
    async fn put_to_owner(
        &self,
        others: &Others,
        name: &str,
        question: &AdmissionQuestion,
        patience: Duration,
    ) -> Option<Option<AdmissionAnswer>> {
        let owner = others.owner(name)?;
        let answer = self.put_to(others, &owner, question, patience).await;
        if answer.is_some() {
            self.decisions.with_label_values(&["owner"]).inc();
        }
        Some(answer)
    }

    /// What a member decides, if it does, or the one that it names.
    async fn put_to(
        &self,
        others: &Others,
        member: &MemberName,
        question: &AdmissionQuestion,
        patience: Duration,
    ) -> Option<AdmissionAnswer> {
        let mut answer = self.put_once(others, member, question, patience).await?;
        if let AdmissionAnswer::AskAnother(Some(other)) = &answer
            && other != member
        {
            // Its map is newer than ours.
            answer = self.put_once(others, other, question, patience).await?;
        }
        Some(answer).filter(is_decision)
    }

    async fn put_once(
        &self,
        others: &Others,
        member: &MemberName,
        question: &AdmissionQuestion,
        patience: Duration,
    ) -> Option<AdmissionAnswer> {
        if *member == others.member {
            return timeout(patience, self.answer(question)).await.ok();
        }
        match others.peers.admit(member, question, patience).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(%member, %error, "a member did not decide about an admission");
                None
            }
        }
    }

    /// Answers as the member that is asked.
    async fn answer(&self, question: &AdmissionQuestion) -> AdmissionAnswer {
        let Some(others) = &self.others else { return self.by_itself(question) };
        let name = self.decided_by(question);
        if question.stand_in {
            return match others.ask_owner(&name, question).await {
                Some(answer) => answer,
                None => self.by_itself(question),
            };
        }
        let deadline = Instant::now() + PATIENCE;
        let mut ownership = others.ownership.clone();
        loop {
            let view = ownership.borrow_and_update().clone();
            match others.turn(&name, &view) {
                Turn::Another(other) => return AdmissionAnswer::AskAnother(other),
                Turn::From(at) if at <= Instant::now() => return self.by_itself(question),
                Turn::From(at) if at <= deadline => sleep_until(at).await,
                Turn::From(_) => return AdmissionAnswer::NotReady,
                Turn::Later => match timeout_at(deadline, ownership.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return AdmissionAnswer::NotReady,
                },
            }
        }
    }

    fn by_itself(&self, question: &AdmissionQuestion) -> AdmissionAnswer {
        self.known.decide(self.clock.now(), question)
    }

    /// The name whose owner decides.
    fn decided_by(&self, question: &AdmissionQuestion) -> Arc<str> {
        if self.known.is_cluster_wide() { EVERYWHERE.into() } else { question.key.namespace.clone() }
    }
}

impl Others {
    fn owner(&self, name: &str) -> Option<MemberName> {
        self.ownership.borrow().owner(name).cloned()
    }

    /// Whether this member may decide by a view of the ownership.
    fn turn(&self, name: &str, view: &Arc<OwnershipView>) -> Turn {
        let mut handover = self.handover.lock().unwrap_or_else(PoisonError::into_inner);
        handover.note(view);
        match view.owner(name) {
            Some(owner) if *owner == self.member => {
                if self.permit.may_act(name) {
                    return Turn::From(handover.settled(name));
                }
                handover.miss(name);
                Turn::Later
            }
            other => Turn::Another(other.cloned()),
        }
    }

    /// What the owner decides when this member is asked in its place.
    async fn ask_owner(&self, name: &str, question: &AdmissionQuestion) -> Option<AdmissionAnswer> {
        let owner = self.owner(name).filter(|owner| *owner != self.member)?;
        let question = AdmissionQuestion { stand_in: false, ..question.clone() };
        self.peers.admit(&owner, &question, ONCE_MORE).await.ok().filter(is_decision)
    }
}

fn is_decision(answer: &AdmissionAnswer) -> bool {
    matches!(answer, AdmissionAnswer::Free | AdmissionAnswer::Taken(_))
}

/// Who decides in the owner's place: for everybody with the same map the same, and
/// for every name others.
fn stand_ins(members: &[MemberName], owner: &MemberName, name: &str) -> Vec<MemberName> {
    let mut others: Vec<_> = members.iter().filter(|member| *member != owner).collect();
    others.sort_by_key(|member| Position::of(&format!("{name}/{member}")));
    others.into_iter().take(STAND_INS).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_agree_on_who_stands_in_and_no_member_does_for_everybody() {
        let members: Vec<MemberName> = ["a", "b", "c", "d"].map(MemberName::from).to_vec();
        let backwards: Vec<MemberName> = members.iter().rev().cloned().collect();
        let mut first = std::collections::BTreeSet::new();
        for number in 0..20 {
            let name = format!("team-{number}");
            let found = stand_ins(&members, &members[0], &name);
            assert_eq!(found, stand_ins(&backwards, &members[0], &name));
            assert!(found.len() == STAND_INS && !found.contains(&members[0]));
            first.insert(found[0].clone());
        }
        assert_eq!(first.len(), 3);
    }
}
