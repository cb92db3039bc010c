//! What a status says of a change that every gateway has acknowledged.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use flotilla_avapigw::AvapigwStatus;
use flotilla_core::applied::AppliedView;
use flotilla_core::ids::{Epoch, MemberName, Revision};
use flotilla_core::report::{PatchOutcome, ReportConfig, Reporter, Round, StatusPatch};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::replica::{GATEWAYS, Replica};
use crate::meter::Meter;

/// How many changes.
const CHANGES: u32 = 10;

/// Routes.
const ROUTES: u32 = 500;

/// The replica that owns all, with what it knows of its gateways.
struct Owner {
    replica: Replica,
    applied: AppliedView,
    reporter: Reporter<AvapigwStatus>,
    member: MemberName,
}

/// Sums up what gateways have applied and plans statuses.
pub fn summaries(meter: &mut Meter) -> anyhow::Result<()> {
    let member = MemberName::from("flotilla-0");
    let mut replica = Replica::listed(ROUTES);
    replica.gateways(GATEWAYS)?;
    let mut applied = AppliedView::default();
    applied.members(replica.now, std::slice::from_ref(&member));
    let reporter = Reporter::new(ReportConfig::default(), AvapigwStatus);
    let mut owner = Owner { replica, applied, reporter, member };
    let mut written = 0;
    // Until every route has a status; not so long that gateways should have been heard of.
    for _ in 0..ROUTES / 6 {
        let patches = owner.look();
        written += patches.len();
        owner.write(patches)?;
    }
    anyhow::ensure!(written == ROUTES as usize, "{written} statuses of {ROUTES} routes");
    for number in 0..CHANGES {
        let object = owner.replica.next_change(number * 37);
        owner.replica.engine.changed(object);
        owner.replica.settle()?;
        let patches = meter.count(|| owner.look()).context("it was not done")?;
        let said = |patch: &StatusPatch| String::from_utf8_lossy(&patch.body).contains("to 1000 gateways");
        anyhow::ensure!(patches.len() == 1 && patches.iter().all(said), "planned: {patches:?}");
        owner.write(patches)?;
    }
    Ok(())
}

/// What is looked at of a patch.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    status: &'a RawValue,
}

impl Owner {
    fn look(&mut self) -> Vec<StatusPatch> {
        self.applied.set(&self.member, self.replica.engine.applied_table());
        let round = Round {
            now: self.replica.now,
            wall: "2026-01-01T00:00:00Z",
            acting: 1,
            epoch: Epoch(1),
            applied: &self.applied,
            may_act: &|_| true,
        };
        self.reporter.poll(&self.replica.engine, &round)
    }

    /// Writes patches and reads what comes of them.
    fn write(&mut self, patches: Vec<StatusPatch>) -> anyhow::Result<()> {
        for StatusPatch { kind, key, body, .. } in patches {
            let mut object = self.replica.engine.object(kind, &key).context("its object is gone")?.clone();
            object.status =
                Bytes::copy_from_slice(serde_json::from_slice::<Body<'_>>(&body)?.status.get().as_bytes());
            object.revision = Revision(self.replica.next_revision());
            self.replica.engine.changed(object);
            self.reporter.written(self.replica.now, kind, &key, PatchOutcome::Written);
        }
        self.replica.settle()?;
        self.replica.now = self.replica.now + Duration::from_millis(500);
        Ok(())
    }
}
