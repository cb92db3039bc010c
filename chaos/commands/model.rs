//! `chaos model`: explores the models of the protocols as far as time allows.

use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use flotilla_model::{Exploration, Limits, designs, explore, handover, versions};

/// Explores small models of the protocols, every state of them.
///
/// What decides in them is the product's own code. Ends when every reachable
/// state was seen, or says how far it came in the time given.
#[derive(Args)]
pub struct ModelArgs {
    /// Which model; all of them without it.
    #[arg(long)]
    only: Option<Which>,
    /// Number of replicas.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=4))]
    replicas: u8,
    /// Number of namespaces.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=7))]
    namespaces: u8,
    /// Number of gateways (versions, designs).
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    gateways: u8,
    /// Crashes; after each the replica may start again.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    crashes: u8,
    /// Leases that are not renewed in time by a process that lives on (hand-over).
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    expiries: u8,
    /// Shutdowns in order; after each the replica may start again (hand-over).
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    shutdowns: u8,
    /// Edits of pins (hand-over).
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    edits: u8,
    /// Changes and deletions of objects (versions, designs).
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=8))]
    writes: u8,
    /// Connections that break although both ends live (versions).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=4))]
    cuts: u8,
    /// Let no two objects fit into one message, so that nothing is sent as a
    /// snapshot but the first time (versions).
    #[arg(long)]
    increments: bool,
    /// Minutes for each model.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// GiB of memory that each model may need before it ends (where the system tells).
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    memory: u64,
}

/// The models.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Who may act on a namespace.
    Handover,
    /// What may be sent to a gateway.
    Versions,
    /// What a version could be.
    Designs,
}

/// Runs it. `false` when a promise was broken.
///
/// # Errors
/// When what was found cannot be written.
pub fn run(args: &ModelArgs, out: &mut dyn Write) -> anyhow::Result<bool> {
    let ModelArgs { replicas, namespaces, gateways, crashes, writes, .. } = *args;
    let limits = Limits {
        threads: args.threads,
        time: Duration::from_secs(args.minutes * 60),
        states: usize::MAX,
        memory: args.memory << 30,
    };
    let mut kept = true;
    let wanted = |which| args.only.is_none_or(|only| only == which);
    if wanted(Which::Handover) {
        let (expiries, shutdowns, edits) = (args.expiries, args.shutdowns, args.edits);
        let size = handover::Size { replicas, namespaces, crashes, expiries, shutdowns, edits };
        kept &= tell(out, "handover", &explore(handover::Model { size, mistake: None }, limits))?;
    }
    if wanted(Which::Versions) {
        let size = versions::Size { replicas, namespaces, gateways, writes, crashes, cuts: args.cuts };
        let model = versions::Model {
            size,
            before: Vec::new(),
            tombstones: 8,
            message_limit: if args.increments {
                versions::ONE_PER_MESSAGE
            } else {
                versions::ALL_PER_MESSAGE
            },
            mistake: None,
        };
        kept &= tell(out, "versions", &explore(model, limits))?;
    }
    if wanted(Which::Designs) {
        let design = designs::Design::Revision;
        let model = designs::Model { design, replicas, gateways, writes, crashes };
        kept &= tell(out, "designs", &explore(model, limits))?;
    }
    Ok(kept)
}

fn tell(out: &mut dyn Write, name: &str, found: &Exploration) -> anyhow::Result<bool> {
    let Exploration { transitions, states, depth, took, complete, violation } = found;
    let extent = if *complete { "every reachable state" } else { "not to the end" };
    writeln!(
        out,
        "{name}: {states} states, {transitions} transitions, depth {depth}, {:.1} s, {extent}",
        took.as_secs_f64()
    )?;
    if let Some((broken, way)) = violation {
        writeln!(out, "{name}: BROKEN after {} steps: {broken}", way.len())?;
        for (number, step) in (1..).zip(way) {
            writeln!(out, "  {number:>3} {step}")?;
        }
    }
    Ok(violation.is_none())
}
