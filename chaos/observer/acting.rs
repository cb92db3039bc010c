//! I1: at most one replica acts on a namespace, and no write of one that has lost it
//! stays over a later owner's.
//!
//! An instance acts on a namespace from the moment it believes so until it does not
//! any more, its time has run out by its own clock, or it is gone. Two that do so at
//! once break the promise, unless the clock of one of them is known to be wrong: no
//! protocol of leases holds then.
//!
//! **What is tolerated of a stalled owner.** It may ask whether it may act, stall,
//! and send its write after somebody else has taken over; no clock prevents that.
//! Such a write may be refused, or change nothing, or land where nobody has written
//! since; that it is corrected if it was wrong, I3 shows. It must never land on top
//! of a later owner's write: each time that an instance takes a namespace over is a
//! *term*, terms count up, and what is written in one may not follow what was written
//! in a later one.

use crate::event::Event;
use crate::ids::{At, InstanceId, Names, NamespaceId, ObjectId};
use crate::violation::{About, Fault, Invariant};

/// One instance's stand towards one namespace.
#[derive(Debug, Clone, Copy)]
struct Stand {
    instance: InstanceId,
    epoch: u64,
    term: u64,
    believes: bool,
}

#[derive(Debug, Clone, Default)]
struct Instance {
    until: At,
    untrusted: bool,
    /// What it believes that it acts on.
    namespaces: Vec<NamespaceId>,
}

/// Who acts on what.
#[derive(Debug, Default)]
pub(crate) struct Acting {
    /// By instance.
    instances: Vec<Instance>,
    /// By namespace: the last term of each instance that ever had one.
    stands: Vec<Vec<Stand>>,
    /// By object: the term of its last write by a replica.
    written: Vec<u64>,
    term: u64,
    /// Writes that landed after their writer's time.
    pub(crate) late: u64,
}

impl Acting {
    fn instance(&mut self, id: InstanceId) -> &mut Instance {
        if self.instances.len() <= id.index() {
            self.instances.resize_with(id.index() + 1, Instance::default);
        }
        &mut self.instances[id.index()]
    }

    fn stands(&mut self, namespace: NamespaceId) -> &mut Vec<Stand> {
        if self.stands.len() <= namespace.index() {
            self.stands.resize_with(namespace.index() + 1, Vec::new);
        }
        &mut self.stands[namespace.index()]
    }

    pub(crate) fn started(
        &mut self,
        at: At,
        names: &Names,
        instance: InstanceId,
        namespace: NamespaceId,
        epoch: u64,
    ) -> Result<(), Fault> {
        self.term += 1;
        let stand = Stand { instance, epoch, term: self.term, believes: true };
        let stands = self.stands(namespace);
        match stands.iter_mut().find(|known| known.instance == instance) {
            Some(known) if known.believes => {
                known.epoch = epoch;
                return Ok(());
            }
            Some(known) => *known = stand,
            None => stands.push(stand),
        }
        self.instance(instance).namespaces.push(namespace);
        self.alone(at, names, instance, namespace)
    }

    pub(crate) fn stopped(&mut self, instance: InstanceId, namespace: NamespaceId) {
        self.instance(instance).namespaces.retain(|other| *other != namespace);
        for stand in self.stands(namespace).iter_mut().filter(|stand| stand.instance == instance) {
            stand.believes = false;
        }
    }

    pub(crate) fn until(
        &mut self,
        at: At,
        names: &Names,
        instance: InstanceId,
        until: At,
    ) -> Result<(), Fault> {
        let known = self.instance(instance);
        let revived = known.until <= at && at < until;
        known.until = until;
        if revived {
            for namespace in self.instances[instance.index()].namespaces.clone() {
                self.alone(at, names, instance, namespace)?;
            }
        }
        Ok(())
    }

    pub(crate) fn untrusted(&mut self, instance: InstanceId) {
        self.instance(instance).untrusted = true;
    }

    pub(crate) fn ended(&mut self, instance: InstanceId) {
        for namespace in std::mem::take(&mut self.instance(instance).namespaces) {
            self.stopped(instance, namespace);
        }
    }

    /// Whether an instance acts, whatever on.
    fn acts(&self, at: At, stand: &Stand) -> bool {
        stand.believes && self.instances.get(stand.instance.index()).is_some_and(|known| at < known.until)
    }

    /// Whether `instance`, if it acts on a namespace, is the only one.
    fn alone(
        &self,
        at: At,
        names: &Names,
        instance: InstanceId,
        namespace: NamespaceId,
    ) -> Result<(), Fault> {
        let stands = &self.stands[namespace.index()];
        let trusted = |id: InstanceId| self.instances.get(id.index()).is_none_or(|known| !known.untrusted);
        let Some(own) = stands.iter().find(|stand| stand.instance == instance) else { return Ok(()) };
        if !self.acts(at, own) || !trusted(instance) {
            return Ok(());
        }
        let other = stands
            .iter()
            .find(|stand| stand.instance != instance && self.acts(at, stand) && trusted(stand.instance));
        let Some(other) = other else { return Ok(()) };
        let text = format!(
            "{} acts on {} (epoch {}) while {} does (epoch {}, until {})",
            names.of_instance(instance),
            names.of_namespace(namespace),
            own.epoch,
            names.of_instance(other.instance),
            other.epoch,
            self.instances[other.instance.index()].until,
        );
        let about = About { namespace: Some(namespace), instance: Some(instance), ..About::default() };
        Err(Fault::new(Invariant::I1, text, about))
    }

    /// A replica's write landed and changed an object.
    pub(crate) fn wrote(
        &mut self,
        at: At,
        names: &Names,
        instance: InstanceId,
        object: ObjectId,
    ) -> Result<(), Fault> {
        let Some((_, namespace)) = names.place(object) else { return Ok(()) };
        let about = About {
            namespace: Some(namespace),
            object: Some(object),
            instance: Some(instance),
            gateway: None,
        };
        let stand = self.stands(namespace).iter().find(|stand| stand.instance == instance).copied();
        let Some(stand) = stand else {
            let text = format!(
                "{} wrote {} and has never acted on {}",
                names.of_instance(instance),
                names.of_object(object),
                names.of_namespace(namespace)
            );
            return Err(Fault::new(Invariant::I1, text, about));
        };
        self.late += u64::from(!self.acts(at, &stand));
        if self.written.len() <= object.index() {
            self.written.resize(object.index() + 1, 0);
        }
        let last = &mut self.written[object.index()];
        if stand.term < *last {
            let text = format!(
                "{} wrote {} over what a later owner of {} had written",
                names.of_instance(instance),
                names.of_object(object),
                names.of_namespace(namespace)
            );
            return Err(Fault::new(Invariant::I1, text, about));
        }
        *last = stand.term;
        Ok(())
    }

    /// An object is gone: what is written of the next one at its place stands alone.
    pub(crate) fn forget(&mut self, object: ObjectId) {
        if let Some(last) = self.written.get_mut(object.index()) {
            *last = 0;
        }
    }

    /// Takes what it is about.
    pub(crate) fn see(&mut self, at: At, names: &Names, event: &Event<'_>) -> Result<(), Fault> {
        match *event {
            Event::ActingStarted { instance, namespace, epoch } => {
                self.started(at, names, instance, namespace, epoch)
            }
            Event::ActingUntil { instance, until } => self.until(at, names, instance, until),
            Event::ActingStopped { instance, namespace } => {
                self.stopped(instance, namespace);
                Ok(())
            }
            Event::ClockUntrusted { instance } => {
                self.untrusted(instance);
                Ok(())
            }
            Event::InstanceEnded { instance } => {
                self.ended(instance);
                Ok(())
            }
            Event::StatusWritten { instance, object, .. } => self.wrote(at, names, instance, object),
            Event::Deleted { object, .. } | Event::Restored { object, .. } => {
                self.forget(object);
                Ok(())
            }
            Event::HistoryReplaced => {
                self.instances.iter_mut().for_each(|known| known.untrusted = true);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
