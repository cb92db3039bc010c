//! A replica's engine and its watches.

use std::fmt;
use std::sync::Arc;

use flotilla_core::compile::{Compilation, Compiled, Compiler};
use flotilla_core::delivery::{Action, Delivery, DeliveryConfig, Unlimited};
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::time::Mono;

use super::model::{Event, KINDS, Log};

/// Long after every guard has passed.
pub const NOW: Mono = Mono(1 << 40);

/// The spec as it is.
#[derive(Debug, Clone, Copy)]
pub struct Verbatim;

impl Compiler for Verbatim {
    fn compile(&self, object: &RawObject, _exists: &dyn Fn(Kind, &ObjectKey) -> bool) -> Compilation {
        let compiled = Compiled { spec_json: object.spec.clone(), rank: 0 };
        Compilation { outcome: Ok(compiled), references: Vec::new(), claims: Vec::new() }
    }
}

/// The product's engine; shared between states until one of them changes it.
#[derive(Clone)]
pub struct Engine(Arc<Delivery<Verbatim>>);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine at {:?}", self.0.frontier().0)
    }
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Whether its process runs.
    pub alive: bool,
    /// The product's engine.
    pub engine: Engine,
    /// Per kind how far its watch has come.
    pub seen: [u64; 2],
    /// The revision that it listed at its start.
    pub listed: u64,
    /// Questions for deletions that nobody has answered yet: kind and since when.
    pub asked: Vec<(usize, u64)>,
    /// Sessions so far, for their names.
    pub sessions: u64,
}

impl Replica {
    /// A process that has just listed everything.
    pub fn start(log: &Log, tombstones: usize, message_limit: u64) -> Self {
        let config = DeliveryConfig {
            duty_cycle: 1.0,
            max_pause: std::time::Duration::ZERO,
            version_refresh: std::time::Duration::ZERO,
            tombstones,
            message_limit,
            ..DeliveryConfig::avapigw("0000c1a5")
        };
        let mut delivery = Delivery::new(config, Verbatim);
        let head = log.head();
        for kind in Kind::ALL {
            match KINDS.iter().position(|known| *known == kind) {
                Some(index) => delivery.listed(kind, Revision(head), log.list(index)),
                // Nothing ever happens to the other kinds.
                None => delivery.listed(kind, Revision(1), Vec::new()),
            };
        }
        let engine = Engine(Arc::new(delivery));
        Replica { alive: true, engine, seen: [head; 2], listed: head, asked: Vec::new(), sessions: 0 }
    }

    /// The engine, to look at.
    pub fn delivery(&self) -> &Delivery<Verbatim> {
        &self.engine.0
    }

    /// The engine, to change.
    pub fn change(&mut self) -> &mut Delivery<Verbatim> {
        Arc::make_mut(&mut self.engine.0)
    }

    /// The watch of a kind shows the next event or, when there is none, that
    /// there is none up to the end of the log.
    pub fn watch(&mut self, kind: usize, log: &Log) {
        let next = log.next(kind, self.seen[kind]);
        self.seen[kind] = next.as_ref().map_or(log.head(), Event::revision);
        let delivery = self.change();
        match next {
            Some(Event::Changed(object)) => delivery.changed(object),
            Some(Event::Deleted(key, revision)) => delivery.deleted(KINDS[kind], &key, revision),
            None => delivery.bookmark(KINDS[kind], Revision(log.head())),
        }
    }

    /// Lets the engine decide; returns what it wants done but for questions,
    /// which are noted.
    pub fn poll(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.delivery().next_deadline().is_some_and(|due| due <= NOW) {
            let decided = self.change().poll(NOW, &mut Unlimited);
            for action in decided {
                match action {
                    Action::NeedHistory { kind, since } => {
                        if let Some(kind) = KINDS.iter().position(|known| *known == kind) {
                            self.asked.push((kind, since.0));
                        }
                    }
                    action => actions.push(action),
                }
            }
        }
        self.asked.sort_unstable();
        self.asked.dedup();
        actions
    }
}
