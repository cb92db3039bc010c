//! What replicas tell each other, as `src/grpc/peers` does: every replica dials
//! every other one and speaks on the lines that it dialled. It tells state, not
//! history: a line that comes up is told the newest of everything.

use std::sync::Arc;

use flotilla_core::coordination::Event;
use flotilla_core::delivery::AppliedTable;
use flotilla_core::ids::{Epoch, GatewayId, Instance, MemberName, SessionId};
use flotilla_core::placement::LoadReport;

use super::serving::Acks;
use crate::clock::{MILLIS, SECONDS};
use crate::scenario::End;
use crate::statistics::Count;
use crate::world::{Occurrence, World};

/// Least time between two tables to one member.
const TABLES: u64 = 50 * MILLIS;
/// Shortest and longest pause between attempts to reach a member.
const PAUSE: (u64, u64) = (100 * MILLIS, 5 * SECONDS);
/// How long an attempt may take.
const DIAL: u64 = 5 * SECONDS;
/// After how long a silent connection is given up: a ping and its answer's time.
const SILENCE: u64 = 10 * SECONDS;

/// What is to be told, newest only.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    settled: Option<(Instance, Epoch)>,
    /// Who acts no more.
    pub departed: Option<Instance>,
    /// What the own namespaces weigh.
    pub loads: Option<Arc<LoadReport>>,
    /// The own gateways' table, and its number.
    pub table: Option<(u64, Arc<AppliedTable>)>,
}

impl Outbox {
    /// An older epoch that a slow member has not heard of yet is not told any more.
    pub fn settle(&mut self, instance: Instance, epoch: Epoch) {
        let known = self.settled.as_ref();
        if known.is_none_or(|(whose, last)| *whose != instance || epoch > *last) {
            self.settled = Some((instance, epoch));
        }
    }
}

/// A line that we dial.
#[derive(Debug, Default)]
pub struct Line {
    /// Whom the map names there; `None`: nobody.
    target: Option<Instance>,
    /// Its number: what was said of an earlier one does not concern it.
    number: u32,
    up: bool,
    /// Which process listens.
    listener: u32,
    pause: u64,
    began: u64,
    told: Outbox,
    table_at: u64,
    waiting: bool,
    /// When the last word arrives: words do not overtake each other.
    arrives: u64,
}

impl Line {
    /// Whether the other side has said Hello.
    pub fn is_up(&self) -> bool {
        self.up
    }
}

/// A line that another one dialled.
#[derive(Debug, Default)]
pub struct Heard {
    /// The speaker's process and its line's number, of the newest one.
    line: Option<(u32, u32)>,
}

/// One word of a line.
#[derive(Debug, Clone)]
pub enum Word {
    /// It is there; the highest epoch that it settled.
    Hello(Epoch),
    /// It acts by this epoch.
    Settled(Instance, Epoch),
    /// It acts no more.
    Departed(Instance),
    /// What its gateways have applied.
    Table(Arc<AppliedTable>),
    /// What its namespaces weigh.
    Loads(Arc<LoadReport>),
    /// Acknowledgements of sessions that may be ours.
    Acks(Arc<Acks>),
    /// A heartbeat of a session that may be ours.
    Heartbeat(SessionId, GatewayId, Arc<str>),
    /// The line has ended.
    Lost,
}

/// A word on its way.
#[derive(Debug)]
pub struct Speech {
    /// Which slot speaks, which process, on which of its lines.
    pub from: (usize, u32, u32),
    /// Which slot and process listens.
    pub to: (usize, u32),
    /// What is said.
    pub word: Word,
}

fn end(slot: usize) -> End {
    End::Replica(slot as u8)
}

impl World<'_> {
    /// The map lists other members: lines go to them and to nobody else.
    pub(crate) fn update_lines(&mut self, slot: usize) {
        for other in (0..self.slots.len()).filter(|other| *other != slot) {
            let Some(process) = &mut self.slots[slot].process else { return };
            let member = MemberName::from(format!("r{other}"));
            let wanted =
                process.shown.ownership.as_ref().and_then(|ownership| {
                    ownership.map().member(&member).map(|listed| listed.instance.clone())
                });
            if process.lines[other].target == wanted {
                continue;
            }
            process.lines[other].pause = PAUSE.0;
            process.lines[other].target = wanted.clone();
            self.hang_up(slot, other);
            if wanted.is_some() {
                self.dial(slot, other);
            }
        }
    }

    /// Ends our line; the other side is told.
    fn hang_up(&mut self, slot: usize, other: usize) {
        let Some(process) = &mut self.slots[slot].process else { return };
        let line = &mut process.lines[other];
        if line.up {
            line.up = false;
            self.say(slot, other, Word::Lost);
        }
        if let Some(process) = &mut self.slots[slot].process {
            process.lines[other].number += 1;
        }
    }

    fn dial(&mut self, slot: usize, other: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let life = process.life;
        let line = &mut process.lines[other];
        line.number += 1;
        line.began = now;
        let number = line.number;
        let disturbed = self.network.disturbed_until(now, end(slot), end(other)) > now;
        let deaf = self.slots[other].process.as_ref().is_some_and(|peer| peer.paused_until > now + DIAL);
        let after = if disturbed || deaf { DIAL } else { 2 * self.latency(slot) };
        self.queue.push(now + after, Occurrence::Dialled { slot, life, other, number });
    }

    /// An attempt to reach another replica is over.
    pub(crate) fn dialled(&mut self, slot: usize, other: usize, number: u32) {
        let now = self.now;
        let reachable = self.network.disturbed_until(now, end(slot), end(other)) <= now;
        let history = |slot: usize| Some(self.slots[slot].process.as_ref()?.lineage.as_ref()?.name());
        // Who reads another history is not listened to.
        let same = history(slot) == history(other);
        let peer = self.slots[other].process.as_ref().map(|peer| (peer.life, peer.paused_until));
        let Some(process) = &mut self.slots[slot].process else { return };
        let line = &mut process.lines[other];
        if line.number != number || line.target.is_none() {
            return;
        }
        match peer {
            Some((listener, paused_until)) if reachable && same && paused_until <= now => {
                line.up = true;
                line.listener = listener;
                line.told = Outbox::default();
                line.table_at = 0;
                line.arrives = now;
                let epoch = process.outbox.settled.as_ref().map_or(Epoch(0), |(_, epoch)| *epoch);
                self.say(slot, other, Word::Hello(epoch));
                self.speak_to(slot, other);
            }
            _ => self.dial_again(slot, other),
        }
    }

    /// Dials again after a pause.
    fn dial_again(&mut self, slot: usize, other: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let life = process.life;
        let line = &mut process.lines[other];
        if line.target.is_none() {
            return;
        }
        line.up = false;
        line.number += 1;
        if now.saturating_sub(line.began) > PAUSE.1 {
            line.pause = PAUSE.0;
        }
        let number = line.number;
        let pause = line.pause;
        line.pause = (line.pause * 2).min(PAUSE.1);
        let pause = self.slots[slot].dice.between(pause / 2, pause * 3 / 2);
        self.queue.push(now + pause, Occurrence::Dial { slot, life, other, number });
    }

    pub(crate) fn dial_now(&mut self, slot: usize, other: usize, number: u32) {
        let current = self.slots[slot].process.as_ref().is_some_and(|p| p.lines[other].number == number);
        if current {
            self.dial(slot, other);
        }
    }

    /// Tells everybody what is new.
    pub(crate) fn speak(&mut self, slot: usize) {
        for other in 0..self.slots.len() {
            self.speak_to(slot, other);
        }
    }

    pub(crate) fn speak_to(&mut self, slot: usize, other: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let life = process.life;
        let line = &mut process.lines[other];
        if !line.up {
            return;
        }
        let outbox = &process.outbox;
        let mut words = Vec::new();
        if let Some((instance, epoch)) = &outbox.settled
            && line.told.settled != outbox.settled
        {
            line.told.settled.clone_from(&outbox.settled);
            words.push(Word::Settled(instance.clone(), *epoch));
        }
        if let Some((number, table)) = &outbox.table
            && line.told.table.as_ref().is_none_or(|(told, _)| told != number)
        {
            if line.table_at <= now {
                line.told.table.clone_from(&outbox.table);
                line.table_at = now + TABLES;
                words.push(Word::Table(table.clone()));
            } else if !line.waiting {
                line.waiting = true;
                self.queue.push(line.table_at, Occurrence::Speak { slot, life, other });
            }
        }
        if let Some(loads) = &outbox.loads
            && !line.told.loads.as_ref().is_some_and(|told| Arc::ptr_eq(told, loads))
        {
            line.told.loads.clone_from(&outbox.loads);
            words.push(Word::Loads(loads.clone()));
        }
        if let Some(instance) = &outbox.departed
            && line.told.departed != outbox.departed
        {
            line.told.departed.clone_from(&outbox.departed);
            words.push(Word::Departed(instance.clone()));
        }
        for word in words {
            self.say(slot, other, word);
        }
    }

    /// A table's time has come.
    pub(crate) fn speak_later(&mut self, slot: usize, other: usize) {
        if let Some(process) = &mut self.slots[slot].process {
            process.lines[other].waiting = false;
            self.speak_to(slot, other);
        }
    }

    /// Passes something on to all peers. Returns whether there are any.
    pub(crate) fn forward(&mut self, slot: usize, word: impl Fn() -> Word) -> bool {
        let mut handed = false;
        for other in 0..self.slots.len() {
            let up = self.slots[slot].process.as_ref().is_some_and(|p| p.lines[other].up);
            if up {
                handed = true;
                self.say(slot, other, word());
            }
        }
        handed
    }

    fn say(&mut self, slot: usize, other: usize, word: Word) {
        let now = self.now;
        let cut = self.network.cut_until(now, end(slot), end(other));
        if cut > now + SILENCE {
            // It is lost with the line, which is about to break.
            return;
        }
        let way = self.latency(slot);
        let unreliable = if self.calm { 0 } else { self.scenario.weather.unreliable_words };
        let announcement = matches!(word, Word::Settled(..) | Word::Departed(_));
        let dice = &mut self.slots[slot].dice;
        // Only announcements may find no room; the Leases carry the same news.
        if announcement && dice.ppm(unreliable / 2) {
            return;
        }
        let again = announcement && dice.ppm(unreliable / 2);
        let Some(process) = &mut self.slots[slot].process else { return };
        let line = &mut process.lines[other];
        line.arrives = line.arrives.max(cut.max(now) + way);
        let (arrives, from, to) = (line.arrives, (slot, process.life, line.number), (other, line.listener));
        self.stats.count(Count::Words);
        if again {
            let speech = Speech { from, to, word: word.clone() };
            self.queue.push(arrives, Occurrence::Speech(Box::new(speech)));
        }
        self.queue.push(arrives, Occurrence::Speech(Box::new(Speech { from, to, word })));
    }

    /// A word arrives.
    pub(crate) fn hear(&mut self, speech: Speech) {
        let now = self.now;
        let Speech { from: (other, speaker, number), to: (slot, _), word } = speech;
        let member = MemberName::from(format!("r{other}"));
        let Some(process) = &mut self.slots[slot].process else { return };
        let heard = &mut process.heard[other].line;
        if let Word::Hello(_) = word {
            // A newer stream of the same member takes over.
            if heard.is_none_or(|known| known <= (speaker, number)) {
                *heard = Some((speaker, number));
            }
        }
        if *heard != Some((speaker, number)) {
            return;
        }
        match word {
            Word::Hello(highest) => {
                let local = process.local(now);
                process.applied.doubted(local, &member);
                self.coordinate(slot, Event::PeerHello { highest });
            }
            Word::Settled(instance, epoch) => {
                self.coordinate(slot, Event::PeerSettled { instance, epoch });
            }
            Word::Departed(instance) => self.coordinate(slot, Event::PeerDeparted { instance }),
            Word::Table(table) => {
                process.applied.set(&member, table.clone());
                process.report.wanted = true;
                self.hear_places(slot, &table);
                self.set_timer(slot);
            }
            Word::Loads(report) => self.coordinate(slot, Event::Loads { member, report }),
            Word::Acks(acks) => {
                let acks = Acks {
                    gateway: acks.gateway,
                    session: acks.session.clone(),
                    wire: acks.wire.clone(),
                    messages: acks.messages.clone(),
                    others: acks.others.clone(),
                    took: acks.took,
                    forward: false,
                };
                self.acks_arrive(slot, acks);
            }
            Word::Heartbeat(session, gateway, version) => {
                self.heartbeat_arrives(slot, session, gateway, version, false);
            }
            Word::Lost => {
                let local = process.local(now);
                process.applied.lost(local, &member);
                process.report.wanted = true;
                self.set_timer(slot);
            }
        }
    }

    /// The way between two replicas is disturbed: if that lasts, their lines break.
    pub(crate) fn watch_lines(&mut self, one: usize, other: usize) {
        let at = self.now + SILENCE;
        self.queue.push(at, Occurrence::LineSilent { one, other });
    }

    /// It has lasted, or it has not.
    pub(crate) fn line_silent(&mut self, one: usize, other: usize) {
        let now = self.now;
        let paused = |world: &World, slot: usize| {
            world.slots[slot].process.as_ref().is_some_and(|p| p.paused_until > now)
        };
        let disturbed = self.network.disturbed_until(now, end(one), end(other)) > now;
        if !disturbed && !paused(self, one) && !paused(self, other) {
            return;
        }
        for (speaker, listener) in [(one, other), (other, one)] {
            let up = self.slots[speaker].process.as_ref().is_some_and(|p| p.lines[listener].up);
            if up {
                self.line_broken(speaker, listener);
            }
        }
    }

    /// A line breaks without a word. Both sides notice.
    pub(crate) fn line_broken(&mut self, slot: usize, other: usize) {
        let now = self.now;
        let Some(process) = &self.slots[slot].process else { return };
        let line = &process.lines[other];
        let from = (slot, process.life, line.number);
        let to = (other, line.listener);
        let after = self.latency(slot);
        let speech = Speech { from, to, word: Word::Lost };
        self.queue.push(now + after, Occurrence::Speech(Box::new(speech)));
        self.dial_again(slot, other);
    }

    /// A process is gone: its lines end on both sides.
    pub(crate) fn lines_end(&mut self, slot: usize, life: u32, lines: &[Line]) {
        let now = self.now;
        for (other, line) in lines.iter().enumerate().filter(|(_, line)| line.up) {
            let speech =
                Speech { from: (slot, life, line.number), to: (other, line.listener), word: Word::Lost };
            let after = self.latency(slot);
            self.queue.push(now + after, Occurrence::Speech(Box::new(speech)));
        }
        for other in 0..self.slots.len() {
            let speaks = self.slots[other]
                .process
                .as_ref()
                .is_some_and(|p| p.lines[slot].up && p.lines[slot].listener == life);
            if speaks {
                self.dial_again(other, slot);
            }
        }
    }
}
