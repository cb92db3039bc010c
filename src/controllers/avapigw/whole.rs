//! What gateways are to hold, from all objects at once: what the store comes to by
//! increments, for those who check it.

use std::collections::BTreeSet;

use bytes::Bytes;
use flotilla_core::claims::{Claims, Holder};
use flotilla_core::compile::Compiler as _;
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;

use crate::compile::AvapigwCompiler;

/// Every object that is not being deleted, with the spec that gateways get, if any,
/// when these are all objects there are.
pub fn compile_all<'a>(
    compiler: &AvapigwCompiler,
    objects: &'a [RawObject],
) -> Vec<(&'a RawObject, Option<Bytes>)> {
    let living = || objects.iter().filter(|object| !object.deleting);
    let known: BTreeSet<(Kind, &ObjectKey)> = living().map(|object| (object.kind, &object.key)).collect();
    let exists = |kind: Kind, key: &ObjectKey| known.contains(&(kind, key));
    let compiled: Vec<_> = living().map(|object| (object, compiler.compile(object, &exists))).collect();
    let mut claims = Claims::default();
    for (object, compilation) in compiled.iter().filter(|(_, compilation)| compilation.outcome.is_ok()) {
        claims.insert(&Holder::of(object), &compilation.claims);
    }
    let judged = compiled.into_iter().map(|(object, compilation)| {
        let lost = claims.winner(&Holder::of(object), &compilation.claims).is_some();
        (object, compilation.outcome.ok().filter(|_| !lost).map(|compiled| compiled.spec_json))
    });
    judged.collect()
}
