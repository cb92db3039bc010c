//! Owns the delivery engine as `src/grpc/gateway/task` does: takes in what comes,
//! asks the engine what to do, carries it out, and publishes what is applied.

use std::sync::Arc;
use std::time::Duration;

use flotilla_core::delivery::{Ack, AckVerdict, Action, Batch, Change};
use flotilla_core::ids::{GatewayId, SessionId};

use super::peers::Word;
use crate::clock::MILLIS;
use crate::gateway::wire::Wire;
use crate::statistics::Count;
use crate::world::{Occurrence, World};

/// Least time between two publications of the view.
const VIEW_INTERVAL: u64 = 50 * MILLIS;
/// Decoded batches that are kept: those that several gateways get follow each other.
const WIRES: usize = 8;

/// Acknowledgements of one gateway, on their way.
#[derive(Debug, Clone)]
pub struct Acks {
    /// Whose.
    pub gateway: usize,
    /// The session they name.
    pub session: SessionId,
    /// The batch they are about.
    pub wire: Arc<Wire>,
    /// Which of its messages are answered: from, to (not included).
    pub messages: std::ops::Range<usize>,
    /// Of these, which are not answered at all, or rejected.
    pub others: Vec<(usize, Option<String>)>,
    /// What applying one of them took.
    pub took: Duration,
    /// Whether the replica that gets them passes them on.
    pub forward: bool,
}

impl World<'_> {
    /// Something is due in a process.
    pub(crate) fn wake(&mut self, slot: usize) {
        self.tick(slot);
        self.serve_gateways(slot);
        self.publish(slot);
        self.report(slot);
        self.set_timer(slot);
    }

    /// Sets a process's timer to what is due next.
    pub(crate) fn set_timer(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &self.slots[slot].process else { return };
        let clock = &process.clock;
        let when = |due: flotilla_core::time::Mono| clock.when(due);
        let mut at = u64::MAX;
        if let Some(due) = process.engine.next_deadline() {
            at = at.min(when(due));
        }
        if let Some(due) = process.coordinator_due {
            at = at.min(when(due));
        }
        if process.view_is_old() {
            at = at.min(process.view.due);
        }
        at = at.min(process.report.due(process.reporter.next_deadline().map(when)));
        if at == u64::MAX {
            return;
        }
        let at = if at > now {
            at
        } else {
            // The task waits for its processor, and takes in what comes meanwhile.
            let wait = u64::from(self.scenario.weather.scheduling_us) * 1_000;
            if process.timer.is_some_and(|timer| timer <= now + wait) {
                return;
            }
            now + 1_000 + self.slots[slot].dice.below(wait)
        };
        let Some(process) = &mut self.slots[slot].process else { return };
        if process.timer.is_none_or(|timer| at < timer) {
            process.timer = Some(at);
            let life = process.life;
            self.queue.push(at, Occurrence::Timer { slot, life });
        }
    }

    fn serve_gateways(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        self.stats.count(Count::Polls);
        let actions = process.engine.poll(local, &mut process.limits);
        for action in actions {
            self.serving_act(slot, action);
        }
    }

    fn serving_act(&mut self, slot: usize, action: Action) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if self.witness.telling() {
            self.witness.tell(now, || format!("{} -> {}", process.instance, words(&action)));
        }
        match action {
            Action::Send { session, batch, first_sequence } => {
                let Some((gateway, stream)) = process.streams.get(&session).copied() else { return };
                let wire = match process.wires.iter().find(|wire| wire.id == batch.id) {
                    Some(wire) => wire.clone(),
                    None => {
                        let wire = Arc::new(Wire::decode(&self.universe, &batch));
                        process.wires.push_back(wire.clone());
                        if process.wires.len() > WIRES {
                            process.wires.pop_front();
                        }
                        wire
                    }
                };
                self.check_batch(&batch);
                self.stats.count(Count::Batches);
                self.stats.add(Count::Messages, batch.updates.len() as u64);
                self.send_to_gateway(slot, gateway, stream, wire, first_sequence);
            }
            Action::End { session, .. } => {
                if let Some((gateway, stream)) = process.streams.remove(&session) {
                    self.end_stream(slot, gateway, stream);
                }
            }
            Action::NeedHistory { kind, since } => {
                let until = process.engine.frontier().get(kind);
                process.questions.push_back((kind, since, until));
                if process.questions.len() == 1 {
                    self.ask_peers(slot);
                }
            }
            Action::Notice(notice) => self.noticed(slot, notice),
        }
    }

    /// No message may be larger than gateways take.
    fn check_batch(&mut self, batch: &Batch) {
        let limit = self.scenario.weather.message_limit;
        for update in &batch.updates {
            // Less than what encoding makes of it.
            let bytes: usize = match &update.change {
                Change::Upsert { resource, .. } => resource.spec_json.len() + 20,
                Change::FullSync(snapshot) => {
                    snapshot.resources.iter().map(|resource| resource.spec_json.len() + 40).sum()
                }
                _ => 0,
            };
            if bytes as u64 > limit {
                let text = format!("a message of at least {bytes} bytes is sent, gateways take {limit}");
                self.witness.broken(self.now, text);
            }
        }
    }

    fn publish(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if now < process.view.due || !process.view_is_old() {
            return;
        }
        process.view.due = now + VIEW_INTERVAL;
        let changes = process.engine.applied_changes();
        let new_table = process.view.table != Some(changes);
        process.view.table = Some(changes);
        process.view.frontier = process.engine.frontier();
        process.view.streams = process.streams.len();
        process.view.ready = process.engine.store().ready();
        process.report.wanted = true;
        if new_table {
            let table = Arc::new(process.engine.applied_table());
            process.applied.set(&process.member, table.clone());
            process.outbox.table = Some((changes, table));
            self.speak(slot);
        }
    }

    /// Acknowledgements arrive at a process.
    pub(crate) fn acks_arrive(&mut self, slot: usize, acks: Acks) {
        let now = self.now;
        let id = self.clients[acks.gateway].id.clone();
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        let mut elsewhere = false;
        for index in acks.messages.clone() {
            let other = acks.others.iter().find(|(other, _)| *other == index);
            let result = match other {
                None => Ok(()),
                Some((_, Some(words))) => Err(words.clone()),
                Some((_, None)) => continue,
            };
            let ack = Ack {
                session: acks.session.clone(),
                gateway: id.clone(),
                version: acks.wire.messages[index].version.to_string(),
                result,
                apply_duration: acks.took,
            };
            self.stats.count(Count::Acks);
            elsewhere |= process.engine.acknowledged(local, ack) == AckVerdict::UnknownSession;
        }
        if elsewhere && acks.forward {
            let acks = Arc::new(Acks { forward: false, ..acks });
            self.forward(slot, || Word::Acks(acks.clone()));
        }
        self.set_timer(slot);
    }

    /// A heartbeat of a gateway arrives at a process.
    pub(crate) fn heartbeat_arrives(
        &mut self,
        slot: usize,
        session: SessionId,
        gateway: GatewayId,
        version: Arc<str>,
        forward: bool,
    ) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        if process.engine.heartbeat(local, &session, &gateway, &version) == AckVerdict::UnknownSession {
            let granted = session.as_str().starts_with(process.member.as_str());
            let passed_on = forward
                && self.forward(slot, || Word::Heartbeat(session.clone(), gateway.clone(), version.clone()));
            if !passed_on
                && (forward || granted)
                && let Some(process) = &mut self.slots[slot].process
            {
                process.engine.homeless_heartbeat(local, &gateway);
            }
        }
        self.set_timer(slot);
    }
}

/// An action in a line for people.
fn words(action: &Action) -> String {
    match action {
        Action::Send { session, batch, first_sequence } => {
            let one = |change: &Change| match change {
                Change::Upsert { resource, .. } => {
                    format!("+{} {} g{}", resource.kind, resource.key, resource.generation)
                }
                Change::Delete { kind, key } => format!("-{kind} {key}"),
                Change::FullSync(snapshot) => {
                    format!("full of {}+{}", snapshot.resources.len(), snapshot.padding.len())
                }
                Change::Reset => "reset".to_owned(),
                Change::Heartbeat => "version".to_owned(),
            };
            let changes: Vec<String> =
                batch.updates.iter().map(|u| format!("{} {}", one(&u.change), u.version)).collect();
            format!("{session} #{first_sequence} {}", changes.join(", "))
        }
        other => format!("{other:?}"),
    }
}
