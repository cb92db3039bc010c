//! What fate does.

use flotilla_observer::{Event, GatewayId, Subject};

use crate::clock::{MILLIS, SECONDS};
use crate::gateway::client::Hops;
use crate::scenario::{End, Fault};

use super::{Occurrence, World};

/// In seconds.
const DAY: i32 = 86_400;
/// How long a Lease lasts, how far a clock may be off within that, and how often, at most:
/// its margin covers that, together with what clocks drift.
const LEASE: u64 = 5 * SECONDS;
const JUMP: u64 = 200 * MILLIS;
const JUMPS: u64 = 10 * SECONDS;
/// By then every Lease that was looked at before has run out or was renewed, and no
/// gateway that registered before guards itself any more.
const TIMED_BEFORE: u64 = 35 * SECONDS;

impl World<'_> {
    pub(super) fn fault(&mut self, fault: Fault) {
        let now = self.now;
        // What waits for a fault to end is set to go on at this time; healing does
        // not call it earlier.
        let heals = (self.scenario.shape.active * MILLIS).max(now);
        let until = |time: u32| (now + u64::from(time) * MILLIS).min(heals);
        let replicas = self.slots.len();
        let slot = |slot: u8| usize::from(slot) % replicas;
        let caches = self.caches.len();
        let cache = |cache: u8| usize::from(cache) % caches;
        let gateways = self.clients.len();
        let gateway = |gateway: u16| usize::from(gateway) % gateways.max(1);
        // Counted when it happens.
        if !matches!(fault, Fault::CrashAtWrite(..) | Fault::HopInTrouble(..)) {
            self.stats.fault(fault.name());
        }
        match fault {
            Fault::Crash(at, back) => self.crash(slot(at), back),
            Fault::CrashAtWrite(at, writes, after, back) => {
                self.slots[slot(at)].crash_at_write = Some((writes.max(1), after, back));
            }
            Fault::Pause(at, time) => self.pause(slot(at), until(time)),
            Fault::ClockJump(at, by) => {
                let at = slot(at);
                // Together no more than the margin of a Lease covers.
                if now >= self.slots[at].jumped + JUMPS {
                    self.slots[at].jumped = now;
                    if let Some(process) = &mut self.slots[at].process {
                        process.clock.jump(now, u64::from(by) * MILLIS);
                    }
                    self.clock_changed(at);
                }
            }
            Fault::ClockDrift(at, drift) => {
                let at = slot(at);
                if let Some(process) = &mut self.slots[at].process {
                    process.clock.drift(now, drift);
                }
                self.clock_changed(at);
            }
            Fault::ClockRate(at, rate, time) => {
                self.clock_goes_wrong(slot(at), rate.clamp(500, 2_000), until(time));
            }
            Fault::WallClock(at, ahead) => {
                self.slots[slot(at)].wall_ahead = i64::from(ahead.clamp(-DAY, DAY));
            }
            Fault::Cut(from, to, time) => self.cut(from, to, until(time)),
            Fault::LateRequests(at, time) => {
                let late = &mut self.slots[slot(at)];
                (late.late_by, late.late_until) = (u64::from(time) * MILLIS, until(time));
                self.impair_replica(slot(at), until(time) + u64::from(time) * MILLIS);
            }
            Fault::ApiDown(at, time) => {
                self.caches[cache(at)].down_until = until(time);
                self.break_watches_of(cache(at));
                self.impair(Subject::ApiServer, until(time) + 5 * SECONDS);
            }
            Fault::ApiFails(at, each, time) => {
                let cache = &mut self.caches[cache(at)];
                (cache.failing, cache.failing_until) = (each, until(time));
                self.impair(Subject::ApiServer, until(time) + 5 * SECONDS);
            }
            Fault::CacheFrozen(at, time) => {
                self.caches[cache(at)].freeze(now, until(time));
                self.impair(Subject::ApiServer, until(time) + 5 * SECONDS);
            }
            Fault::StaleLists(at, time) => {
                let cache = &mut self.caches[cache(at)];
                (cache.stale_by, cache.stale_until) = (u64::from(time) * MILLIS, until(time));
                self.impair(Subject::ApiServer, until(time) + 5 * SECONDS);
            }
            Fault::WatchBreaks(at, lane) => {
                self.break_watch(slot(at), usize::from(lane) % crate::api::LANES);
            }
            Fault::Compact => {
                let revision = self.api.revision;
                self.api.compact(revision, &self.universe);
            }
            Fault::Backup => self.backup = Some((self.api.backup(), self.written.clone())),
            Fault::Restore(away) => self.restore(until(away)),
            Fault::GatewayRestart(at) if gateways > 0 => self.hop(gateway(at), true),
            Fault::GatewayHop(at) if gateways > 0 => self.hop(gateway(at), false),
            Fault::HopInTrouble(at, after) if gateways > 0 => {
                self.clients[gateway(at)].hops = Some(Hops { after, rejected: false });
            }
            Fault::GatewayStalls(at, time) if gateways > 0 => self.stall(gateway(at), until(time)),
            Fault::AcksElsewhere(at, time) if gateways > 0 => {
                let client = &mut self.clients[gateway(at)];
                client.elsewhere_until = client.elsewhere_until.max(until(time));
                let impaired = self.slots.iter().map(|slot| slot.impaired_until).max().unwrap_or_default();
                self.impair_elsewhere(impaired);
            }
            Fault::GatewayRestart(_)
            | Fault::GatewayHop(_)
            | Fault::HopInTrouble(..)
            | Fault::GatewayStalls(..)
            | Fault::AcksElsewhere(..) => {}
        }
    }

    /// A machine's clock runs at another rate until then.
    fn clock_goes_wrong(&mut self, slot: usize, rate: u32, until: u64) {
        let now = self.now;
        let drift = rate as i32 * 1_000 - 1_000_000;
        let gained = u64::from(rate.abs_diff(1_000)) * (until - now).min(LEASE) / 1_000;
        let replica = &mut self.slots[slot];
        (replica.drift, replica.right_again) = (Some(drift), until);
        self.queue.push(until, Occurrence::ClockRight { slot });
        if gained <= JUMP && now >= replica.jumped + JUMPS {
            replica.jumped = now;
        } else {
            self.leases_become_void(slot, until + TIMED_BEFORE);
            if drift > 0 {
                self.slots[slot].hasty_until = until + TIMED_BEFORE;
            }
        }
        if let Some(process) = &mut self.slots[slot].process {
            process.clock.drift(now, drift);
        }
        self.clock_changed(slot);
    }

    /// What a replica takes for the time of a Lease is another one until then.
    fn leases_become_void(&mut self, slot: usize, until: u64) {
        self.slots[slot].void_until = until;
        self.impair_replica(slot, until);
        // A leader's map says who may act, so whoever acts by it is wrong with it.
        let acting = self.slots.iter().filter_map(|slot| slot.process.as_ref()?.acts.tenure);
        for instance in acting {
            self.witness.see(self.now, &Event::ClockUntrusted { instance });
        }
    }

    /// A machine's clock runs at the true rate again, unless it went wrong once more.
    pub(super) fn clock_is_right(&mut self, slot: usize) {
        let now = self.now;
        let replica = &mut self.slots[slot];
        if replica.right_again > now || replica.drift.take().is_none() {
            return;
        }
        if let Some(process) = &mut self.slots[slot].process {
            process.clock.drift(now, 0);
        }
        self.clock_changed(slot);
    }

    /// Whether no Lease means anything: some replica takes its time for another one, and
    /// may be the leader.
    pub(crate) fn leases_are_void(&self) -> bool {
        self.slots.iter().any(|slot| self.now < slot.void_until)
    }

    /// A replica's clock shows something else: what was computed from it is wrong.
    fn clock_changed(&mut self, slot: usize) {
        self.acts(slot);
        if let Some(process) = &mut self.slots[slot].process {
            process.timer = None;
        }
        self.set_timer(slot);
    }

    /// Also those who begin there until then.
    pub(super) fn impair_replica(&mut self, slot: usize, until: u64) {
        let lasts = &mut self.slots[slot].impaired_until;
        *lasts = until.max(*lasts);
        let Some(process) = &self.slots[slot].process else { return };
        let base = self.witness.instance(process.instance.as_str());
        let tenure = process.acts.tenure.filter(|tenure| *tenure != base);
        self.impair_elsewhere(until);
        // It takes a while to catch up.
        let until = until + 5 * SECONDS;
        self.impair(Subject::Instance(base), until);
        if let Some(tenure) = tenure {
            self.impair(Subject::Instance(tenure), until);
        }
    }

    /// Gateways that acknowledge to anybody wait for answers of somebody who is impaired.
    fn impair_elsewhere(&mut self, until: u64) {
        for gateway in 0..self.clients.len() {
            if until > self.now && self.clients[gateway].elsewhere_until > self.now {
                self.impair(Subject::Gateway(GatewayId(gateway as u32)), until + 5 * SECONDS);
            }
        }
    }

    fn pause(&mut self, slot: usize, until: u64) {
        let Some(process) = &mut self.slots[slot].process else { return };
        process.paused_until = process.paused_until.max(until);
        let gateways: Vec<usize> = process.streams.values().map(|(gateway, _)| *gateway).collect();
        self.impair_replica(slot, until);
        for gateway in gateways {
            self.watch_stream(gateway);
        }
        for other in (0..self.slots.len()).filter(|other| *other != slot) {
            self.watch_lines(slot, other);
        }
    }

    fn cut(&mut self, from: End, to: End, until: u64) {
        let within = |end: End| match end {
            End::Replica(slot) => usize::from(slot) < self.slots.len(),
            End::Api(cache) => usize::from(cache) < self.caches.len(),
            End::Gateway(gateway) => usize::from(gateway) < self.clients.len(),
        };
        if from == to || !within(from) || !within(to) {
            return;
        }
        self.network.cut(from, to, until);
        for end in [from, to] {
            match end {
                End::Replica(slot) => self.impair_replica(usize::from(slot), until),
                End::Gateway(gateway) => {
                    self.watch_stream(usize::from(gateway));
                    let subject = Subject::Gateway(GatewayId(u32::from(gateway)));
                    self.impair(subject, until + 5 * SECONDS);
                }
                End::Api(_) => {}
            }
        }
        if let (End::Replica(one), End::Replica(other)) = (from, to) {
            self.watch_lines(usize::from(one), usize::from(other));
        }
    }

    /// Faults end: everything works, everybody runs.
    pub(super) fn heal(&mut self) {
        self.witness.tell(self.now, || "=== everything heals");
        let now = self.now;
        self.calm = true;
        self.healings += 1;
        self.network.heal();
        for cache in &mut self.caches {
            cache.heal();
        }
        for slot in 0..self.slots.len() {
            let replica = &mut self.slots[slot];
            (replica.late_until, replica.crash_at_write, replica.impaired_until) = (0, None, 0);
            if let Some(process) = &mut replica.process {
                process.paused_until = process.paused_until.min(now);
            }
            if replica.process.is_none() {
                // However long it was to be away.
                replica.starting = false;
                self.start_later(slot, SECONDS);
            }
        }
        for client in &mut self.clients {
            (client.stalled_until, client.elsewhere_until, client.hops) = (0, 0, None);
        }
        let subjects: Vec<super::SubjectKey> = self.impaired.keys().copied().collect();
        for (sort, id) in subjects {
            self.impaired.insert((sort, id), 1);
            self.recovered(match sort {
                0 => Subject::ApiServer,
                1 => Subject::Network,
                2 => Subject::Instance(flotilla_observer::InstanceId(id)),
                _ => Subject::Gateway(GatewayId(id)),
            });
        }
        self.queue.push(now + 10 * SECONDS, Occurrence::Look);
    }
}
