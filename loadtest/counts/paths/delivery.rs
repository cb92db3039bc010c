//! What a change costs on its way to gateways, and back.

use anyhow::Context as _;

use super::replica::{GATEWAYS, Replica};
use super::routes::MANY;
use crate::meter::Meter;

/// How many changes.
const CHANGES: u32 = 10;

/// From the store to the bytes of every stream.
pub fn changes(meter: &mut Meter) -> anyhow::Result<()> {
    turns(meter, true)
}

/// From every acknowledgement to a session that waits for the next change.
pub fn acknowledged(meter: &mut Meter) -> anyhow::Result<()> {
    turns(meter, false)
}

fn turns(meter: &mut Meter, sending: bool) -> anyhow::Result<()> {
    let mut replica = Replica::listed(1_000);
    replica.gateways(GATEWAYS)?;
    let mut other = Meter::default();
    let (sends, answers) = if sending { (meter, &mut other) } else { (&mut other, meter) };
    for number in 0..CHANGES {
        let object = replica.next_change(number * 37);
        let due = counted(sending, sends, || {
            replica.engine.changed(object);
            replica.due()
        })?;
        let sent = replica.answers(&due);
        anyhow::ensure!(
            sent.acks.len() == GATEWAYS as usize && sent.bytes > 500 * sent.acks.len(),
            "{} messages with {} bytes were sent",
            sent.acks.len(),
            sent.bytes
        );
        let (taken, rest) = counted(!sending, answers, || (replica.acknowledge(sent.acks), replica.due()))?;
        anyhow::ensure!(taken, "an acknowledgement was not taken");
        anyhow::ensure!(replica.answers(&rest).acks.is_empty(), "a change was sent twice");
    }
    Ok(())
}

/// Does something, in the meter when that counts.
fn counted<R>(counts: bool, meter: &mut Meter, work: impl FnOnce() -> R) -> anyhow::Result<R> {
    if counts { meter.count(work).context("it was not done") } else { Ok(work()) }
}

/// For a gateway that holds nothing: as much as its first messages take.
pub fn snapshot(meter: &mut Meter) -> anyhow::Result<()> {
    let mut replica = Replica::listed(MANY);
    replica.connect(0, "");
    let due = meter.count(|| replica.due()).context("it was not done")?;
    let sent = replica.answers(&due);
    anyhow::ensure!(sent.bytes > 3 << 20, "only {} bytes were sent", sent.bytes);
    Ok(())
}
