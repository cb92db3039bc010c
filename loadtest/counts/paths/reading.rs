//! From the API server's bytes to the store.

use anyhow::Context as _;
use flotilla_core::ids::Kind;
use flotilla_core::wire::{Line, parse_line, parse_page};

use super::replica::Replica;
use super::routes::{BEGIN, MANY, json};
use crate::meter::Meter;

/// Objects on a page.
const PAGE: u32 = 500;

/// Changes.
const LINES: u32 = 1_000;

/// What a start reads.
pub fn list(meter: &mut Meter) -> anyhow::Result<()> {
    let page = |first: u32| {
        let of = |number| json(number, 0, BEGIN + u64::from(number));
        let items: Vec<String> = (first..first + PAGE).map(of).collect();
        format!(
            r#"{{"metadata":{{"resourceVersion":"{BEGIN}","continue":"x"}},"items":[{}]}}"#,
            items.join(",")
        )
    };
    let pages: Vec<String> = (0..MANY).step_by(PAGE as usize).map(page).collect();
    let mut replica = Replica::empty();
    let read = meter.count(|| {
        let mut objects = Vec::new();
        for page in &pages {
            objects.extend(parse_page(Kind::ApiRoute, page.as_bytes())?.objects);
        }
        replica.list(objects);
        anyhow::Ok(())
    });
    read.context("it was not done")??;
    delivered(&replica, MANY)
}

/// What is read of every change.
pub fn watch(meter: &mut Meter) -> anyhow::Result<()> {
    let mut replica = Replica::listed(MANY);
    let mut line = |number| {
        let revision = replica.next_revision();
        format!(r#"{{"type":"MODIFIED","object":{}}}"#, json(number * 7, 1, revision))
    };
    let lines: Vec<String> = (0..LINES).map(&mut line).collect();
    let before = replica.engine.frontier();
    let read = meter.count(|| {
        for line in &lines {
            match parse_line(Kind::ApiRoute, line.as_bytes())? {
                Line::Changed(object) => replica.engine.changed(object),
                other => anyhow::bail!("a change was read as {other:?}"),
            }
        }
        Ok(())
    });
    read.context("it was not done")??;
    let changed = replica.engine.store().changed_since(&before).len();
    anyhow::ensure!(changed == LINES as usize, "{changed} of {LINES} changes are in the store");
    delivered(&replica, MANY)
}

fn delivered(replica: &Replica, count: u32) -> anyhow::Result<()> {
    let objects = || replica.engine.objects(Kind::ApiRoute);
    let valid = |key| replica.engine.content_of(Kind::ApiRoute, key).is_some_and(|view| view.outcome.is_ok());
    let found = objects().filter(|object| valid(&object.key)).count();
    anyhow::ensure!(found == count as usize, "{found} of {count} routes are delivered");
    Ok(())
}
