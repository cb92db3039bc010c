//! I3: when changes stop, every connected gateway holds exactly what the API server
//! says, and every status says so. And at any time: a status that says "everywhere"
//! is true.

use crate::bounds::Bounds;
use crate::event::{Claim, Ready};
use crate::gateways::{Gateway, Gateways, Slot, Stream};
use crate::ids::{At, GatewayId, InstanceId, Names, ObjectId};
use crate::truth::{Live, Refusal, Truth, What};
use crate::violation::{About, Fault, Invariant};

fn about(names: &Names, object: ObjectId) -> About {
    let namespace = names.place(object).map(|(_, namespace)| namespace);
    About { namespace, object: Some(object), ..About::default() }
}

/// What is wrong with what a gateway holds of an object.
fn mismatch(
    names: &Names,
    truth: &Truth,
    gateway: GatewayId,
    stream: &Stream,
    object: ObjectId,
    slot: Slot,
) -> Option<String> {
    let wanted = truth.place(object).map_or(What::Gone, |place| place.now());
    let content = match wanted {
        What::Content(content) if stream.includes(names, object) => content,
        What::Content(_) => return (slot.content != 0).then(|| "and has not asked for it".to_owned()),
        nothing => return (slot.content != 0).then(|| format!("and is to hold nothing of it: {nothing:?}")),
    };
    let written = truth.content(content)?;
    if written.refused.by(gateway) {
        // It keeps its last good content, or has none.
        return (slot.content == content.0).then(|| "which it refuses".to_owned());
    }
    if slot.content != content.0 {
        return Some(format!("and is to hold content {}", content.0));
    }
    let resolved = truth.resolved(written);
    (slot.resolved != resolved)
        .then(|| format!("with references {:b} and is to have them as {resolved:b}", slot.resolved))
}

/// Whether a gateway holds exactly what it is to hold.
pub(crate) fn equal(
    names: &Names,
    truth: &Truth,
    id: GatewayId,
    gateway: &Gateway,
    stream: &Stream,
) -> Result<(), Fault> {
    let there = (0..truth.places.len()).map(|index| ObjectId(u32::try_from(index).unwrap_or(u32::MAX)));
    for object in there {
        let slot = gateway.slot(object);
        if let Some(wrong) = mismatch(names, truth, id, stream, object, slot) {
            let holds = match slot.content {
                0 => "nothing".to_owned(),
                content => format!("content {content}"),
            };
            let text =
                format!("{} holds {holds} of {} {wrong}", names.of_gateway(id), names.of_object(object));
            let about = About { gateway: Some(id), ..about(names, object) };
            return Err(Fault::new(Invariant::I3, text, about));
        }
    }
    Ok(())
}

/// What an object's status is to say when all is settled.
fn owed(names: &Names, truth: &Truth, gateways: &Gateways, object: ObjectId, live: &Live) -> Ready {
    match truth.place(object).map_or(What::Gone, |place| place.now()) {
        What::Invalid | What::Gone => return Ready::Invalid,
        What::Displaced => return Ready::Conflict,
        What::Content(_) => {}
    }
    let (mut asked, mut refused) = (0, 0);
    for (id, _, stream) in gateways.connected() {
        if stream.includes(names, object) {
            asked += 1;
            refused += u32::from(truth.content(live.content).is_some_and(|written| written.refused.by(id)));
        }
    }
    match (asked, refused) {
        (0, _) => Ready::NoGateways,
        (_, 0) => Ready::True { gateways: asked },
        _ => Ready::Rejected { applied: asked - refused, gateways: asked },
    }
}

/// Whether a status says what can be known of a content that is left out in silence:
/// how many are to have it.
fn says_as_much(says: Claim, owed: Claim) -> bool {
    let Ready::Rejected { gateways: asked, .. } = owed.ready else { return false };
    let known = matches!(says.ready, Ready::True { gateways } | Ready::Rejected { gateways, .. } if gateways == asked);
    says.generation == owed.generation && known
}

/// Whether every status says what is true.
pub(crate) fn statuses(names: &Names, truth: &Truth, gateways: &Gateways) -> Result<(), Fault> {
    for (index, place) in truth.places.iter().enumerate() {
        let Some(live) = &place.live else { continue };
        let object = ObjectId(u32::try_from(index).unwrap_or(u32::MAX));
        let owed = Claim { generation: live.generation, ready: owed(names, truth, gateways, object, live) };
        let silent = truth.content(live.content).is_some_and(|written| written.refused == Refusal::Silently);
        if !live.status.is_some_and(|says| says == owed || silent && says_as_much(says, owed)) {
            let says = live.status.map_or("nothing".to_owned(), |says| format!("{says:?}"));
            let text =
                format!("the status of {} says {says} and is to say {owed:?}", names.of_object(object));
            return Err(Fault::new(Invariant::I3, text, about(names, object)));
        }
    }
    Ok(())
}

/// Whether a status that has just been written and says "everywhere" is true, as far
/// as its writer can know. Returns whether there was anything to judge.
pub(crate) fn truthful(
    at: At,
    bounds: &Bounds,
    names: &Names,
    truth: &Truth,
    gateways: &Gateways,
    (instance, object, says): (InstanceId, ObjectId, Claim),
) -> Result<bool, Fault> {
    let place = truth.place(object);
    let (Some(place), Ready::True { .. }) = (place, says.ready) else { return Ok(false) };
    let Some(live) = place.live.as_ref().filter(|live| live.generation == says.generation) else {
        return Ok(false);
    };
    let Some(written) = truth.content(live.content).filter(|written| written.first != u32::MAX) else {
        let text = format!(
            "{} says of {} (generation {}) that gateways have it, and none is to have it",
            names.of_instance(instance),
            names.of_object(object),
            says.generation
        );
        return Err(Fault::new(
            Invariant::I3,
            text,
            About { instance: Some(instance), ..about(names, object) },
        ));
    };
    let mut judged = false;
    if written.refused == Refusal::Silently {
        return Ok(judged);
    }
    for (id, gateway, stream) in gateways.connected() {
        let known =
            gateways.sound_since(gateway, stream).is_some_and(|since| since.plus(bounds.hearsay) <= at);
        if !known || !stream.includes(names, object) {
            continue;
        }
        judged = true;
        if gateway.slot(object).floor <= written.first {
            let text = format!(
                "{} says of {} (generation {}) that all have it, and {} has never had it",
                names.of_instance(instance),
                names.of_object(object),
                says.generation,
                names.of_gateway(id)
            );
            let about = About { instance: Some(instance), gateway: Some(id), ..about(names, object) };
            return Err(Fault::new(Invariant::I3, text, about));
        }
    }
    Ok(judged)
}
