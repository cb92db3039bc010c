//! Who owns what.

use std::collections::BTreeMap;

use anyhow::Context as _;
use flotilla_core::ids::{Epoch, Instance, MemberName};
use flotilla_core::placement::{LoadReport, Loads, Weight, plan};
use flotilla_core::ring::{DEFAULT_VIRTUAL_NODES, Position};
use flotilla_core::shardmap::{
    Exceptions, LiveMember, OperatorSpec, Ownership, Placement, PublishedMap, plan_map,
};

use crate::meter::Meter;

/// Namespaces.
const COUNT: usize = 10_000;

fn names() -> Vec<String> {
    (0..COUNT).map(|number| format!("team-{number:05}")).collect()
}

/// Weights as they are: most small, few large.
fn loads(names: &[String]) -> Loads {
    let weight = |at: usize| Weight::nearest(if at.is_multiple_of(100) { 400 } else { 1 + (at % 13) as u64 });
    let mut loads = Loads::default();
    // A member each tells of so many as a report names.
    for (part, some) in names.chunks(COUNT / 5).enumerate() {
        let entry = |(at, name): (usize, &String)| (Position::of(name), weight(part * COUNT / 5 + at));
        loads.add(&LoadReport::new(Epoch(1), some.iter().enumerate().map(entry).collect()));
    }
    loads
}

fn map(members: u32, exceptions: Exceptions) -> anyhow::Result<PublishedMap> {
    let live = |number: u32| LiveMember {
        name: MemberName::from(format!("flotilla-{number}")),
        instance: Instance::from(format!("flotilla-{number}/1")),
        address: "10.0.0.1:9443".into(),
    };
    let live: Vec<LiveMember> = (0..members).map(live).collect();
    let spec = OperatorSpec { virtual_nodes: DEFAULT_VIRTUAL_NODES, ..OperatorSpec::default() };
    let placement = Placement { exceptions, ..Placement::default() };
    plan_map(None, &spec, &live, &placement, &live[0].name, Epoch(0)).context("no map was planned")
}

/// A map with exceptions, as it is in force.
fn five(loads: &Loads) -> anyhow::Result<Ownership> {
    let exceptions = plan(None, &map(5, Exceptions::new())?, loads);
    Ok(Ownership::new(map(5, exceptions)?))
}

/// Asks who owns what.
pub fn owners(meter: &mut Meter) -> anyhow::Result<()> {
    let names = names();
    let ownership = five(&loads(&names))?;
    let owned = meter.count(|| {
        let mut owned: BTreeMap<&MemberName, usize> = BTreeMap::new();
        for owner in names.iter().filter_map(|name| ownership.owner(name)) {
            *owned.entry(owner).or_default() += 1;
        }
        owned
    });
    let owned = owned.context("it was not done")?;
    anyhow::ensure!(owned.len() == 5 && owned.values().sum::<usize>() == COUNT, "owners: {owned:?}");
    Ok(())
}

/// Plans the map after a join, and builds its ring.
pub fn rebalance(meter: &mut Meter) -> anyhow::Result<()> {
    let names = names();
    let loads = loads(&names);
    let before = five(&loads)?;
    let draft = map(6, before.map().exceptions.clone())?;
    let after = meter.count(|| {
        let exceptions = plan(Some(&before), &draft, &loads);
        Ownership::new(PublishedMap { exceptions, ..draft })
    });
    let shares = loads.shares(&after.context("it was not done")?);
    let (least, most) = shares
        .values()
        .fold((u64::MAX, 0), |(least, most), share| (least.min(share.load), most.max(share.load)));
    anyhow::ensure!(shares.len() == 6 && most * 2 < least * 3, "shares: {shares:?}");
    Ok(())
}
