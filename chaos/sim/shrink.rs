//! Makes a scenario that breaks a promise small, so that people can read it.
//!
//! Everything is tried by playing: a smaller scenario replaces the one before if it
//! still breaks the same promise. First whatever comes after the breach goes, then
//! whole sorts of acts, then acts by delta debugging, then gateways, replicas, places
//! and bad weather, one by one, and all of it again until nothing more can go or the
//! budget is used up. Each actor of a world has dice of its own, so that leaving one
//! thing out leaves the rest much the same; where it does not, the smaller scenario
//! simply does not break the promise and is not taken.
//!
//! Source of the plan's part: A. Zeller and R. Hildebrandt, "Simplifying and isolating
//! failure-inducing input", IEEE Transactions on Software Engineering 28(2), 2002.

use crate::scenario::{End, Fault, Operator, Planned, Scenario, Shape, Tenant, Weather, What};

/// How a scenario was made smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The smallest that was found.
    pub scenario: Scenario,
    /// How many were played.
    pub played: usize,
    /// Whether nothing more can be left out; `false` when the budget was used up.
    pub minimal: bool,
}

/// Makes `scenario` smaller for as long as `breaks` says that it still breaks the
/// promise; it answers with the millisecond at which it does. `more` is asked before
/// each play and ends the search by saying no.
pub fn shrink(
    scenario: Scenario,
    breaks: &mut dyn FnMut(&Scenario) -> Option<u64>,
    more: &mut dyn FnMut() -> bool,
) -> Shrunk {
    let mut search = Search { best: scenario, played: 0, breaks, more, over: false };
    search.cut_the_end();
    loop {
        let before = search.best.clone();
        search.leave_out_sorts();
        search.leave_out_acts();
        search.leave_out_gateways();
        search.leave_out_replicas();
        search.leave_out_places();
        search.calm_the_weather();
        if search.over || search.best == before {
            return Shrunk { scenario: search.best, played: search.played, minimal: !search.over };
        }
    }
}

struct Search<'a> {
    best: Scenario,
    played: usize,
    breaks: &'a mut dyn FnMut(&Scenario) -> Option<u64>,
    more: &'a mut dyn FnMut() -> bool,
    over: bool,
}

impl Search<'_> {
    /// Takes a smaller scenario if it still breaks the promise.
    fn take(&mut self, smaller: Scenario) -> bool {
        if smaller == self.best || self.over {
            return false;
        }
        if !(self.more)() {
            self.over = true;
            return false;
        }
        self.played += 1;
        let breaks = (self.breaks)(&smaller).is_some();
        if breaks {
            self.best = smaller;
        }
        breaks
    }

    fn with_plan(&self, plan: Vec<Planned>) -> Scenario {
        Scenario { plan, ..self.best.clone() }
    }

    /// What comes after the breach cannot have caused it.
    fn cut_the_end(&mut self) {
        let Some(at) = (self.breaks)(&self.best) else { return };
        self.played += 1;
        let mut plan = self.best.plan.clone();
        plan.retain(|planned| planned.at <= at);
        let mut smaller = self.with_plan(plan);
        if at < smaller.shape.active {
            self.take(smaller);
            return;
        }
        // It showed in the end: then the end may come right after the last act.
        let last = smaller.plan.last().map_or(0, |planned| planned.at);
        smaller.shape.active = smaller.shape.active.min(last + 1_000);
        self.take(smaller);
    }

    fn leave_out_sorts(&mut self) {
        let mut sorts: Vec<u8> = self.best.plan.iter().map(|planned| sort(&planned.what)).collect();
        sorts.sort_unstable();
        sorts.dedup();
        for gone in sorts {
            let mut plan = self.best.plan.clone();
            plan.retain(|planned| sort(&planned.what) != gone);
            self.take(self.with_plan(plan));
        }
    }

    /// Delta debugging: leaves out ever smaller parts of the plan.
    fn leave_out_acts(&mut self) {
        let mut parts = 2;
        while !self.best.plan.is_empty() {
            let size = self.best.plan.len().div_ceil(parts);
            let mut at = 0;
            let mut smaller = false;
            while at < self.best.plan.len() {
                let mut plan = self.best.plan.clone();
                plan.drain(at..(at + size).min(plan.len()));
                // What follows has moved to where the part was.
                if self.take(self.with_plan(plan)) {
                    smaller = true
                } else {
                    at += size
                }
                if self.over {
                    return;
                }
            }
            if size == 1 && !smaller {
                return;
            }
            parts = if smaller { parts } else { parts * 2 }.clamp(2, self.best.plan.len().max(2));
        }
    }

    fn leave_out_gateways(&mut self) {
        for gateway in (0..self.best.shape.gateways.len()).rev() {
            if self.best.shape.gateways.len() > 1 {
                self.take(without_gateway(&self.best, gateway));
            }
        }
    }

    fn leave_out_replicas(&mut self) {
        while self.best.shape.replicas > 1 {
            let last = self.best.shape.replicas - 1;
            let mut smaller = self.best.clone();
            smaller.shape.replicas = last;
            smaller.plan.retain(|planned| !mentions_replica(&planned.what, last));
            if !self.take(smaller) {
                break;
            }
        }
        while self.best.shape.caches > 1 {
            let last = self.best.shape.caches - 1;
            let mut smaller = self.best.clone();
            smaller.shape.caches = last;
            smaller.plan.retain(|planned| !mentions_cache(&planned.what, last));
            if !self.take(smaller) {
                break;
            }
        }
    }

    fn leave_out_places(&mut self) {
        let used = |of: &dyn Fn(&What) -> Option<u16>| {
            let used = self.best.plan.iter().filter_map(|planned| of(&planned.what));
            used.max().map_or(1, |most| most + 1)
        };
        let (namespaces, names) = (used(&namespace_of), used(&name_of));
        let shape = Shape {
            namespaces: namespaces.min(self.best.shape.namespaces),
            names: u8::try_from(names).unwrap_or(u8::MAX).min(self.best.shape.names),
            ..self.best.shape.clone()
        };
        let mut smaller = Scenario { shape, ..self.best.clone() };
        for gateway in &mut smaller.shape.gateways {
            gateway.namespaces.retain(|asked| *asked < namespaces);
        }
        self.take(smaller);
        for index in 0..self.best.shape.gateways.len() {
            let mut smaller = self.best.clone();
            smaller.shape.gateways[index].namespaces.clear();
            self.take(smaller);
        }
    }

    fn calm_the_weather(&mut self) {
        for calm in CALM {
            let mut smaller = self.best.clone();
            calm(&mut smaller.weather);
            self.take(smaller);
        }
    }
}

/// Each takes one trouble out of the weather.
const CALM: [fn(&mut Weather); 17] = [
    |weather| weather.latency_us = (500, 500),
    |weather| (weather.late, weather.late_ms) = (0, 0),
    |weather| weather.cache_lag_ms = 0,
    |weather| weather.lost_requests = 0,
    |weather| weather.lost_answers = 0,
    |weather| weather.failed_requests = 0,
    |weather| weather.throttled_requests = 0,
    |weather| weather.unreliable_words = 0,
    |weather| weather.lost_acks = 0,
    |weather| weather.twice = 0,
    |weather| weather.scheduling_us = 50,
    |weather| weather.drift_ppm = 0,
    |weather| weather.batch_every_ms = 0,
    |weather| weather.message_limit = 4 * 1024 * 1024,
    |weather| weather.tombstones = 100_000,
    |weather| weather.history_s = 300,
    |weather| weather.page = 0,
];

/// Acts of one sort are left out together.
fn sort(what: &What) -> u8 {
    match what {
        What::Tenant(tenant) => match tenant {
            Tenant::Put(..) => 0,
            Tenant::Touch(..) => 1,
            Tenant::Delete(..) => 2,
            Tenant::DeleteSlowly(..) => 3,
            Tenant::DeleteNamespace(..) => 4,
        },
        What::Operator(operator) => match operator {
            Operator::Pin(..) | Operator::Unpin(..) => 5,
            Operator::Drain(..) | Operator::Undrain(..) => 6,
            Operator::Restart(..) => 7,
            Operator::DeleteMap => 8,
            Operator::DeleteLease(..) | Operator::DeleteLeaderLease | Operator::TouchLease(..) => 9,
        },
        What::Fault(fault) => match fault {
            Fault::Crash(..) | Fault::CrashAtWrite(..) => 10,
            Fault::Pause(..) => 11,
            Fault::ClockJump(..) | Fault::ClockDrift(..) | Fault::ClockRate(..) | Fault::WallClock(..) => 12,
            Fault::Cut(..) => 13,
            Fault::LateRequests(..) => 14,
            Fault::ApiDown(..) | Fault::ApiFails(..) => 15,
            Fault::CacheFrozen(..) | Fault::StaleLists(..) => 16,
            Fault::WatchBreaks(..) | Fault::Compact => 17,
            Fault::Backup | Fault::Restore(_) => 20,
            Fault::GatewayRestart(..) | Fault::GatewayHop(..) | Fault::HopInTrouble(..) => 18,
            Fault::GatewayStalls(..) | Fault::AcksElsewhere(..) => 19,
        },
    }
}

fn mentions_replica(what: &What, replica: u8) -> bool {
    match *what {
        What::Tenant(_) => false,
        What::Operator(operator) => match operator {
            Operator::Pin(_, of)
            | Operator::Drain(of)
            | Operator::Undrain(of)
            | Operator::Restart(of, _)
            | Operator::DeleteLease(of)
            | Operator::TouchLease(of) => of == replica,
            Operator::Unpin(_) | Operator::DeleteMap | Operator::DeleteLeaderLease => false,
        },
        What::Fault(fault) => match fault {
            Fault::Crash(of, _)
            | Fault::CrashAtWrite(of, ..)
            | Fault::Pause(of, _)
            | Fault::ClockJump(of, _)
            | Fault::ClockDrift(of, _)
            | Fault::ClockRate(of, ..)
            | Fault::WallClock(of, _)
            | Fault::LateRequests(of, _)
            | Fault::WatchBreaks(of, _) => of == replica,
            Fault::Cut(one, other, _) => [one, other].contains(&End::Replica(replica)),
            _ => false,
        },
    }
}

fn mentions_cache(what: &What, cache: u8) -> bool {
    match *what {
        What::Fault(fault) => match fault {
            Fault::ApiDown(of, _)
            | Fault::ApiFails(of, ..)
            | Fault::CacheFrozen(of, _)
            | Fault::StaleLists(of, _) => of == cache,
            Fault::Cut(one, other, _) => [one, other].contains(&End::Api(cache)),
            _ => false,
        },
        What::Tenant(_) | What::Operator(_) => false,
    }
}

/// The same scenario without one gateway; those behind it move up.
fn without_gateway(scenario: &Scenario, gone: usize) -> Scenario {
    let mut smaller = scenario.clone();
    smaller.shape.gateways.remove(gone);
    let gone = u16::try_from(gone).unwrap_or(u16::MAX);
    let moved = |gateway: u16| (gateway != gone).then(|| gateway - u16::from(gateway > gone));
    let end = |end: End| match end {
        End::Gateway(gateway) => moved(gateway).map(End::Gateway),
        other => Some(other),
    };
    let fault = |fault: Fault| {
        Some(match fault {
            Fault::GatewayRestart(gateway) => Fault::GatewayRestart(moved(gateway)?),
            Fault::GatewayHop(gateway) => Fault::GatewayHop(moved(gateway)?),
            Fault::HopInTrouble(gateway, after) => Fault::HopInTrouble(moved(gateway)?, after),
            Fault::GatewayStalls(gateway, time) => Fault::GatewayStalls(moved(gateway)?, time),
            Fault::AcksElsewhere(gateway, time) => Fault::AcksElsewhere(moved(gateway)?, time),
            Fault::Cut(one, other, time) => Fault::Cut(end(one)?, end(other)?, time),
            other => other,
        })
    };
    smaller.plan = scenario
        .plan
        .iter()
        .filter_map(|planned| {
            let what = match planned.what {
                What::Fault(of) => What::Fault(fault(of)?),
                other => other,
            };
            Some(Planned { what, ..*planned })
        })
        .collect();
    smaller
}

fn namespace_of(what: &What) -> Option<u16> {
    match what {
        What::Tenant(
            Tenant::Put(place, _)
            | Tenant::Touch(place)
            | Tenant::Delete(place)
            | Tenant::DeleteSlowly(place, _),
        ) => Some(place.namespace),
        What::Tenant(Tenant::DeleteNamespace(namespace)) => Some(*namespace),
        What::Operator(Operator::Pin(namespace, _) | Operator::Unpin(namespace)) => Some(*namespace),
        What::Operator(_) | What::Fault(_) => None,
    }
}

fn name_of(what: &What) -> Option<u16> {
    match what {
        What::Tenant(Tenant::Put(place, spec)) => Some(u16::from(place.name.max(spec.leads_to.unwrap_or(0)))),
        What::Tenant(Tenant::Touch(place) | Tenant::Delete(place) | Tenant::DeleteSlowly(place, _)) => {
            Some(u16::from(place.name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{Size, draw};

    /// Breaks at the second of two acts that must both be there, in a world with at
    /// least so many gateways and replicas.
    fn breaks(scenario: &Scenario) -> Option<u64> {
        let find = |wanted: fn(&What) -> bool| scenario.plan.iter().find(|planned| wanted(&planned.what));
        let crash = find(|what| matches!(what, What::Fault(Fault::Crash(0, _))))?;
        let delete = find(|what| matches!(what, What::Tenant(Tenant::Delete(_))))?;
        let large = scenario.shape.gateways.len() >= 2 && scenario.shape.replicas >= 2;
        (large && scenario.weather.lost_acks > 0).then(|| crash.at.max(delete.at))
    }

    fn large() -> Scenario {
        let mut scenario = draw(7, Size::small(10));
        let gateway = scenario.shape.gateways[0].clone();
        scenario.shape.gateways = vec![gateway; 5];
        scenario.shape.replicas = 4;
        scenario.weather.lost_acks = 100;
        let last = scenario.plan.len() / 2;
        let at = scenario.plan[last].at;
        scenario.plan.insert(last, Planned { at, what: What::Fault(Fault::Crash(0, 100)) });
        scenario
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let scenario = large();
        assert!(scenario.plan.len() > 100, "{} acts", scenario.plan.len());
        let shrunk = shrink(scenario.clone(), &mut breaks, &mut || true);
        assert!(shrunk.minimal);
        let small = &shrunk.scenario;
        assert_eq!(small.plan.len(), 2, "{:?}", small.plan);
        assert_eq!((small.shape.gateways.len(), small.shape.replicas), (2, 2));
        assert_eq!(small.weather.lost_acks, 100);
        assert_eq!(small.weather.drift_ppm, 0);
        assert!(breaks(small).is_some());
        assert!(shrunk.played < 400, "{} plays", shrunk.played);
    }

    #[test]
    fn a_budget_that_is_used_up_leaves_the_best_so_far() {
        let mut left = 5;
        let mut more = || {
            left -= 1;
            left > 0
        };
        let shrunk = shrink(large(), &mut breaks, &mut more);
        assert!(!shrunk.minimal);
        assert!(breaks(&shrunk.scenario).is_some());
    }

    #[test]
    fn gateways_that_move_up_keep_their_faults() {
        let mut scenario = large();
        let fault = |fault| Planned { at: 0, what: What::Fault(fault) };
        scenario.plan = vec![
            fault(Fault::GatewayHop(0)),
            fault(Fault::GatewayHop(1)),
            fault(Fault::GatewayStalls(3, 9)),
            fault(Fault::Cut(End::Gateway(1), End::Replica(0), 9)),
            fault(Fault::Cut(End::Replica(0), End::Gateway(4), 9)),
        ];
        let smaller = without_gateway(&scenario, 1);
        let expected = vec![
            fault(Fault::GatewayHop(0)),
            fault(Fault::GatewayStalls(2, 9)),
            fault(Fault::Cut(End::Replica(0), End::Gateway(3), 9)),
        ];
        assert_eq!(smaller.plan, expected);
        assert_eq!(smaller.shape.gateways.len(), 4);
    }
}
