//! Measures what one's namespaces weigh, damped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::load::{LoadReport, Weight};
use crate::ids::Epoch;
use crate::ring::Position;
use crate::time::Mono;

/// Change rates are averages over about this time.
const MEMORY: Duration = Duration::from_secs(300);

/// What is counted of one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Its objects of all kinds.
    pub objects: u64,
    /// The sum of their generations, which grows by one with every change of a
    /// spec. It falls with deletions, which count as no change.
    pub changes: u64,
}

#[derive(Debug)]
struct Measured {
    changes: u64,
    /// Changes per minute, in thousandths.
    rate: u64,
    weight: Weight,
}

/// Turns counts into weights. A weight moves only when what was measured is
/// more than an eighth away from it, and rates follow slowly, as an
/// exponentially weighted mean; all in integers, so that it is exact everywhere.
#[derive(Debug, Default)]
pub struct Meter {
    measured: BTreeMap<Arc<str>, Measured>,
    at: Option<Mono>,
}

impl Meter {
    /// Takes the counts of all namespaces that there are; others are forgotten.
    /// What had changed before a namespace was seen first does not count.
    pub fn observe(&mut self, now: Mono, samples: &BTreeMap<Arc<str>, Sample>) {
        let elapsed = self.at.map_or(0, |at| now.since(at).as_millis());
        self.at = Some(now);
        self.measured.retain(|namespace, _| samples.contains_key(namespace));
        for (namespace, sample) in samples {
            match self.measured.get_mut(namespace) {
                None => {
                    let weight = Weight::nearest(raw(sample, 0));
                    let measured = Measured { changes: sample.changes, rate: 0, weight };
                    self.measured.insert(namespace.clone(), measured);
                }
                Some(measured) => measured.observe(elapsed, sample),
            }
        }
    }

    /// The weights of those namespaces that `owns` says are ours in `epoch`.
    pub fn report(&self, epoch: Epoch, owns: impl Fn(&str) -> bool) -> LoadReport {
        let own = self.measured.iter().filter(|(namespace, _)| owns(namespace));
        LoadReport::new(
            epoch,
            own.map(|(namespace, measured)| (Position::of(namespace), measured.weight)).collect(),
        )
    }
}

impl Measured {
    fn observe(&mut self, elapsed: u128, sample: &Sample) {
        let changes = u128::from(sample.changes.saturating_sub(self.changes));
        // Two looks at one moment are one.
        if let Some(now) = (changes * 60_000_000).checked_div(elapsed) {
            let memory = MEMORY.as_millis();
            let rate = (u128::from(self.rate) * memory + now * elapsed) / (memory + elapsed);
            self.rate = u64::try_from(rate).unwrap_or(u64::MAX);
            self.changes = sample.changes;
        }
        let raw = raw(sample, self.rate);
        if raw.abs_diff(self.weight.value()) > self.weight.value() / 8 {
            self.weight = Weight::nearest(raw);
        }
    }
}

/// One for being there, one for each object, one for each change per minute.
fn raw(sample: &Sample, rate: u64) -> u64 {
    1_u64.saturating_add(sample.objects).saturating_add(rate / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_origin(Duration::from_secs(seconds))
    }

    fn samples(objects: u64, changes: u64) -> BTreeMap<Arc<str>, Sample> {
        BTreeMap::from([("ns".into(), Sample { objects, changes })])
    }

    fn weight(meter: &Meter) -> Option<u64> {
        meter.report(Epoch(1), |_| true).entries.first().map(|(_, weight)| weight.value())
    }

    #[test]
    fn what_changed_before_the_first_look_is_no_rate() {
        let mut meter = Meter::default();
        meter.observe(at(0), &samples(9, 5_000));
        meter.observe(at(10), &samples(9, 5_000));
        assert_eq!(weight(&meter), Some(10));
    }

    #[test]
    fn a_lasting_rate_is_reached_and_a_burst_is_smoothed() {
        let mut meter = Meter::default();
        meter.observe(at(0), &samples(1, 0));
        meter.observe(at(10), &samples(1, 200));
        let burst = weight(&meter).unwrap();
        assert!((30..60).contains(&burst), "1200 a minute for ten seconds count {burst}");
        for step in 2..400 {
            meter.observe(at(step * 10), &samples(1, step * 200));
        }
        let lasting = weight(&meter).unwrap();
        assert!((1_050..=1_350).contains(&lasting), "1200 a minute count {lasting}");
        for step in 400..800 {
            meter.observe(at(step * 10), &samples(1, 80_000));
        }
        assert_eq!(weight(&meter), Some(2), "it is forgotten");
    }

    #[test]
    fn small_changes_do_not_move_a_weight() {
        let mut meter = Meter::default();
        meter.observe(at(0), &samples(99, 0));
        let before = weight(&meter);
        for (step, objects) in [103, 95, 107, 99].into_iter().enumerate() {
            meter.observe(at(10 + step as u64), &samples(objects, 0));
            assert_eq!(weight(&meter), before, "with {objects} objects");
        }
        meter.observe(at(20), &samples(150, 0));
        assert_ne!(weight(&meter), before);
    }

    #[test]
    fn what_is_not_ours_or_is_gone_is_not_reported() {
        let mut meter = Meter::default();
        meter.observe(at(0), &samples(1, 0));
        assert_eq!(meter.report(Epoch(1), |_| false), LoadReport::new(Epoch(1), Vec::new()));
        meter.observe(at(1), &BTreeMap::new());
        assert_eq!(weight(&meter), None);
    }
}
