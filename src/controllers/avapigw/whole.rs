//! What gateways are to hold, from all objects at once: what the store comes to by
//! increments, for those who check it.

use std::collections::BTreeSet;

use bytes::Bytes;
use flotilla_core::claims::{Claims, Holder, stakes};
use flotilla_core::compile::{Compilation, Compiler as _};
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
    let compile = |object| {
        let Compilation { outcome, claims, .. } = compiler.compile(object, &exists);
        (object, outcome, stakes(&claims))
    };
    let compiled: Vec<_> = living().map(compile).collect();
    let mut claims = Claims::default();
    for (object, _, stakes) in compiled.iter().filter(|(_, outcome, _)| outcome.is_ok()) {
        claims.insert(&Holder::of(object), stakes);
    }
    let judged = compiled.into_iter().map(|(object, outcome, stakes)| {
        let lost = claims.winner(&Holder::of(object), &stakes).is_some();
        (object, outcome.ok().filter(|_| !lost).map(|compiled| compiled.spec_json))
    });
    judged.collect()
}
