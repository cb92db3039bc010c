//! Measures what a replica's namespaces weigh and tells it, as
//! `src/runtime/replica/voices` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_core::coordination::Event;
use flotilla_core::ids::{Epoch, Instance, Kind, MemberName};
use flotilla_core::placement::{LoadReport, Meter, Sample};
use flotilla_core::ring::Position;
use flotilla_core::time::Mono;

use crate::clock::SECONDS;
use crate::world::{Occurrence, World};

/// How often it is measured, and told under the same map.
const MEASURED: u64 = 2 * SECONDS;
const TOLD: u64 = 10 * SECONDS;

/// See the module's description.
#[derive(Default)]
pub struct Weighing {
    meter: Meter,
    told: Option<(u64, Epoch, Arc<LoadReport>)>,
    /// What each member last told us of its own.
    pub reported: BTreeMap<MemberName, Arc<LoadReport>>,
}

/// By what a replica plans a map: told to the observer when the map is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBy {
    /// The process.
    pub planner: Instance,
    /// When, by its clock.
    pub clock: Mono,
    /// By namespace: what it weighs; `None` while not all have told by the map in force.
    pub weights: Option<Vec<u64>>,
}

impl World<'_> {
    /// By what a process judges now if it plans a map.
    pub(crate) fn planned_by(&self, slot: usize) -> Option<Box<PlannedBy>> {
        let process = self.slots[slot].process.as_ref()?;
        let ownership = process.coordinator.ownership();
        let reports: Option<Vec<&Arc<LoadReport>>> = ownership.and_then(|ownership| {
            let told = |name| process.weighing.reported.get(name);
            let by_it = |report: &&Arc<LoadReport>| report.epoch >= ownership.epoch();
            ownership.map().members.iter().map(|member| told(&member.name).filter(by_it)).collect()
        });
        let weight = |reports: &[&Arc<LoadReport>], position| {
            let entries = reports.iter().flat_map(|report| &report.entries);
            entries.filter(|(at, _)| *at == position).map(|(_, weight)| weight.value()).max().unwrap_or(0)
        };
        let positions = self.universe.namespaces().iter().map(|name| Position::of(name));
        let weights = reports.map(|reports| positions.map(|position| weight(&reports, position)).collect());
        let (planner, clock) = (process.instance.clone(), process.local(self.now));
        Some(Box::new(PlannedBy { planner, clock, weights }))
    }

    /// A process measures what its namespaces weigh.
    pub(crate) fn weigh(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let life = process.life;
        self.queue.push(now + MEASURED, Occurrence::Weigh { slot, life });
        if !process.engine.store().ready() {
            return;
        }
        let mut samples: BTreeMap<Arc<str>, Sample> = BTreeMap::new();
        for kind in Kind::ALL {
            // Objects come in the order of their namespaces.
            let mut current: Option<(&Arc<str>, Sample)> = None;
            let mut add = |namespace: &Arc<str>, sample: Sample| {
                let sum = samples.entry(namespace.clone()).or_default();
                sum.objects += sample.objects;
                sum.changes += sample.changes;
            };
            for object in process.engine.objects(kind) {
                let namespace = &object.key.namespace;
                if let Some((before, sample)) = current.take_if(|(before, _)| *before != namespace) {
                    add(before, sample);
                }
                let (_, sample) = current.get_or_insert((namespace, Sample::default()));
                sample.objects += 1;
                sample.changes += u64::try_from(object.generation).unwrap_or(0);
            }
            if let Some((namespace, sample)) = current {
                add(namespace, sample);
            }
        }
        let local = process.local(now);
        let ownership = process.shown.ownership.clone();
        let epoch = ownership.as_ref().map(|ownership| ownership.epoch()).unwrap_or_default();
        let member = process.member.clone();
        let own = |namespace: &str| {
            ownership.as_ref().and_then(|ownership| ownership.owner(namespace)) == Some(&member)
        };
        process.weighing.meter.observe(local, &samples);
        let report = process.weighing.meter.report(epoch, own);
        let due = process
            .weighing
            .told
            .as_ref()
            .is_none_or(|(at, of, told)| **told != report && (*of != epoch || now >= at + TOLD));
        if due {
            let report = Arc::new(report);
            process.weighing.told = Some((now, epoch, report.clone()));
            process.outbox.loads = Some(report.clone());
            self.speak(slot);
            self.coordinate(slot, Event::Loads { member, report });
        }
    }
}
