//! What each gateway holds, and the promises that concern one gateway and one
//! object: I2 (never back), I4 (no deletion that nobody asked for), I5 (a gateway
//! without a stream keeps what it has).

use crate::event::{Removal, Subject};
use crate::ids::{At, Content, GatewayId, InstanceId, Names, NamespaceId, ObjectId};
use crate::truth::{Place, Truth, What};
use crate::violation::{About, Fault, Invariant};

/// What a gateway holds of one object.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    /// One more than the step of the object's history that it has seen at least;
    /// 0: none. It never goes back while the gateway's process lives.
    pub(crate) floor: u32,
    /// 0: nothing.
    pub(crate) content: u32,
    pub(crate) resolved: u32,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) instance: InstanceId,
    pub(crate) since: At,
    /// Empty: all.
    namespaces: Vec<NamespaceId>,
    /// 0: all.
    kinds: u32,
}

impl Stream {
    /// Whether an object is among what was asked for.
    pub(crate) fn includes(&self, names: &Names, object: ObjectId) -> bool {
        names.place(object).is_some_and(|(kind, namespace)| {
            (self.kinds == 0 || self.kinds & kind.bit() != 0)
                && (self.namespaces.is_empty() || self.namespaces.contains(&namespace))
        })
    }
}

/// One gateway.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) stream: Option<Stream>,
    /// By object.
    slots: Vec<Slot>,
    health: Health,
}

impl Gateway {
    pub(crate) fn slot(&self, object: ObjectId) -> Slot {
        self.slots.get(object.index()).copied().unwrap_or_default()
    }
}

/// How many faults something suffers from, and since when it suffers from none.
#[derive(Debug, Clone, Copy, Default)]
struct Health {
    faults: u32,
    since: At,
}

impl Health {
    fn impaired(&mut self) {
        self.faults += 1;
    }

    fn recovered(&mut self, at: At) {
        self.faults = self.faults.saturating_sub(1);
        self.since = at;
    }

    /// Since when it works; `None` while it does not.
    fn works_since(&self) -> Option<At> {
        (self.faults == 0).then_some(self.since)
    }
}

/// All gateways.
#[derive(Debug, Default)]
pub(crate) struct Gateways {
    pub(crate) list: Vec<Gateway>,
    /// By instance.
    instances: Vec<Health>,
    api_server: Health,
    network: Health,
    /// Removals that were judged.
    pub(crate) removals: u64,
}

fn about(gateway: GatewayId, object: ObjectId, names: &Names) -> About {
    let namespace = names.place(object).map(|(_, namespace)| namespace);
    About { namespace, object: Some(object), gateway: Some(gateway), instance: None }
}

impl Gateways {
    fn get_mut(&mut self, gateway: GatewayId) -> &mut Gateway {
        if self.list.len() <= gateway.index() {
            self.list.resize_with(gateway.index() + 1, Gateway::default);
        }
        &mut self.list[gateway.index()]
    }

    /// Those with a stream.
    pub(crate) fn connected(&self) -> impl Iterator<Item = (GatewayId, &Gateway, &Stream)> {
        self.list.iter().enumerate().filter_map(|(index, gateway)| {
            let stream = gateway.stream.as_ref()?;
            Some((GatewayId(u32::try_from(index).unwrap_or(u32::MAX)), gateway, stream))
        })
    }

    pub(crate) fn connect(
        &mut self,
        at: At,
        gateway: GatewayId,
        instance: InstanceId,
        namespaces: &[NamespaceId],
        kinds: u32,
    ) {
        self.get_mut(gateway).stream =
            Some(Stream { instance, since: at, namespaces: namespaces.to_vec(), kinds });
    }

    pub(crate) fn disconnect(&mut self, gateway: GatewayId) {
        self.get_mut(gateway).stream = None;
    }

    pub(crate) fn restart(&mut self, gateway: GatewayId) {
        let known = self.get_mut(gateway);
        known.slots.clear();
        known.stream = None;
    }

    fn health(&mut self, subject: Subject) -> &mut Health {
        match subject {
            Subject::ApiServer => &mut self.api_server,
            Subject::Network => &mut self.network,
            Subject::Gateway(gateway) => &mut self.get_mut(gateway).health,
            Subject::Instance(instance) => {
                if self.instances.len() <= instance.index() {
                    self.instances.resize(instance.index() + 1, Health::default());
                }
                &mut self.instances[instance.index()]
            }
        }
    }

    pub(crate) fn impaired(&mut self, subject: Subject) {
        self.health(subject).impaired();
    }

    pub(crate) fn recovered(&mut self, at: At, subject: Subject) {
        self.health(subject).recovered(at);
    }

    /// Since when a gateway is connected and everything on the way to it works.
    pub(crate) fn sound_since(&self, gateway: &Gateway, stream: &Stream) -> Option<At> {
        let instance = self.instances.get(stream.instance.index()).copied().unwrap_or_default();
        let all = [gateway.health, instance, self.api_server, self.network];
        all.iter().try_fold(stream.since, |since, health| Some(since.max(health.works_since()?)))
    }

    /// A gateway holds something from now on.
    pub(crate) fn holds(
        &mut self,
        names: &Names,
        truth: &Truth,
        gateway: GatewayId,
        object: ObjectId,
        content: Content,
        resolved: u32,
    ) -> Result<(), Fault> {
        let known = self.get_mut(gateway);
        let fault = |invariant, text: String| {
            let text = format!("{} {text}", names.of_gateway(gateway));
            Err(Fault::new(invariant, text, about(gateway, object, names)))
        };
        if known.stream.is_none() {
            return fault(Invariant::I5, format!("got {} without a stream", names.of_object(object)));
        }
        if known.slots.len() <= object.index() {
            known.slots.resize(object.index() + 1, Slot::default());
        }
        let slot = &mut known.slots[object.index()];
        let written = truth.content(content).filter(|written| written.object == object);
        let Some(written) = written.filter(|written| written.first != u32::MAX) else {
            let text =
                format!("holds content {} of {}, which none is to have", content.0, names.of_object(object));
            return fault(Invariant::I3, text);
        };
        // Nearly always the content stands in the history once.
        let floor = if slot.floor <= written.first + 1 {
            written.first + 1
        } else {
            let Some(place) = truth.place(object).filter(|_| slot.floor <= written.last + 1) else {
                let seen = truth.place(object).and_then(|place| place.history.get(slot.floor as usize - 1));
                let text = format!(
                    "went back to content {} of {} (generation {}) after it had seen revision {}",
                    content.0,
                    names.of_object(object),
                    written.generation,
                    seen.map_or(0, |step| step.revision),
                );
                return fault(Invariant::I2, text);
            };
            first_from(place, slot.floor - 1, |what| what == What::Content(content)).unwrap_or(slot.floor)
        };
        *slot = Slot { floor, content: content.0, resolved };
        Ok(())
    }

    /// A gateway holds something no more.
    pub(crate) fn dropped(
        &mut self,
        names: &Names,
        truth: &Truth,
        gateway: GatewayId,
        object: ObjectId,
        by: Removal,
    ) -> Result<(), Fault> {
        self.removals += 1;
        let known = self.get_mut(gateway);
        let fault = |invariant, text: String| {
            let text =
                format!("{} lost {} by {by:?}{text}", names.of_gateway(gateway), names.of_object(object));
            Err(Fault::new(invariant, text, about(gateway, object, names)))
        };
        let Some(stream) = &known.stream else {
            return fault(Invariant::I5, " without a stream".to_owned());
        };
        let outside = !stream.includes(names, object);
        let slot = known.slots.get_mut(object.index()).filter(|slot| slot.content != 0);
        let (Some(slot), Some(place)) = (slot, truth.place(object)) else { return Ok(()) };
        let seen = slot.floor.saturating_sub(1);
        slot.content = 0;
        let gone = first_from(place, seen, What::is_nothing);
        let refuses = |what: What| {
            matches!(what, What::Content(content)
                if truth.content(content).is_some_and(|written| written.refused.by(gateway)))
        };
        let refused = first_from(place, seen, refuses);
        if let Some(gone) = gone {
            // Without what it refuses it need not have seen what came after that.
            if refused.is_none_or(|refused| refused > gone) {
                slot.floor = gone;
            }
            return Ok(());
        }
        if outside || refused.is_some() {
            return Ok(());
        }
        let text = format!(
            ", which is there since revision {} and was not to be removed",
            place.history.get(seen as usize).map_or(0, |step| step.revision)
        );
        fault(Invariant::I4, text)
    }
}

/// One more than the first step from `from` on of which `wanted` is true.
fn first_from(place: &Place, from: u32, wanted: impl Fn(What) -> bool) -> Option<u32> {
    let found = place.history.get(from as usize..)?.iter().position(|step| wanted(step.what))?;
    Some(from + u32::try_from(found).ok()? + 1)
}
