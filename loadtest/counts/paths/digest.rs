//! What gateways are to hold, as one number.

use std::collections::BTreeSet;

use anyhow::Context as _;
use flotilla_core::delivery::Scope;

use super::replica::Replica;
use super::routes::{MANY, team};
use crate::meter::Meter;

/// One digest each of some namespaces.
pub fn namespaces(meter: &mut Meter) -> anyhow::Result<()> {
    let replica = Replica::listed(MANY);
    let scopes: Vec<Scope> =
        (0..20).map(|number| Scope::new([team(number).as_str().into()], BTreeSet::new())).collect();
    let digests: Option<BTreeSet<String>> =
        meter.count(|| scopes.iter().map(|scope| replica.engine.digest(scope)).collect());
    let different = digests.context("it was not done")?.len();
    anyhow::ensure!(different == scopes.len(), "{different} digests of {} namespaces", scopes.len());
    Ok(())
}
