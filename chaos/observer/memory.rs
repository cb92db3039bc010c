//! I9: what a replica keeps is bounded by objects and gateways, never by the changes
//! that a gateway has not seen.

use crate::bounds::Bounds;
use crate::event::Memory;
use crate::ids::Names;
use crate::violation::{About, Fault, Invariant};

/// Judges the memory of one instance; `gateways` and `objects` are how many there
/// are at most.
pub(crate) fn bounded(
    bounds: &Bounds,
    names: &Names,
    memory: &Memory,
    objects: usize,
    gateways: usize,
) -> Result<(), Fault> {
    let (objects, gateways) = (objects as f64, gateways as f64);
    // A session may outlive its gateway's move to another replica for a while.
    let sessions = 2.0 * gateways + 1.0;
    let items = bounds.queued_per_object * objects + bounds.queued_per_session * gateways + bounds.items_base;
    let bytes = bounds.bytes_per_object * objects + bounds.bytes_per_session * gateways + bounds.bytes_base;
    let limits = [
        ("sessions", memory.sessions, sessions),
        ("objects", memory.objects, objects),
        ("remembered deletions", memory.tombstones, bounds.tombstones as f64),
        ("items kept for delivery", memory.queued, items),
        ("bytes kept for delivery", memory.queued_bytes, bytes),
    ];
    for (what, number, limit) in limits {
        if number as f64 > limit {
            let text = format!(
                "{} keeps {number} {what}; {limit:.0} are allowed with {objects} objects and {gateways} gateways",
                names.of_instance(memory.instance)
            );
            let about = About { instance: Some(memory.instance), ..About::default() };
            return Err(Fault::new(Invariant::I9, text, about));
        }
    }
    Ok(())
}
