//! I7: a change of a quiet tenant has reached every healthy gateway after a stated
//! time, whatever other tenants do.
//!
//! Every such change is written down with the moment at which it is due; then all
//! gateways are looked at once. That costs one look per change and gateway, as much
//! as its delivery.

use std::collections::VecDeque;

use crate::bounds::Bounds;
use crate::gateways::Gateways;
use crate::ids::{At, Content, Names, NamespaceId, ObjectId};
use crate::truth::{Truth, What};
use crate::violation::{About, Fault, Invariant};

/// A change that is to arrive.
#[derive(Debug)]
struct Due {
    at: At,
    object: ObjectId,
    step: u32,
    changed: At,
}

/// Changes that are to arrive.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// In the order of time.
    due: VecDeque<Due>,
    /// By namespace: when its tenant last changed something.
    active: Vec<Option<At>>,
    /// Changes and gateways that were looked at.
    pub(crate) judged: u64,
}

impl Reach {
    /// Tenants changed what gateways are to have.
    pub(crate) fn changed(
        &mut self,
        at: At,
        bounds: &Bounds,
        namespace: NamespaceId,
        changes: &[(ObjectId, u32)],
    ) {
        if self.active.len() <= namespace.index() {
            self.active.resize(namespace.index() + 1, None);
        }
        let before = self.active[namespace.index()].replace(at);
        if before.is_none_or(|before| before.plus(bounds.rest) <= at) {
            let due = at.plus(bounds.reach);
            self.due.extend(changes.iter().map(|(object, step)| Due {
                at: due,
                object: *object,
                step: *step,
                changed: at,
            }));
        }
    }

    /// Whether what is due by now has arrived.
    pub(crate) fn arrived(
        &mut self,
        now: At,
        bounds: &Bounds,
        names: &Names,
        truth: &Truth,
        gateways: &Gateways,
    ) -> Result<(), Fault> {
        while let Some(due) = self.due.pop_front_if(|due| due.at <= now) {
            self.judge(&due, bounds, names, truth, gateways)?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        due: &Due,
        bounds: &Bounds,
        names: &Names,
        truth: &Truth,
        gateways: &Gateways,
    ) -> Result<(), Fault> {
        let Some(place) = truth.place(due.object) else { return Ok(()) };
        let since = &place.history[due.step as usize..];
        let vanished = since.iter().any(|step| step.what.is_nothing());
        for (id, gateway, stream) in gateways.connected() {
            let sound = gateways
                .sound_since(gateway, stream)
                .is_some_and(|sound| sound.plus(bounds.healthy) <= due.changed);
            if !sound || !stream.includes(names, due.object) {
                continue;
            }
            let refused = since.iter().any(|step| {
                matches!(step.what, What::Content(content)
                    if truth.content(content).is_some_and(|written| written.refused.by(id)))
            });
            if refused {
                continue;
            }
            self.judged += 1;
            let slot = gateway.slot(due.object);
            // What it holds may be what it was to have before and is to have again.
            let held = truth.content(Content(slot.content));
            let again = held.is_some_and(|written| written.object == due.object && written.last >= due.step);
            if slot.floor > due.step || again || (vanished && slot.content == 0) {
                continue;
            }
            let text = format!(
                "{} has not got the change of {} at {} (revision {})",
                names.of_gateway(id),
                names.of_object(due.object),
                due.changed,
                since.first().map_or(0, |step| step.revision),
            );
            let about = About {
                namespace: names.place(due.object).map(|(_, namespace)| namespace),
                object: Some(due.object),
                gateway: Some(id),
                instance: Some(stream.instance),
            };
            return Err(Fault::new(Invariant::I7, text, about));
        }
        Ok(())
    }
}
