//! From a seed to a scenario. Every seed draws a profile of its own ("swarm
//! testing"): which faults occur at all and how often, how the network behaves, how
//! much tenants do; so that quiet runs, in which one rare thing stands out, and wild
//! ones both occur.

use flotilla_core::ids::Kind;

use crate::dice::{Dice, Stream};
use crate::scenario::{
    End, Fault, GatewayShape, Operator, Place, Planned, Scenario, Shape, Tenant, Weather, What,
};
use crate::universe::{Flavour, Spec};

/// How large worlds may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Replicas at most; at least 2 are drawn.
    pub replicas: u8,
    /// Gateways at most.
    pub gateways: u16,
    /// Namespaces at most.
    pub namespaces: u16,
    /// Changes by tenants per minute, at most.
    pub changes: u32,
    /// Minutes until the faults end.
    pub minutes: u32,
    /// Whether etcd may be restored from a backup, or be empty of a sudden.
    pub restores: bool,
    /// Whether routes of a namespace may claim the same.
    pub contests: bool,
}

impl Size {
    /// Small worlds, in which much happens to few: they find most per second of
    /// computing time.
    pub const fn small(minutes: u32) -> Self {
        Size {
            replicas: 4,
            gateways: 8,
            namespaces: 10,
            changes: 240,
            minutes,
            restores: false,
            contests: false,
        }
    }

    /// The size that the speed of the simulator is stated for.
    pub const fn large(minutes: u32) -> Self {
        Size {
            replicas: 5,
            gateways: 50,
            namespaces: 100,
            changes: 1_200,
            minutes,
            restores: false,
            contests: false,
        }
    }
}

/// Draws the scenario of a seed.
pub fn draw(seed: u64, size: Size) -> Scenario {
    let mut dice = Dice::new(seed, Stream::Scenario);
    let replicas = dice.between(2, u64::from(size.replicas.max(2))) as u8;
    let namespaces = dice.between(1, u64::from(size.namespaces)) as u16;
    let names = dice.between(1, 4) as u8;
    let sloppy = dice.one_in(3);
    let count = dice.between(1, u64::from(size.gateways));
    let gateways = (0..count).map(|_| gateway(&mut dice, namespaces)).collect();
    let active = u64::from(size.minutes) * 60_000;
    let mut shape = Shape {
        replicas,
        caches: dice.between(1, 3) as u8,
        namespaces,
        names,
        gateways,
        active,
        quiet: 400_000,
        reviewed: false,
    };
    let mut weather = weather(&mut dice);
    if dice.one_in(5) {
        calm(&mut weather, &mut shape.gateways);
    }
    let mut plan = Vec::new();
    tenants(&mut dice, &shape, size, sloppy, &mut plan);
    operators(&mut dice, &shape, &mut plan);
    faults(&mut dice, &shape, &mut plan);
    let restored = size.restores && restores(&mut dice, &shape, &mut plan);
    if size.contests && !restored {
        contest(&mut dice, &mut plan);
        // In every other one the webhook is asked.
        shape.reviewed = dice.one_in(2);
        if shape.reviewed {
            races(&mut dice, &shape, &mut plan);
        }
    }
    // Also in calm weather: it delays nothing that is on its way to a gateway.
    weather.twice = share(&mut dice, 30_000);
    if dice.one_in(8) {
        wrong_rates(&mut dice, &shape, &mut plan);
    }
    plan.sort_by_key(|planned| planned.at);
    Scenario { seed, shape, weather, plan }
}

/// The world that the speed of the simulator is stated for: 5 replicas, 50
/// gateways, 100 namespaces, 20 changes per second, and no faults.
pub fn draw_bench(seed: u64, minutes: u32) -> Scenario {
    let mut dice = Dice::new(seed, Stream::Scenario);
    let one = GatewayShape {
        namespaces: Vec::new(),
        picky: false,
        mute: false,
        increment_us: 1_000,
        resource_us: 100,
    };
    let shape = Shape {
        replicas: 5,
        caches: 3,
        namespaces: 100,
        names: 2,
        gateways: vec![one; 50],
        active: u64::from(minutes) * 60_000,
        quiet: 400_000,
        reviewed: false,
    };
    let weather = Weather {
        latency_us: (500, 5_000),
        late: 0,
        late_ms: 0,
        cache_lag_ms: 50,
        lost_requests: 0,
        lost_answers: 0,
        failed_requests: 0,
        throttled_requests: 0,
        unreliable_words: 0,
        lost_acks: 0,
        twice: 0,
        scheduling_us: 20_000,
        round_ms: 5,
        drift_ppm: 0,
        batch_every_ms: 0,
        message_limit: 4 * 1024 * 1024,
        tombstones: 100_000,
        history_s: 300,
        page: 500,
    };
    let mut plan = Vec::new();
    for number in 0..u64::from(minutes) * 60 * 20 {
        let at = 5_000 + number * 50;
        plan.push(Planned { at, what: What::Tenant(change(&mut dice, &shape, Flavour::Good)) });
    }
    plan.retain(|planned| planned.at < shape.active);
    Scenario { seed, shape, weather, plan }
}

fn gateway(dice: &mut Dice, namespaces: u16) -> GatewayShape {
    let some = dice.one_in(4);
    let count = if some { dice.between(1, 3) } else { 0 };
    let mut chosen: Vec<u16> = (0..count).map(|_| dice.below(u64::from(namespaces)) as u16).collect();
    chosen.sort_unstable();
    chosen.dedup();
    GatewayShape {
        namespaces: chosen,
        picky: dice.one_in(3),
        mute: dice.one_in(4),
        increment_us: dice.between(50, 20_000) as u32,
        resource_us: dice.between(1, 200) as u32,
    }
}

/// Nothing, or something up to `most`, and rarely much.
fn share(dice: &mut Dice, most: u64) -> u32 {
    match dice.below(4) {
        0 | 1 => 0,
        2 => dice.below(most / 10 + 1) as u32,
        _ => dice.below(most + 1) as u32,
    }
}

/// How long a change may take is judged only where nothing but the product keeps it.
/// (Batches of two or three updates, each with a pause after it, are too few for gateways
/// that need long for each. Of gateways that do not say what they reject the observer hears
/// only in the end what they hold.)
fn calm(weather: &mut Weather, gateways: &mut [GatewayShape]) {
    *weather = weather.clone().without_trouble();
    weather.batch_every_ms = weather.batch_every_ms.min(50);
    weather.message_limit = 4 * 1024 * 1024;
    for gateway in gateways {
        gateway.mute = false;
    }
}

fn weather(dice: &mut Dice) -> Weather {
    let cramped = dice.one_in(5);
    Weather {
        latency_us: (200, dice.between(500, 60_000) as u32),
        late: share(dice, 20_000),
        late_ms: dice.between(50, 5_000) as u32,
        cache_lag_ms: share(dice, 3_000),
        lost_requests: share(dice, 30_000),
        lost_answers: share(dice, 30_000),
        failed_requests: share(dice, 30_000),
        throttled_requests: share(dice, 20_000),
        unreliable_words: share(dice, 50_000),
        lost_acks: share(dice, 20_000),
        twice: 0,
        scheduling_us: dice.between(50, 20_000) as u32,
        round_ms: dice.between(1, 10) as u32,
        drift_ppm: share(dice, 20_000),
        batch_every_ms: if dice.one_in(4) { dice.between(20, 1_000) as u32 } else { 0 },
        // What fits into no message is not delivered, so each of them is to fit.
        message_limit: if cramped { dice.between(1_600, 6_000) } else { 4 * 1024 * 1024 },
        tombstones: if dice.one_in(4) { dice.between(1, 20) as u32 } else { 100_000 },
        history_s: if dice.one_in(3) { dice.between(5, 60) as u32 } else { 300 },
        page: if dice.one_in(2) { dice.between(1, 20) as u32 } else { 0 },
    }
}

fn place(dice: &mut Dice, shape: &Shape) -> Place {
    // Routes lead to Backends, so there are about as many of both.
    Place {
        namespace: dice.below(u64::from(shape.namespaces)) as u16,
        kind: Kind::ALL[dice.index(Kind::COUNT)],
        name: dice.below(u64::from(shape.names)) as u8,
    }
}

fn spec(dice: &mut Dice, shape: &Shape, flavour: Flavour) -> Spec {
    let leads_to = (!dice.one_in(4)).then(|| dice.below(u64::from(shape.names)) as u8);
    Spec { leads_to, flavour, claims: None }
}

fn change(dice: &mut Dice, shape: &Shape, flavour: Flavour) -> Tenant {
    let place = place(dice, shape);
    let spec = spec(dice, shape, flavour);
    match dice.below(20) {
        0 | 1 => Tenant::Delete(place),
        2 => Tenant::Touch(place),
        _ => Tenant::Put(place, spec),
    }
}

fn tenants(dice: &mut Dice, shape: &Shape, size: Size, sloppy: bool, plan: &mut Vec<Planned>) {
    let per_minute = dice.between(4, u64::from(size.changes));
    let every = (60_000 / per_minute).max(1);
    let lull = dice.one_in(3);
    let mut at = 0;
    while at < shape.active {
        let flavour = match dice.below(40) {
            0 if sloppy => Flavour::Poison,
            1..=3 if sloppy => Flavour::Disputed,
            6 if sloppy => Flavour::Undecodable,
            4 | 5 => Flavour::Invalid,
            _ => Flavour::Good,
        };
        let mut act = |at, tenant| plan.push(Planned { at, what: What::Tenant(tenant) });
        match dice.below(400) {
            0 | 1 => {
                // A burst of one tenant.
                let namespace = dice.below(u64::from(shape.namespaces)) as u16;
                for _ in 0..dice.between(5, 60) {
                    let place = Place { namespace, ..place(dice, shape) };
                    act(at + dice.below(300), Tenant::Put(place, spec(dice, shape, Flavour::Good)));
                }
            }
            2 => {
                // A namespace goes and comes back.
                let namespace = dice.below(u64::from(shape.namespaces)) as u16;
                act(at, Tenant::DeleteNamespace(namespace));
                let back = at + dice.below(4_000);
                for _ in 0..dice.between(1, 8) {
                    let place = Place { namespace, ..place(dice, shape) };
                    act(back + dice.below(100), Tenant::Put(place, spec(dice, shape, Flavour::Good)));
                }
            }
            3..=10 => {
                // The same name again at once.
                let place = place(dice, shape);
                act(at, Tenant::Delete(place));
                act(at + dice.below(30), Tenant::Put(place, spec(dice, shape, flavour)));
            }
            11..=14 => act(at, Tenant::DeleteSlowly(place(dice, shape), dice.between(1, 20_000) as u32)),
            _ => act(at, change(dice, shape, flavour)),
        }
        at += dice.between(1, every * 2);
        if lull && dice.one_in(200) {
            at += dice.between(1_000, 120_000);
        }
    }
    plan.retain(|planned| planned.at < shape.active);
}

fn replica(dice: &mut Dice, shape: &Shape) -> u8 {
    dice.below(u64::from(shape.replicas)) as u8
}

/// How long something lasts: most often short, rarely minutes.
fn lasting(dice: &mut Dice) -> u32 {
    (match dice.below(10) {
        0..=5 => dice.between(10, 3_000),
        6..=8 => dice.between(1_000, 30_000),
        _ => dice.between(10_000, 150_000),
    }) as u32
}

/// Times at which something happens: about every so many milliseconds.
fn times(dice: &mut Dice, shape: &Shape, every: u64) -> Vec<u64> {
    let mut times = Vec::new();
    let mut at = dice.below(every * 2);
    while at < shape.active {
        times.push(at);
        at += dice.between(1, every * 2);
    }
    times
}

fn operators(dice: &mut Dice, shape: &Shape, plan: &mut Vec<Planned>) {
    let mut act = |at, operator| plan.push(Planned { at, what: What::Operator(operator) });
    if dice.one_in(2) {
        let every = dice.between(5_000, 200_000);
        for at in times(dice, shape, every) {
            let namespace = dice.below(u64::from(shape.namespaces)) as u16;
            let member = replica(dice, shape);
            act(
                at,
                match dice.below(12) {
                    0..=2 => Operator::Pin(namespace, member),
                    3 => Operator::Unpin(namespace),
                    4 | 5 => Operator::Drain(member),
                    6 | 7 => Operator::Undrain(member),
                    8 => Operator::DeleteLease(member),
                    9 => Operator::DeleteLeaderLease,
                    10 => Operator::TouchLease(member),
                    _ => Operator::DeleteMap,
                },
            );
        }
    }
    if dice.one_in(3) {
        // Rolling updates, some of them hasty.
        let every = dice.between(60_000, 300_000);
        for mut at in times(dice, shape, every) {
            let (pause, away) = (dice.between(200, 20_000), dice.between(200, 8_000) as u32);
            for member in (0..shape.replicas).rev() {
                act(at, Operator::Restart(member, away));
                at += pause;
            }
        }
    }
    if dice.one_in(5) {
        // Scaled to nothing and back.
        let at = dice.below(shape.active);
        let away = dice.between(500, 90_000);
        for member in 0..shape.replicas {
            act(at + dice.below(1_000), Operator::Restart(member, away as u32));
        }
    }
}

/// Routes of a namespace claim the same. Not beside restores, after which the
/// observer does not know any more who claimed what.
fn contest(dice: &mut Dice, plan: &mut [Planned]) {
    for planned in plan {
        if let What::Tenant(Tenant::Put(place, spec)) = &mut planned.what
            && place.kind.is_route()
            && dice.one_in(2)
        {
            spec.claims = Some(dice.below(2) as u8);
        }
    }
}

/// All routes of a namespace go, and come back at the same moment with the same claim.
fn races(dice: &mut Dice, shape: &Shape, plan: &mut Vec<Planned>) {
    let mut act = |at, tenant| plan.push(Planned { at, what: What::Tenant(tenant) });
    let every = dice.between(8_000, 60_000);
    for at in times(dice, shape, every) {
        let namespace = dice.below(u64::from(shape.namespaces)) as u16;
        let kind = [Kind::ApiRoute, Kind::GrpcRoute][dice.index(2)];
        let claims = Some(dice.below(2) as u8);
        let apart = dice.between(1, 400);
        for name in 0..shape.names {
            let place = Place { namespace, kind, name };
            act(at, Tenant::Delete(place));
            let spec = Spec { claims, ..spec(dice, shape, Flavour::Good) };
            act(at + 3_000 + dice.below(apart), Tenant::Put(place, spec));
        }
    }
}

/// A restore takes from a backup at least so old, in milliseconds: one that is a few
/// seconds old nobody has, and replicas name no history anew that they cannot tell
/// from their own.
const BACKUP_AGE: u64 = 90_000;

/// Returns whether it is restored at all.
fn restores(dice: &mut Dice, shape: &Shape, plan: &mut Vec<Planned>) -> bool {
    if !dice.one_in(6) || shape.active < 2 * BACKUP_AGE {
        return false;
    }
    let mut act = |at, fault| plan.push(Planned { at, what: What::Fault(fault) });
    let at = dice.between(BACKUP_AGE, shape.active - 1);
    if !dice.one_in(4) {
        act(dice.below(at - BACKUP_AGE + 1), Fault::Backup);
    }
    act(at, Fault::Restore(dice.between(100, 30_000) as u32));
    if dice.one_in(3) {
        // It was not the only time.
        act(
            dice.between(at, shape.active - 1).max(at + BACKUP_AGE),
            Fault::Restore(dice.between(100, 30_000) as u32),
        );
    }
    true
}

/// Clocks that run at half or at double the rate, one at a time or several.
fn wrong_rates(dice: &mut Dice, shape: &Shape, plan: &mut Vec<Planned>) {
    let every = dice.between(20_000, 120_000);
    for at in times(dice, shape, every) {
        let rate = if dice.one_in(2) { dice.between(500, 900) } else { dice.between(1_100, 2_000) };
        let fault = Fault::ClockRate(replica(dice, shape), rate as u32, lasting(dice));
        plan.push(Planned { at, what: What::Fault(fault) });
    }
}

/// In seconds.
const DAY: u64 = 86_400;

fn faults(dice: &mut Dice, shape: &Shape, plan: &mut Vec<Planned>) {
    // Each sort of fault occurs in about every other run; a run without any is
    // worth having, too.
    let sorts: Vec<u64> = (0..19).filter(|_| dice.one_in(2)).collect();
    if sorts.is_empty() || dice.one_in(12) {
        return;
    }
    let every = match dice.below(3) {
        0 => dice.between(1_000, 5_000),
        1 => dice.between(5_000, 30_000),
        _ => dice.between(20_000, 120_000),
    };
    let gateways = shape.gateways.len() as u64;
    for at in times(dice, shape, every) {
        let member = replica(dice, shape);
        let cache = dice.below(u64::from(shape.caches)) as u8;
        let gateway = dice.below(gateways) as u16;
        let time = lasting(dice);
        let fault = match sorts[dice.index(sorts.len())] {
            0 => Fault::Crash(member, dice.between(50, 10_000) as u32),
            1 => {
                let write = dice.between(1, 12) as u32;
                Fault::CrashAtWrite(member, write, dice.one_in(2), dice.between(50, 10_000) as u32)
            }
            2 => Fault::Pause(member, time),
            3 => Fault::ClockJump(member, dice.between(1, 200) as u32),
            4 => Fault::ClockDrift(member, i32::try_from(dice.below(40_000)).unwrap_or(0) - 20_000),
            5 => Fault::Cut(End::Replica(member), End::Replica(replica(dice, shape)), time),
            6 if dice.one_in(2) => Fault::Cut(End::Replica(member), End::Api(cache), time),
            6 => Fault::Cut(End::Api(cache), End::Replica(member), time),
            7 if dice.one_in(2) => Fault::Cut(End::Replica(member), End::Gateway(gateway), time),
            7 => Fault::Cut(End::Gateway(gateway), End::Replica(member), time),
            8 => Fault::LateRequests(member, time),
            9 => Fault::ApiDown(cache, time),
            10 => Fault::ApiFails(cache, dice.between(1, 5) as u32, time),
            11 if dice.one_in(3) => Fault::StaleLists(cache, time),
            11 => Fault::CacheFrozen(cache, time),
            12 if dice.one_in(4) => Fault::Compact,
            12 => Fault::WatchBreaks(member, dice.below(6) as u8),
            13 => Fault::GatewayRestart(gateway),
            14 => Fault::GatewayHop(gateway),
            15 => Fault::GatewayStalls(gateway, time),
            16 => Fault::WallClock(member, i32::try_from(dice.below(2 * DAY)).unwrap_or(0) - DAY as i32),
            17 => Fault::AcksElsewhere(gateway, time),
            _ => Fault::HopInTrouble(gateway, dice.between(1, 12) as u16),
        };
        plan.push(Planned { at, what: What::Fault(fault) });
    }
}
