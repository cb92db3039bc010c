//! Whether a write may be admitted.

use std::time::Duration;

use anyhow::Context as _;
use flotilla_avapigw::{Conflicts, Scope};
use flotilla_core::claims::Taken;
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;
use flotilla_core::time::Mono;

use super::routes::{BEGIN, MANY, route, routes};
use crate::meter::Meter;

/// Writes of which nobody is in the way, and as many of which somebody is.
const WRITES: u32 = 1_000;

/// Judges writes as the owner of a namespace does.
pub fn conflicts(meter: &mut Meter) -> anyhow::Result<()> {
    let mut conflicts = Conflicts::new(Scope::Namespace);
    for kind in Kind::ALL {
        conflicts.listed(kind, &if kind == Kind::ApiRoute { routes(MANY) } else { Vec::new() });
    }
    let new = |number: u32| route(MANY + number, 0, BEGIN);
    let same = |number: u32| {
        let there = route(number * 7, 0, BEGIN);
        let key = ObjectKey::new(there.key.namespace.as_ref(), format!("other-{number}").as_str());
        RawObject { key, ..there }
    };
    let writes: Vec<RawObject> = (0..WRITES).flat_map(|number| [new(number), same(number)]).collect();
    let mut now = Mono::from_origin(Duration::from_secs(1_000));
    let mut judge = |object: &RawObject| -> Vec<Taken> {
        now = now + Duration::from_millis(10);
        let claims = conflicts.new_claims(object, None);
        conflicts.admit(now, object.kind, &object.key, &claims, true)
    };
    let refused = meter.count(|| writes.iter().filter(|object| !judge(object).is_empty()).count());
    let refused = refused.context("it was not done")?;
    anyhow::ensure!(refused == WRITES as usize, "{refused} of {} writes were refused", writes.len());
    Ok(())
}
