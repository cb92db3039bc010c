//! One run: calm, blows with recovery in between, a rolling update, and the
//! question whether everything is equal in the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::book::Slow;
use crate::edge::with_book;
use crate::fleet::{Target, now_ms, with_acts};
use crate::options::{Blow, Options};
use crate::report::{Phase, Quantiles, Report};
use crate::rolling;
use crate::tenants::PROBED;

/// How long the tenants work before the first blow.
const CALM: Duration = Duration::from_secs(20);
/// How long everything must have been whole before the next blow.
const STEADY: Duration = Duration::from_millis(500);
/// In so many of a replica's namespaces it is tried whether somebody acts again.
const PROBES: usize = 5;
/// How long nobody may act before that counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a replica that is told to end may take.
const FAREWELL: Duration = Duration::from_secs(60);

/// What was measured of one sort of blow beside what the book holds.
#[derive(Debug, Clone, Default)]
struct Hits {
    kills: usize,
    acting: Vec<Duration>,
    whole: Vec<Duration>,
    gateways: usize,
}

/// The phases of the book: calm, one per sort of blow, the rolling update.
const fn phase(blow: Option<Blow>) -> usize {
    match blow {
        None => 0,
        Some(Blow::Kill) => 1,
        Some(Blow::Term) => 2,
        Some(Blow::Stop) => 3,
    }
}

/// The phase of the rolling update.
pub(crate) const ROLLING: usize = 4;
const PHASES: usize = 5;

/// Runs; `None` when there is no API server of the sort asked for. `say` is
/// told how it goes, in lines.
///
/// # Errors
/// When it could not go on. A broken promise is no error, see [`Report::held`].
pub async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Option<Report>> {
    let mut report = Report { conditions: conditions(options), ..Report::default() };
    let Some(mut target) = Target::start(options, PHASES).await? else { return Ok(None) };
    say("everything is there and equal");
    target.work(options.rate);
    let calm_from = (target.edge.bytes(), with_book(&target.book, |book| book.changes));
    sleep(CALM).await;
    let bytes_per_change = rolling::bytes_per_change(&target, &calm_from.0, calm_from.1);
    let mut hits: BTreeMap<Blow, Hits> = BTreeMap::new();
    // What was measured until something did not come back is worth telling, too.
    let ending = async {
        blows(&mut target, options, &mut hits, say).await?;
        if options.rolling {
            target.whole(STEADY).await?;
            with_book(&target.book, |book| book.enter(ROLLING));
            report.rolling = Some(rolling::update(&mut target, bytes_per_change, FAREWELL).await?);
            say("rolling update done");
        }
        target.rest().await
    };
    report.lost = match ending.await {
        Ok(()) => target.equal().await.err().unwrap_or_default(),
        Err(error) => vec![format!("{error:#}")],
    };
    fill(&mut report, &target, &hits);
    target.stop().await;
    Ok(Some(report))
}

/// All blows, with recovery in between.
async fn blows(
    target: &mut Target,
    options: &Options,
    hits: &mut BTreeMap<Blow, Hits>,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<()> {
    let mut struck = 0;
    for number in 0..options.kills {
        for &blow in &options.blows {
            target.whole(STEADY).await?;
            with_book(&target.book, |book| book.enter(phase(Some(blow))));
            let victim = victim(struck, number, options.replicas, options.blows.len());
            struck += 1;
            let hit = hit(target, options, blow, victim, struck as u64).await?;
            say(&format!(
                "{} {} of {}: acting again after {:?} ms, whole after {:.1} s",
                blow.name(),
                number + 1,
                options.kills,
                hit.acting.iter().map(Duration::as_millis).collect::<Vec<_>>(),
                hit.whole.first().map_or(0.0, Duration::as_secs_f64),
            ));
            let all = hits.entry(blow).or_default();
            all.kills += 1;
            all.acting.extend(hit.acting);
            all.whole.extend(hit.whole);
            all.gateways += hit.gateways;
        }
    }
    Ok(())
}

/// Whom a blow hits: never the same one twice in a row, whose gateways have just left it. Of
/// three replicas or more, where there are one or three sorts of blow or the numbers have no
/// divisor in common, each is hit by each sort in turn.
fn victim(struck: usize, round: usize, replicas: usize, blows: usize) -> usize {
    let moves_on = replicas > 2 && blows.is_multiple_of(replicas);
    (struck + if moves_on { round } else { 0 }) % replicas
}

/// One blow, from the signal until everything is as before.
async fn hit(
    target: &mut Target,
    options: &Options,
    blow: Blow,
    victim: usize,
    number: u64,
) -> anyhow::Result<Hits> {
    let name = target.fleet.replicas[victim].name.clone();
    let owners = target.owners().await?;
    let owned = owners.iter().zip(&target.tenants.namespaces).filter(|(owner, _)| **owner == name);
    let probed: Vec<String> = owned.map(|(_, namespace)| namespace.clone()).take(PROBES).collect();
    let gateways = target.edge.served_by(&format!("{name}/"));
    let (start, start_ms) = (Instant::now(), now_ms());
    match blow {
        Blow::Kill => target.fleet.replicas[victim].kill().await,
        Blow::Term => target.fleet.replicas[victim].terminate(),
        Blow::Stop => target.fleet.replicas[victim].process().signal(Signal::SIGSTOP),
    }
    let mut probes = Vec::new();
    for namespace in &probed {
        probes.push((namespace.clone(), target.tenants.probe(namespace, number).await));
    }
    match blow {
        Blow::Kill => {
            sleep(options.back_after.saturating_sub(start.elapsed())).await;
            target.fleet.replicas[victim].start();
        }
        Blow::Term => {
            target.fleet.replicas[victim].ended(FAREWELL).await;
            target.fleet.replicas[victim].start();
        }
        Blow::Stop => {
            sleep(options.stopped_for.saturating_sub(start.elapsed())).await;
            with_book(&target.book, |book| {
                book.wakes(&name, Instant::now());
                target.fleet.replicas[victim].process().signal(Signal::SIGCONT);
            });
        }
    }
    let mut acting = Vec::new();
    for (namespace, generation) in probes {
        let at = acted(target, &namespace, generation).await?;
        acting.push(Duration::from_millis(u64::try_from(at - start_ms).unwrap_or_default()));
    }
    target.fleet.replicas[victim].ready().await;
    target.whole(Duration::ZERO).await?;
    Ok(Hits { kills: 1, acting, whole: vec![start.elapsed()], gateways })
}

/// When somebody wrote a status for this generation of a namespace's probe.
async fn acted(target: &mut Target, namespace: &str, generation: i64) -> anyhow::Result<i64> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(at) = with_acts(&target.acts, |acts| acts.written(namespace, PROBED, generation)) {
            return Ok(at);
        }
        target.check()?;
        anyhow::ensure!(Instant::now() < until, "nobody acts in {namespace} after {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn fill(report: &mut Report, target: &Target, hits: &BTreeMap<Blow, Hits>) {
    let measured = with_book(&target.book, |book| {
        report.changes = book.changes;
        report.spurious.clone_from(&book.spurious);
        report.regressed.clone_from(&book.regressed);
        book.measured().to_vec()
    });
    for gateway in target.edge.gateways() {
        let stats = gateway.stats();
        if stats.regressions + stats.reappeared > 0 {
            report.regressed.push(format!("{}: {stats:?}", gateway.id()));
        }
    }
    let sorts = [None, Some(Blow::Kill), Some(Blow::Term), Some(Blow::Stop)];
    let names = sorts.map(|blow| (blow.map_or("calm", Blow::name), phase(blow), blow));
    for (name, number, blow) in names.into_iter().chain([("rolling", ROLLING, None)]) {
        let of = &measured[number];
        let hit = blow.and_then(|blow| hits.get(&blow)).cloned().unwrap_or_default();
        if of.everywhere.is_empty() {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let gateways_hit = hit.gateways as f64 / hit.kills.max(1) as f64;
        let phase = Phase {
            kills: hit.kills,
            change_to_connected_ms: Quantiles::of(of.connected.iter().copied()),
            change_to_all_ms: Quantiles::of(of.everywhere.iter().copied()),
            acting_again_ms: Quantiles::of(hit.acting),
            reconnect_to_sync_ms: Quantiles::of(of.in_sync.iter().copied()),
            reconnect_to_sync_running_ms: Quantiles::of(of.in_sync_running.iter().copied()),
            reconnect_to_stream_ms: Quantiles::of(of.streaming.iter().copied()),
            reconnects_interrupted: of.interrupted,
            slowest_reconnects: of.slowest.iter().map(told).collect(),
            gateways_hit,
            whole_again_ms: Quantiles::of(hit.whole),
        };
        report.phases.insert(name, phase);
    }
    with_acts(&target.acts, |acts| {
        let judgement = acts.judge();
        (report.double_written, report.unjudged) = (judgement.beside, judgement.unjudged);
        let gaps = acts.gaps.iter().map(|gap| Duration::from_millis(u64::try_from(*gap).unwrap_or_default()));
        report.ownership_gap_ms = Quantiles::of(gaps);
        report.complaints.clone_from(&acts.complaints);
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousands")]
        let per_change = acts.count() as f64 / report.changes.max(1) as f64;
        report.statuses_per_change = per_change;
    });
    report.conditions.insert("load at end", load());
}

/// A slow reconnect, with the time by which it is found in the replicas' logs.
fn told(slow: &Slow) -> String {
    let at = now_ms() - i64::try_from(slow.at.elapsed().as_millis()).unwrap_or_default();
    let at = jiff::Timestamp::from_millisecond(at).map(|at| at.to_string()).unwrap_or_default();
    format!(
        "gateway {} to {}: {} ms, {} of them until its stream was open, in sync at {at}",
        slow.gateway,
        slow.replica,
        slow.took.as_millis(),
        slow.streaming.as_millis()
    )
}

/// What a figure is worth nothing without.
fn conditions(options: &Options) -> BTreeMap<&'static str, String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let blows: Vec<&str> = options.blows.iter().map(|blow| blow.name()).collect();
    BTreeMap::from([
        ("api server", format!("{:?}", options.api)),
        ("replicas", options.replicas.to_string()),
        ("namespaces", options.namespaces.to_string()),
        ("gateways", options.gateways.to_string()),
        ("changes per s", options.rate.to_string()),
        ("blows", format!("{} each of {}", options.kills, blows.join(", "))),
        ("stopped for", format!("{:?}", options.stopped_for)),
        ("back after", format!("{:?}", options.back_after)),
        ("program", options.program.display().to_string()),
        ("cores", cores.to_string()),
        ("harness", if cfg!(debug_assertions) { "debug build" } else { "release build" }.to_owned()),
        ("load at start", load()),
    ])
}

/// The machine's load averages, where it tells them: others may be at work.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_sort_of_blow_hits_everybody_and_nobody_twice_in_a_row() {
        for (replicas, blows) in [(3, 1), (3, 2), (3, 3), (4, 3), (5, 3), (5, 1)] {
            let mut last = None;
            let mut hit: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); blows];
            for struck in 0..blows * replicas {
                let victim = victim(struck, struck / blows, replicas, blows);
                assert_ne!(last.replace(victim), Some(victim), "{replicas} replicas, {blows} sorts");
                hit[struck % blows].insert(victim);
            }
            assert!(hit.iter().all(|hit| hit.len() == replicas), "{replicas} replicas: {hit:?}");
        }
    }
}
