//! A gateway's connection: it registers, opens its stream, takes updates one at a
//! time with an acknowledgement each, heartbeats, and comes back after 1, 3, 7, 15
//! and 31 s (wire section 2, points 1 to 8).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::delivery::{Connect, Scope};
use flotilla_core::ids::{GatewayId, SessionId};
use flotilla_observer::{Content, Event as Seen, NamespaceId, ObjectId, Removal, Subject};

use super::wire::{What, Wire};
use super::{Answer, Effect, Gateway};
use crate::clock::{MILLIS, SECONDS};
use crate::dice::Dice;
use crate::replica::serving::Acks;
use crate::scenario::{End, Fault, GatewayShape};
use crate::statistics::Count;
use crate::world::{Beat, Occurrence, World};

/// Heartbeats and what goes wrong with connections.
const HEARTBEAT: u64 = 30 * SECONDS;
const REGISTER_DEADLINE: u64 = 10 * SECONDS;
/// A frozen server is noticed after about so long.
const FROZEN: u64 = 13 * SECONDS;

/// Where a gateway is with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits, or registers.
    Away,
    /// Its stream is open.
    Streaming,
}

/// A batch that a gateway is reading.
#[derive(Debug)]
struct Incoming {
    wire: Arc<Wire>,
    next: usize,
    first_sequence: i64,
    arrives: u64,
}

/// One gateway with its connection.
pub struct Client {
    /// What it holds.
    pub model: Gateway,
    /// Who it is.
    pub id: GatewayId,
    /// Its own choices.
    pub dice: Dice,
    scope: Scope,
    shape: GatewayShape,
    namespaces: Vec<NamespaceId>,
    /// Where it is.
    pub phase: Phase,
    /// Number of its attempt or stream: what was said of an earlier one does not
    /// concern it.
    pub number: u32,
    /// The replica that it registered with, and its process.
    pub slot: usize,
    /// See [`Client::slot`].
    pub life: u32,
    session: SessionId,
    attempts: u32,
    inbox: VecDeque<Incoming>,
    reading: bool,
    arrives: u64,
    acks_arrive: u64,
    /// What it lost for a while, see [`World::is_passing`].
    hidden: BTreeSet<u32>,
    /// It reads nothing until then.
    pub stalled_until: u64,
    /// Its acknowledgements go to another replica until then.
    pub elsewhere_until: u64,
    /// It is going to break its connection off.
    pub hops: Option<Hops>,
}

/// When a gateway breaks its connection off.
#[derive(Debug, Clone, Copy)]
pub struct Hops {
    /// So many messages after it rejected one.
    pub after: u16,
    /// Whether it has.
    pub rejected: bool,
}

impl Hops {
    /// It took messages and rejected one of them or not. Returns whether it is time.
    fn are_due(&mut self, taken: usize, rejects: bool) -> bool {
        if self.rejected {
            self.after = self.after.saturating_sub(u16::try_from(taken).unwrap_or(u16::MAX));
        }
        self.rejected |= rejects;
        self.rejected && self.after == 0
    }
}

impl Client {
    /// A gateway that has just started.
    pub fn new(index: usize, shape: GatewayShape, model: Gateway, dice: Dice, names: &[Arc<str>]) -> Self {
        let chosen = || shape.namespaces.iter().filter(|index| usize::from(**index) < names.len());
        Client {
            model,
            id: GatewayId { namespace: "edge".into(), name: format!("g{index:04}").into() },
            dice,
            scope: Scope {
                namespaces: chosen().map(|index| names[usize::from(*index)].clone()).collect(),
                ..Scope::default()
            },
            namespaces: chosen().map(|index| NamespaceId(u32::from(*index))).collect(),
            shape,
            phase: Phase::Away,
            number: 0,
            slot: 0,
            life: 0,
            session: "".into(),
            attempts: 0,
            inbox: VecDeque::new(),
            reading: false,
            arrives: 0,
            acks_arrive: 0,
            hidden: BTreeSet::new(),
            stalled_until: 0,
            elsewhere_until: 0,
            hops: None,
        }
    }

    /// What a message costs it, in nanoseconds.
    fn cost(&self, what: &What) -> u64 {
        1_000
            * match what {
                What::Upsert(_) | What::Delete(_) => u64::from(self.shape.increment_us),
                What::Snapshot { list, .. } => u64::from(self.shape.resource_us) * list.len() as u64,
                What::Reset | What::Heartbeat => 0,
            }
    }
}

impl World<'_> {
    /// A gateway is to register after a while.
    fn register_later(&mut self, gateway: usize, after: u64) {
        let client = &mut self.clients[gateway];
        client.number += 1;
        let number = client.number;
        self.queue.push(self.now + after, Occurrence::Register { gateway, number });
    }

    /// A gateway's first registration, after its start.
    pub(crate) fn gateway_starts(&mut self, gateway: usize, after: u64) {
        self.clients[gateway].attempts = 0;
        self.register_later(gateway, after);
    }

    /// Waits of 1, 2, 4, 8, 16 and then 30 s.
    fn register_again(&mut self, gateway: usize) {
        let client = &mut self.clients[gateway];
        let wait = (SECONDS << client.attempts.min(10)).min(30 * SECONDS);
        client.attempts += 1;
        self.register_later(gateway, wait);
    }

    /// A gateway dials; a load balancer sends it to a replica.
    pub(crate) fn register(&mut self, gateway: usize) {
        let now = self.now;
        let client = &mut self.clients[gateway];
        client.number += 1;
        let number = client.number;
        // What it knows of readiness is a little old.
        let sloppy = !self.calm && client.dice.one_in(20);
        let ready: Vec<usize> = (0..self.slots.len())
            .filter(|slot| self.slots[*slot].process.as_ref().is_some_and(|p| sloppy || p.is_ready()))
            .collect();
        if ready.is_empty() {
            return self.register_again(gateway);
        }
        let slot = ready[self.clients[gateway].dice.index(ready.len())];
        let Some(process) = &self.slots[slot].process else { return };
        let (life, paused) = (process.life, process.paused_until);
        let disturbed = self.network.disturbed_until(now, end(slot), End::Gateway(gateway as u16));
        let unheard = disturbed.max(paused) > now + REGISTER_DEADLINE || disturbed > now;
        self.clients[gateway].slot = slot;
        self.clients[gateway].life = life;
        if unheard {
            self.queue.push(now + REGISTER_DEADLINE, Occurrence::NotRegistered { gateway, number });
        } else {
            let at = now + self.gateway_latency(gateway);
            let again = self.arrives_again(at);
            // It does not wait for ever.
            let first_only = again.is_none_or(|again| again >= now + REGISTER_DEADLINE);
            let heard = first_only || self.twice.one_in(2);
            self.queue.push(at, Occurrence::Registers { gateway, number, slot, life, heard });
            if let Some(again) = again {
                self.queue.push(again, Occurrence::Registers { gateway, number, slot, life, heard: !heard });
            }
        }
    }

    pub(crate) fn not_registered(&mut self, gateway: usize, number: u32) {
        if self.clients[gateway].number == number {
            self.register_again(gateway);
        }
    }

    /// A registration arrives at a process. Of one that arrives twice one answer is heard.
    pub(crate) fn registers(&mut self, gateway: usize, number: u32, slot: usize, life: u32, heard: bool) {
        let now = self.now;
        let alive = self.slots[slot].process.as_ref().is_some_and(|p| p.life == life);
        if !alive {
            if heard {
                self.not_registered(gateway, number);
            }
            return;
        }
        self.sessions += 1;
        let session = SessionId::from(format!("r{slot}/{}", self.sessions));
        let id = self.clients[gateway].id.clone();
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        process.engine.registered(local, session.clone(), id);
        self.set_timer(slot);
        let client = &mut self.clients[gateway];
        if client.number != number || !heard {
            return;
        }
        client.session = session;
        let at = now + self.gateway_latency(gateway);
        self.queue.push(at, Occurrence::Registered { gateway, number });
    }

    /// The answer to a registration reaches the gateway: it opens its stream.
    pub(crate) fn is_registered(&mut self, gateway: usize) {
        let now = self.now;
        let client = &mut self.clients[gateway];
        client.model.registered = now;
        client.attempts = 0;
        // Nobody waits for the answer any more.
        client.number += 1;
        let (number, slot, life) = (client.number, client.slot, client.life);
        let at = now + self.gateway_latency(gateway);
        self.queue.push(at, Occurrence::Opens { gateway, number, slot, life });
        self.queue.push(now + HEARTBEAT, Occurrence::Heartbeat { gateway, number });
    }

    /// A stream is opened at a process.
    pub(crate) fn opens(&mut self, gateway: usize, number: u32, slot: usize, life: u32) {
        let now = self.now;
        let alive = self.slots[slot].process.as_ref().is_some_and(|p| p.life == life);
        if !alive {
            return self.stream_lost(gateway, number);
        }
        let client = &mut self.clients[gateway];
        if client.number != number {
            return;
        }
        client.phase = Phase::Streaming;
        client.inbox.clear();
        client.reading = false;
        client.arrives = now;
        client.acks_arrive = now;
        let connect = Connect {
            session: client.session.clone(),
            gateway: client.id.clone(),
            scope: client.scope.clone(),
            last_version: client.model.version.to_string(),
            registered: None,
        };
        let Some(process) = &mut self.slots[slot].process else { return };
        if self.witness.telling() {
            let words = format!(
                "{} opens its stream at {} with {:?}",
                connect.gateway, process.instance, connect.last_version
            );
            self.witness.tell(now, || words);
        }
        let instance = self.witness.instance(process.instance.as_str());
        let seen = Seen::Connected {
            gateway: flotilla_observer::GatewayId(gateway as u32),
            instance,
            namespaces: &client.namespaces,
            kinds: 0,
        };
        self.witness.see(now, &seen);
        self.stats.count(Count::Connects);
        let local = process.local(now);
        let session = connect.session.clone();
        process.streams.insert(session, (gateway, number));
        process.engine.connected(local, connect);
        self.set_timer(slot);
    }

    /// A gateway has lost its stream.
    pub(crate) fn stream_lost(&mut self, gateway: usize, number: u32) {
        let client = &mut self.clients[gateway];
        if client.number != number {
            return;
        }
        if client.phase == Phase::Streaming {
            client.phase = Phase::Away;
            let gateway = flotilla_observer::GatewayId(gateway as u32);
            self.witness.see(self.now, &Seen::Disconnected { gateway });
        }
        self.clients[gateway].inbox.clear();
        self.register_again(gateway);
    }

    /// A process ends a gateway's stream with a status.
    pub(crate) fn end_stream(&mut self, slot: usize, gateway: usize, number: u32) {
        let cut = self.network.cut_until(self.now, end(slot), End::Gateway(gateway as u16));
        let at = cut.max(self.now) + self.gateway_latency(gateway);
        // It is not connected any more, and has not heard so yet.
        let subject = Subject::Gateway(flotilla_observer::GatewayId(gateway as u32));
        self.impaired_until(subject, at + 1);
        self.queue.push(at, Occurrence::StreamLost { gateway, number });
    }

    /// A gateway breaks its connection off. Its replica notices, or not yet.
    pub(crate) fn hop(&mut self, gateway: usize, restart: bool) {
        let now = self.now;
        let client = &mut self.clients[gateway];
        if restart {
            client.model.restart();
            client.attempts = 0;
            let gateway = flotilla_observer::GatewayId(gateway as u32);
            self.witness.see(now, &Seen::GatewayRestarted { gateway });
        }
        let (number, slot, life) = (client.number, client.slot, client.life);
        if client.phase == Phase::Streaming {
            self.unnoticed_end(gateway, slot, life);
            self.stream_lost(gateway, number);
        } else if restart {
            self.register_later(gateway, SECONDS);
        }
    }

    /// The replica hears of a stream's end later, if at all before the next one.
    fn unnoticed_end(&mut self, gateway: usize, slot: usize, life: u32) {
        let client = &mut self.clients[gateway];
        let session = client.session.clone();
        let after = if client.dice.one_in(4) { client.dice.below(40 * SECONDS) } else { MILLIS };
        self.queue.push(self.now + after, Occurrence::StreamGone { slot, life, session });
    }

    /// A process notices that a stream's client is gone.
    pub(crate) fn stream_gone(&mut self, slot: usize, session: &SessionId) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if process.streams.remove(session).is_some() {
            let local = process.local(now);
            process.engine.disconnected(local, session);
            self.set_timer(slot);
        }
    }

    /// The way to a gateway is disturbed, or its replica stands still: if that
    /// lasts, the gateway gives the connection up.
    pub(crate) fn watch_stream(&mut self, gateway: usize) {
        let number = self.clients[gateway].number;
        self.queue.push(self.now + FROZEN, Occurrence::StreamSilent { gateway, number });
    }

    pub(crate) fn stream_silent(&mut self, gateway: usize, number: u32) {
        let now = self.now;
        let client = &self.clients[gateway];
        if client.number != number || client.phase != Phase::Streaming {
            return;
        }
        let (slot, life) = (client.slot, client.life);
        let disturbed = self.network.disturbed_until(now, end(slot), End::Gateway(gateway as u16)) > now;
        let frozen = self.slots[slot].process.as_ref().is_none_or(|p| p.paused_until > now);
        if disturbed || frozen {
            self.unnoticed_end(gateway, slot, life);
            self.stream_lost(gateway, number);
        }
    }

    /// A process writes a batch to a stream.
    pub(crate) fn send_to_gateway(
        &mut self,
        slot: usize,
        gateway: usize,
        number: u32,
        wire: Arc<Wire>,
        first_sequence: i64,
    ) {
        let now = self.now;
        let cut = self.network.cut_until(now, end(slot), End::Gateway(gateway as u16));
        let arrives = cut.max(now) + self.gateway_latency(gateway);
        let client = &mut self.clients[gateway];
        if client.number != number || client.phase != Phase::Streaming {
            return;
        }
        client.arrives = client.arrives.max(arrives);
        let waits = |incoming: &Incoming| {
            !matches!(incoming.wire.messages.first().map(|message| &message.what), Some(What::Heartbeat))
        };
        if client.inbox.iter().any(waits) {
            let text = format!("{} has two batches under way", client.id);
            self.witness.broken(now, text);
        }
        let client = &mut self.clients[gateway];
        let arrives = client.arrives;
        client.inbox.push_back(Incoming { wire, next: 0, first_sequence, arrives });
        if !client.reading {
            client.reading = true;
            self.queue.push(arrives, Occurrence::Reads { gateway, number });
        }
    }

    /// A gateway reads what has come, one message or several.
    pub(crate) fn reads(&mut self, gateway: usize) {
        let now = self.now;
        let client = &mut self.clients[gateway];
        let number = client.number;
        if client.stalled_until > now {
            self.queue.push(client.stalled_until, Occurrence::Reads { gateway, number });
            return;
        }
        let unguarded = self.slots[self.clients[gateway].slot].hasty_until > now;
        let client = &mut self.clients[gateway];
        client.model.unguarded = unguarded;
        let Some(incoming) = client.inbox.front_mut() else {
            client.reading = false;
            return;
        };
        if incoming.arrives > now {
            self.queue.push(incoming.arrives, Occurrence::Reads { gateway, number });
            return;
        }
        let (wire, from) = (incoming.wire.clone(), incoming.next);
        // Several at once stand for a gateway that is quick; what happens to it
        // happens between them.
        let left = wire.messages.len() - from;
        let to = from + 1 + if left > 1 { client.dice.index(left.min(64)) } else { 0 };
        let first_sequence = incoming.first_sequence;
        incoming.next = to;
        if to == wire.messages.len() {
            client.inbox.pop_front();
        }
        let (mut cost, mut others) = (0, Vec::new());
        for index in from..to {
            let message = &wire.messages[index];
            cost += client.cost(&message.what);
            let answer = client.model.take(now, &self.universe, message, first_sequence + index as i64);
            match answer {
                Answer::Acked => {}
                Answer::Nacked(words) => {
                    client.model.troubled = true;
                    others.push((index, Some(words)));
                }
                Answer::Skipped => others.push((index, None)),
            }
        }
        let rejects = others.iter().any(|(_, words)| words.is_some());
        let skipped = others.iter().any(|(_, words)| words.is_none());
        let ignored = std::mem::take(&mut client.model.ignored);
        let took = Duration::from_nanos(cost / (to - from) as u64);
        let lost = !self.calm && client.dice.ppm(self.scenario.weather.lost_acks);
        let session = client.session.clone();
        let elsewhere = client.elsewhere_until > now;
        let (mut slot, mut life) = (client.slot, client.life);
        if self.witness.telling() {
            let (id, version) =
                (self.clients[gateway].id.clone(), self.clients[gateway].model.version.clone());
            self.witness.tell(now, || {
                format!("{id} takes {from}..{to} {:?}, is at {version}, {others:?}", &wire.messages[from..to])
            });
        }
        if skipped {
            let text = format!("{} skipped a message: its sequence is old", self.clients[gateway].id);
            self.witness.broken(now, text);
        }
        if ignored > 0 {
            let text = format!("a guard of {} ignored a full synchronisation", self.clients[gateway].id);
            self.witness.broken(now, text);
        }
        self.show_effects(gateway);
        let done = now + cost;
        let way = self.gateway_latency(gateway);
        if elsewhere && let Some(other) = self.another_replica(gateway, slot) {
            (slot, life) = other;
        }
        let cut = self.network.cut_until(now, End::Gateway(gateway as u16), end(slot));
        let client = &mut self.clients[gateway];
        client.acks_arrive = client.acks_arrive.max(done.max(cut) + way);
        let at = client.acks_arrive;
        let acks = Acks { gateway, session, wire, messages: from..to, others, took, forward: true };
        if !lost {
            if let Some(again) = self.arrives_again(at) {
                self.queue.push(again, Occurrence::Acks { slot, life, acks: Box::new(acks.clone()) });
            }
            self.queue.push(at, Occurrence::Acks { slot, life, acks: Box::new(acks) });
        }
        let hops = &mut self.clients[gateway].hops;
        if hops.as_mut().is_some_and(|hops| hops.are_due(to - from, rejects)) {
            *hops = None;
            self.stats.fault(Fault::HopInTrouble(0, 0).name());
            return self.hop(gateway, false);
        }
        // The next one is read when the answer to the acknowledgement is there.
        let client = &mut self.clients[gateway];
        if client.inbox.is_empty() {
            client.reading = false;
        } else {
            self.queue.push(at + way, Occurrence::Reads { gateway, number });
        }
    }

    /// Tells the observer what changed in a gateway's table.
    pub(crate) fn show_effects(&mut self, gateway: usize) {
        let mut effects = std::mem::take(&mut self.clients[gateway].model.effects);
        let id = flotilla_observer::GatewayId(gateway as u32);
        self.stats.add(Count::Deliveries, effects.len() as u64);
        for effect in effects.drain(..) {
            if self.is_passing(gateway, effect) {
                continue;
            }
            let seen = match effect {
                Effect::Holds { object, content, resolved } => Seen::Holds {
                    gateway: id,
                    object: ObjectId(object),
                    content: Content(content),
                    resolved: u32::from(resolved),
                },
                Effect::Dropped(object, by) => Seen::Dropped { gateway: id, object: ObjectId(object), by },
            };
            self.witness.see(self.now, &seen);
        }
        self.clients[gateway].model.effects = effects;
        // A version without these marks names no unfinished difference.
        if !self.clients[gateway].model.version.contains(['~', '-']) {
            self.show_hidden(gateway);
        }
    }

    /// Tells what is gone for longer than a while.
    fn show_hidden(&mut self, gateway: usize) {
        let id = flotilla_observer::GatewayId(gateway as u32);
        for object in std::mem::take(&mut self.clients[gateway].hidden) {
            if self.clients[gateway].model.holds(object).is_none() {
                let seen = Seen::Dropped { gateway: id, object: ObjectId(object), by: Removal::Snapshot };
                self.witness.see(self.now, &seen);
            }
        }
    }

    /// What is known to be given up for a while: a gateway that has rejected
    /// something, and does not say what, is put back to what it held, or to less,
    /// until it loads again; and a
    /// configuration that does not fit into one message replaces what is not known in
    /// parts. It is looked at again when the gateway's version says that it has all.
    fn is_passing(&mut self, gateway: usize, effect: Effect) -> bool {
        // What is there now is never for a while only.
        let now = |object: u32, content: u32| {
            self.written[object as usize].is_some_and(|(written, _)| written == content)
        };
        let present = matches!(effect, Effect::Holds { object, content, .. } if now(object, content));
        let cramped = self.scenario.weather.message_limit < 1024 * 1024;
        let client = &mut self.clients[gateway];
        let in_the_dark = client.model.troubled && client.model.mute;
        match effect {
            Effect::Holds { object, content, .. } => {
                client.hidden.remove(&object);
                client.model.has_held_newer(object, content) && in_the_dark && !present
            }
            Effect::Dropped(object, by) => {
                let passing = in_the_dark || (cramped && by == Removal::Snapshot);
                if passing {
                    client.hidden.insert(object);
                }
                passing
            }
        }
    }

    /// What gateways hold otherwise than was said, because it came with trouble.
    pub(crate) fn settle_gateways(&mut self) {
        for gateway in 0..self.clients.len() {
            if self.clients[gateway].phase != Phase::Streaming {
                continue;
            }
            self.clients[gateway].model.settle(Removal::Deletion);
            self.show_effects(gateway);
            self.show_hidden(gateway);
        }
    }

    fn another_replica(&mut self, gateway: usize, slot: usize) -> Option<(usize, u32)> {
        let others: Vec<(usize, u32)> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != slot)
            .filter_map(|(other, found)| Some((other, found.process.as_ref()?.life)))
            .collect();
        (!others.is_empty()).then(|| others[self.clients[gateway].dice.index(others.len())])
    }

    /// A gateway heartbeats, on the connection of its acknowledgements.
    pub(crate) fn heartbeat(&mut self, gateway: usize, number: u32) {
        let now = self.now;
        let client = &self.clients[gateway];
        if client.number != number {
            return;
        }
        self.queue.push(now + HEARTBEAT, Occurrence::Heartbeat { gateway, number });
        let client = &self.clients[gateway];
        let (session, id, version) =
            (client.session.clone(), client.id.clone(), client.model.version.clone());
        let (mut slot, mut life) = (client.slot, client.life);
        if client.elsewhere_until > now
            && let Some(other) = self.another_replica(gateway, slot)
        {
            (slot, life) = other;
        }
        let cut = self.network.cut_until(now, End::Gateway(gateway as u16), end(slot));
        let way = self.gateway_latency(gateway);
        // Behind the acknowledgements that are under way.
        let at = (cut.max(now) + way).max(self.clients[gateway].acks_arrive);
        let beat = Beat { gateway: id, session, version };
        if let Some(again) = self.arrives_again(at) {
            self.queue.push(again, Occurrence::Beats { slot, life, beat: Box::new(beat.clone()) });
        }
        self.queue.push(at, Occurrence::Beats { slot, life, beat: Box::new(beat) });
    }

    /// A gateway reads nothing for a while.
    pub(crate) fn stall(&mut self, gateway: usize, until: u64) {
        let client = &mut self.clients[gateway];
        client.stalled_until = client.stalled_until.max(until);
        self.impair(Subject::Gateway(flotilla_observer::GatewayId(gateway as u32)), until);
    }
}

fn end(slot: usize) -> End {
    End::Replica(slot as u8)
}
