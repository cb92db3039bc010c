//! Looks after the history of the cluster, as `src/runtime/replica/lineage` and
//! `src/k8s/incarnation` do: a replica that finds the log replaced ends, and the one
//! that is started in its place reads everything anew under another name of the
//! history. Only worlds in which that can happen do this, so that others are played
//! as fast as before.

use std::collections::BTreeSet;

use flotilla_core::delivery::Notice;
use flotilla_core::ids::{Frontier, GatewayId, Kind, Revision};
use flotilla_core::lineage::{self, READS_PER_WRITE, Verdict};
use flotilla_core::time::Mono;

use super::requests::{Ask, Found};
use crate::api::Refusal;
use crate::world::{Occurrence, World};

const READ_EVERY: u64 = lineage::READ_EVERY.as_nanos() as u64;
const LAG: u64 = lineage::LAG.as_nanos() as u64;

/// The Lease of the history.
pub type History = lineage::History<u32>;

/// A question about the history.
#[derive(Debug, Clone)]
pub enum Question {
    /// What the Lease says.
    Read,
    /// What it says after having been renewed, with a mark where it is only time to, why
    /// that is asked, and how far the log was read by then.
    Confirm(Doubt, Revision),
    /// A new name for the history, unless the Lease has moved from this revision, the
    /// name that it had, and who gave rise to it by being ahead.
    Begin { at: Revision, ours: u32, ahead: Option<Box<(GatewayId, Frontier)>> },
}

/// Why the history is looked at.
#[derive(Debug, Clone)]
pub enum Doubt {
    /// It is time to.
    Due,
    /// The newest answer about a kind is older than this.
    Behind(u64),
    /// A gateway's version is ahead of us.
    Ahead(GatewayId, Frontier),
    /// A gateway's version names another history.
    OtherHistory,
    /// For a while nobody said which history is the cluster's.
    OutOfTouch,
}

/// What a process knows of the history.
#[derive(Debug)]
pub struct Lineage {
    known: History,
    until_write: u32,
    /// Gateways of which it is proven that they are ahead of the log.
    ahead: BTreeSet<GatewayId>,
}

impl Lineage {
    /// The name of the history, as versions have it.
    pub fn name(&self) -> String {
        format!("{:08x}", self.known.id)
    }
}

impl World<'_> {
    /// What a process has to know of the history before it starts; `None` as long as
    /// the API server does not answer.
    pub(crate) fn begin_lineage(&mut self, slot: usize) -> Option<Lineage> {
        if self.caches[self.slots[slot].cache].down_until > self.now {
            return None;
        }
        let until_write = self.slots[slot].dice.between(1, u64::from(READS_PER_WRITE)) as u32;
        Some(Lineage { known: self.api.confirm_history(true), until_write, ahead: BTreeSet::new() })
    }

    /// It is time to look.
    pub(crate) fn look_at_history(&mut self, slot: usize) {
        let Some(process) = &mut self.slots[slot].process else { return };
        let life = process.life;
        let Some(lineage) = &mut process.lineage else { return };
        lineage.until_write -= 1;
        let renews = lineage.until_write == 0;
        if renews {
            lineage.until_write = READS_PER_WRITE;
        }
        self.queue.push(self.now + READ_EVERY, Occurrence::LookAtHistory { slot, life });
        if renews {
            self.doubt(slot, Doubt::Due);
        } else {
            self.ask(slot, Ask::History(Question::Read));
        }
    }

    /// Something gives reason to look now.
    pub(crate) fn doubt(&mut self, slot: usize, doubt: Doubt) {
        let Some(process) = &self.slots[slot].process else { return };
        if process.lineage.is_none() {
            return;
        }
        let frontier = process.engine.frontier();
        let log = Kind::ALL.into_iter().map(|kind| frontier.get(kind)).max().unwrap_or_default();
        self.ask(slot, Ask::History(Question::Confirm(doubt, log)));
    }

    /// Delivery noticed something.
    pub(crate) fn noticed(&mut self, slot: usize, notice: Notice) {
        let Some(process) = self.slots[slot].process.as_ref().filter(|p| p.lineage.is_some()) else { return };
        let life = process.life;
        match notice {
            Notice::OtherHistory { .. } => self.doubt(slot, Doubt::OtherHistory),
            Notice::OutOfTouch { .. } => self.doubt(slot, Doubt::OutOfTouch),
            Notice::AheadOfUs { gateway, high } => {
                let ahead = Box::new((gateway, high));
                self.queue.push(self.now + LAG, Occurrence::Ahead { slot, life, ahead });
            }
            _ => {}
        }
    }

    /// A gateway was ahead of us a while ago: is it still?
    pub(crate) fn still_ahead(&mut self, slot: usize, gateway: GatewayId, high: Frontier) {
        let behind = self.slots[slot].process.as_ref().is_some_and(|p| !p.engine.frontier().reached(&high));
        if behind {
            self.doubt(slot, Doubt::Ahead(gateway, high));
        }
    }

    pub(crate) fn history_answered(
        &mut self,
        slot: usize,
        question: Question,
        sent_at: Mono,
        answer: Result<Found, Refusal>,
    ) {
        if self.witness.telling() {
            let words = format!("r{slot} asked {question:?} about the history: {answer:?}");
            self.witness.tell(self.now, || words);
        }
        let Some(process) = &mut self.slots[slot].process else { return };
        let Some(lineage) = &mut process.lineage else { return };
        let ahead = match &question {
            Question::Confirm(Doubt::Ahead(gateway, high), _) => Some(Box::new((gateway.clone(), *high))),
            Question::Begin { ahead, .. } => ahead.clone(),
            _ => None,
        };
        let Ok(Found::History(found)) = answer else {
            // What could not be looked at is looked at again before long.
            if let Some(ahead) = ahead.filter(|ahead| process.engine.session_of(&ahead.0).is_some()) {
                let life = process.life;
                self.queue.push(self.now + LAG, Occurrence::Ahead { slot, life, ahead });
            }
            return;
        };
        if matches!(question, Question::Begin { .. }) {
            return self.history_is_over(slot);
        }
        let Some(found) = found else { return self.doubt(slot, Doubt::Due) };
        let (ours, at) = (lineage.known.id, found.revision);
        let begin = Ask::History(Question::Begin { at, ours, ahead });
        match lineage.known.judge(&found, self.breakage) {
            Verdict::Same => lineage.known = found,
            Verdict::Renamed | Verdict::Untold => return self.history_is_over(slot),
            // An old answer, or an old Lease: only of the latter this is the present
            // revision.
            Verdict::WentBack => return self.ask(slot, begin),
        }
        let Question::Confirm(doubt, log) = question else {
            process.engine.in_touch(sent_at);
            return self.set_timer(slot);
        };
        if at < log {
            return self.ask(slot, begin);
        }
        match doubt {
            Doubt::Due | Doubt::OtherHistory | Doubt::OutOfTouch => {
                process.engine.confirmed(sent_at);
                self.set_timer(slot);
            }
            Doubt::Behind(seen) => {
                if at.0 < seen {
                    self.ask(slot, begin);
                }
            }
            Doubt::Ahead(gateway, high) => {
                let Some(kind) = Kind::ALL.into_iter().find(|kind| at < high.get(*kind)) else { return };
                lineage.ahead.insert(gateway);
                let (proven, all) = (lineage.ahead.len(), process.engine.session_count());
                if proven > 1 && proven * 2 >= all {
                    return self.ask(slot, begin);
                }
                process.engine.beyond_the_log(sent_at, kind, at);
                self.set_timer(slot);
            }
        }
    }

    /// All that the process knows follows from a log that is no more: it ends.
    fn history_is_over(&mut self, slot: usize) {
        self.witness.tell(self.now, || format!("r{slot} finds its history over"));
        let back = self.slots[slot].dice.between(200, 5_000) as u32;
        self.end_process(slot, back);
    }
}
