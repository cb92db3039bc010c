//! What a run found, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: usize,
    /// Half were faster.
    pub p50: f64,
    /// All but one in a hundred were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Quantiles {
    /// Of these durations.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Quantiles {
        let mut all: Vec<f64> = durations.into_iter().map(|one| one.as_secs_f64() * 1000.0).collect();
        all.sort_by(f64::total_cmp);
        // The nearest rank: `percent` of all are at most this.
        let at = |percent: usize| {
            let rank = (all.len() * percent).div_ceil(100).max(1);
            all.get(rank - 1).copied().unwrap_or_default()
        };
        Quantiles { count: all.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}

/// What was measured around one sort of signal.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Phase {
    /// How many replicas got the signal.
    pub kills: usize,
    /// (a) change → every gateway that stayed connected.
    pub change_to_connected_ms: Quantiles,
    /// The same to all gateways, their own waits before they dial included.
    pub change_to_all_ms: Quantiles,
    /// (b) signal → a status written in a namespace of the replica.
    pub acting_again_ms: Quantiles,
    /// (c) a gateway's attempt to register → in sync.
    pub reconnect_to_sync_ms: Quantiles,
    /// The same without the time in which the replica stood still that it came to.
    pub reconnect_to_sync_running_ms: Quantiles,
    /// Of (c), until its stream was open: connecting, TLS and registering.
    pub reconnect_to_stream_ms: Quantiles,
    /// Reconnects that were cut short by the next loss.
    pub reconnects_interrupted: usize,
    /// The slowest of them, in words.
    pub slowest_reconnects: Vec<String>,
    /// Gateways that lost their replica, per kill.
    pub gateways_hit: f64,
    /// Signal → everything as before: map, replica, gateways.
    pub whole_again_ms: Quantiles,
}

/// What a rolling update cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rolling {
    /// From the first signal until everything was as before.
    pub seconds: f64,
    /// Changes of owner, over all maps in between.
    pub namespace_moves: usize,
    /// Namespaces that had another owner in the end.
    pub namespaces_moved_for_good: usize,
    /// Changes made meanwhile.
    pub changes: usize,
    /// What one change costs on the wire, per gateway, without any update.
    pub bytes_per_change: f64,
    /// Bytes per gateway during the update, the largest and the mean.
    pub bytes_per_gateway_max: f64,
    /// The mean.
    pub bytes_per_gateway_mean: f64,
    /// The largest by the size of the changes: at most 2 is wanted.
    pub resent_ratio_max: f64,
    /// Full synchronisations of all gateways together.
    pub full_syncs: u64,
    /// Changes that needed more than a second to a gateway that stayed connected.
    pub delayed_connected: usize,
    /// Changes that needed more than a second to any gateway: a gateway that has
    /// lost its stream waits a second of its own before it dials.
    pub delayed_any: usize,
}

/// What a run found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How it was run.
    pub conditions: BTreeMap<&'static str, String>,
    /// By signal; `calm` is the time before the first.
    pub phases: BTreeMap<&'static str, Phase>,
    /// The rolling update, if that was asked for.
    pub rolling: Option<Rolling>,
    /// Changes that tenants made.
    pub changes: usize,
    /// Statuses that were written, per change.
    pub statuses_per_change: f64,
    /// Gaps of acting as the replicas measured them: the longest of each
    /// takeover.
    pub ownership_gap_ms: Quantiles,
    /// Changes that did not arrive, digests that differ, statuses that are not
    /// true in the end.
    pub lost: Vec<String>,
    /// Objects that went back on a gateway.
    pub regressed: Vec<String>,
    /// Removals that nobody asked for.
    pub spurious: Vec<String>,
    /// Statuses written beside the owner.
    pub double_written: Vec<String>,
    /// Statuses of which it could not be told whether their writer was the
    /// owner: a map was not seen. Nothing may be left open.
    pub unjudged: usize,
    /// Warnings and errors of replicas, by text.
    pub complaints: BTreeMap<String, usize>,
}

impl Report {
    /// Whether no promise was broken.
    pub fn held(&self) -> bool {
        let broken = [&self.lost, &self.regressed, &self.spurious, &self.double_written];
        broken.iter().all(|all| all.is_empty()) && self.unjudged == 0
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        for (name, value) in &self.conditions {
            writeln!(text, "{name:>14}: {value}")?;
        }
        let (row, wide) = (26, 24);
        writeln!(
            text,
            "\n{:row$} {:>6} {:>wide$} {:>wide$} {:>wide$} {:>wide$} {:>wide$} {:>wide$} {:>wide$}",
            "p50/p99/max ms (count)",
            "kills",
            "(a) to connected",
            "to all",
            "(b) acting again",
            "reconnect to stream",
            "(c) reconnect to sync",
            "of a running replica",
            "whole again"
        )?;
        for (name, phase) in &self.phases {
            let cell = |q: Quantiles| format!("{:.0}/{:.0}/{:.0} ({})", q.p50, q.p99, q.max, q.count);
            writeln!(
                text,
                "{name:row$} {:>6} {:>wide$} {:>wide$} {:>wide$} {:>wide$} {:>wide$} {:>wide$} {:>wide$}",
                phase.kills,
                cell(phase.change_to_connected_ms),
                cell(phase.change_to_all_ms),
                cell(phase.acting_again_ms),
                cell(phase.reconnect_to_stream_ms),
                cell(phase.reconnect_to_sync_ms),
                cell(phase.reconnect_to_sync_running_ms),
                cell(phase.whole_again_ms)
            )?;
        }
        if let Some(rolling) = &self.rolling {
            writeln!(
                text,
                "\nrolling update in {:.1} s: {} moves of namespaces, {} have another owner in the end",
                rolling.seconds, rolling.namespace_moves, rolling.namespaces_moved_for_good
            )?;
            writeln!(
                text,
                "{} changes of {:.0} bytes; per gateway {:.0} bytes at most, {:.0} in the mean: {:.2} times the changes; {} full synchronisations",
                rolling.changes,
                rolling.bytes_per_change,
                rolling.bytes_per_gateway_max,
                rolling.bytes_per_gateway_mean,
                rolling.resent_ratio_max,
                rolling.full_syncs
            )?;
            writeln!(
                text,
                "{} changes took more than a second to a connected gateway, {} to any",
                rolling.delayed_connected, rolling.delayed_any
            )?;
        }
        let gap = self.ownership_gap_ms;
        writeln!(
            text,
            "\n{} changes, {:.2} statuses per change; gap of acting as measured by replicas {:.0}/{:.0}/{:.0} ms ({})",
            self.changes, self.statuses_per_change, gap.p50, gap.p99, gap.max, gap.count
        )?;
        writeln!(
            text,
            "lost {}, regressed {}, spurious {}, double-written {}, not judged {}",
            self.lost.len(),
            self.regressed.len(),
            self.spurious.len(),
            self.double_written.len(),
            self.unjudged
        )?;
        for (what, all) in [
            ("lost", &self.lost),
            ("regressed", &self.regressed),
            ("spurious", &self.spurious),
            ("double-written", &self.double_written),
        ] {
            for one in all.iter().take(10) {
                writeln!(text, "VIOLATION {what}: {one}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_nothing_and_of_a_hundred() {
        assert_eq!(Quantiles::of([]), Quantiles::default());
        let hundred = Quantiles::of((1..=100).rev().map(Duration::from_millis));
        assert_eq!(hundred, Quantiles { count: 100, p50: 50.0, p99: 99.0, max: 100.0 });
    }

    #[test]
    fn one_violation_of_any_sort_is_one_too_many() {
        assert!(Report::default().held());
        let broken = Report { spurious: vec!["x".to_owned()], ..Report::default() };
        assert!(!broken.held());
        assert!(broken.table().contains("VIOLATION spurious: x"));
    }
}
