//! Looks after the history of the cluster, as `src/runtime/replica/lineage` and
//! `src/k8s/incarnation` do: a replica that finds the log replaced ends, and the one
//! that is started in its place reads everything anew under another name of the
//! history. Only worlds in which that can happen do this, so that others are played
//! as fast as before.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_core::delivery::Notice;
use flotilla_core::ids::{Frontier, GatewayId, Kind, Revision};
use flotilla_core::time::Mono;

use super::requests::{Ask, Found};
use crate::api::Refusal;
use crate::clock::SECONDS;
use crate::world::{Occurrence, World};

/// How often the Lease is read, and how many reads come before a write.
const READ_EVERY: u64 = 5 * SECONDS;
const READS_PER_WRITE: u32 = 12;
/// For how long a replica may stand still without wondering what happened meanwhile.
pub const STANDSTILL: Duration = Duration::from_secs(10);
/// A replica may lag behind a gateway for this long without anybody wondering.
const LAG: u64 = 2 * SECONDS;

/// The Lease of the history: its name and its own revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Its name.
    pub id: u32,
    /// The Lease's revision.
    pub revision: u64,
}

/// A question about the history.
#[derive(Debug, Clone)]
pub enum Question {
    /// What the Lease says.
    Read,
    /// What it says after having been renewed, unless it is older than it was, and why
    /// that is asked.
    Confirm(Doubt, Seen),
    /// A new name for the history, unless the Lease has moved from this revision.
    Begin(u64),
}

/// What had been seen when something was asked.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The Lease's revision.
    pub lease: u64,
    /// How far the log was read.
    log: u64,
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
    /// The process stood still for a while.
    StoodStill,
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
        Some(Lineage { known: self.api.confirm_history(), until_write, ahead: BTreeSet::new() })
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
        let Some(lineage) = &process.lineage else { return };
        let frontier = process.engine.frontier();
        let log = Kind::ALL.into_iter().map(|kind| frontier.get(kind).0).max().unwrap_or_default();
        let seen = Seen { lease: lineage.known.revision, log };
        self.ask(slot, Ask::History(Question::Confirm(doubt, seen)));
    }

    /// Delivery noticed something.
    pub(crate) fn noticed(&mut self, slot: usize, notice: Notice) {
        let Some(process) = self.slots[slot].process.as_ref().filter(|p| p.lineage.is_some()) else { return };
        let life = process.life;
        match notice {
            Notice::OtherHistory { .. } => self.doubt(slot, Doubt::OtherHistory),
            Notice::StoodStill { .. } => self.doubt(slot, Doubt::StoodStill),
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
        // What could not be looked at is looked at again before long.
        let Ok(Found::History(found)) = answer else { return };
        let Some(process) = &mut self.slots[slot].process else { return };
        let Some(lineage) = &mut process.lineage else { return };
        let before = lineage.known;
        let (doubt, seen) = match question {
            Question::Begin(_) => return self.history_is_replaced(slot),
            Question::Read => {
                return match found {
                    None => self.doubt(slot, Doubt::Due),
                    // Named anew by somebody else.
                    Some(found) if found.id > before.id => self.history_is_replaced(slot),
                    // An old answer, or an old Lease: only of the latter this is
                    // the present revision.
                    Some(found) if found.revision < before.revision => {
                        self.ask(slot, Ask::History(Question::Begin(found.revision)));
                    }
                    Some(found) if found.id != before.id => self.history_is_replaced(slot),
                    Some(found) => lineage.known = found,
                };
            }
            Question::Confirm(doubt, seen) => (doubt, seen),
        };
        let Some(found) = found else { return };
        if found.id != before.id {
            return self.history_is_replaced(slot);
        }
        if found.revision < seen.lease.max(seen.log) {
            return self.ask(slot, Ask::History(Question::Begin(found.revision)));
        }
        lineage.known.revision = before.revision.max(found.revision);
        match doubt {
            Doubt::Due => {}
            Doubt::OtherHistory | Doubt::StoodStill => {
                process.engine.confirmed(sent_at);
                self.set_timer(slot);
            }
            Doubt::Behind(seen) => {
                if found.revision < seen {
                    self.ask(slot, Ask::History(Question::Begin(found.revision)));
                }
            }
            Doubt::Ahead(gateway, high) => {
                let refuted = |kind: &Kind| found.revision < high.get(*kind).0;
                let Some(kind) = Kind::ALL.into_iter().find(refuted) else { return };
                lineage.ahead.insert(gateway);
                let (proven, all) = (lineage.ahead.len(), process.engine.session_count());
                if proven > 1 && proven * 2 >= all {
                    return self.ask(slot, Ask::History(Question::Begin(found.revision)));
                }
                process.engine.beyond_the_log(sent_at, kind, Revision(found.revision));
                self.set_timer(slot);
            }
        }
    }

    /// All that the process knows follows from a log that is no more: it ends.
    fn history_is_replaced(&mut self, slot: usize) {
        self.witness.tell(self.now, || format!("r{slot} finds the history replaced"));
        let back = self.slots[slot].dice.between(200, 5_000) as u32;
        self.end_process(slot, back);
    }
}
