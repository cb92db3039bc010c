//! What is run, and how often.

use std::sync::LazyLock;

/// One run: a name for its results, and the command line.
pub struct Run {
    pub name: String,
    pub arguments: Vec<String>,
    pub made: Made,
}

/// How often a run is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// `--times`: its figures are compared.
    Often,
    /// What counts is that nothing goes wrong; its figures are those of one run.
    Once,
    /// Only when it is named: it takes an hour.
    WhenNamed,
}

fn run_of(name: &str, arguments: &str, made: Made) -> Run {
    let arguments = arguments.split(' ').map(str::to_owned).collect();
    Run { name: name.to_owned(), arguments, made }
}

/// What targets are for. Sizes are those of the targets; where this machine would be
/// the bottleneck, smaller, as the page says.
const MEASURED: &[(&str, &str)] = &[
    ("propagation", "propagation --vs-limit"),
    ("propagation-10000-routes", "propagation --vs-limit --routes 10000"),
    ("propagation-1000-gateways", "propagation --vs-limit --gateways 1000 --rate 2"),
    ("burst", "burst"),
    ("poisoned", "poisoned --gateways 50"),
    ("coldsync", "coldsync --routes 10000 --vs-limit"),
    ("reconnect", "reconnect --start replicas=3,api=embedded --gateways 600"),
    ("churn", "churn"),
    ("failover", "failover --start replicas=3,api=embedded --rate 20 --seconds 60"),
    ("rolling", "rolling --start replicas=3,api=embedded --rate 20"),
    ("noisy", "noisy --gateways 20"),
    ("slow", "slow --routes 10000"),
    ("scale", "scale --gateways 100 --namespaces 500 --rate 20 --seconds 50"),
    ("admission", "admission --start replicas=3,api=real"),
    ("reading", "reading"),
    ("fleet-sim", "fleet-sim"),
];

/// Three replicas on a real kube-apiserver.
const REAL_3: (&str, &str) = ("real-3", "replicas=3,api=real");

/// What is started for the others.
const ELSEWHERE: &[(&str, &str)] =
    &[("3", "replicas=3,api=embedded"), ("real", "replicas=1,api=real"), REAL_3];

/// What is also made there, smaller or for a shorter time.
const ALSO: &[(&str, &str)] = &[
    ("propagation", "--seconds 10"),
    ("burst", ""),
    ("poisoned", "--gateways 50"),
    ("coldsync", ""),
    ("churn", "--seconds 10"),
    ("noisy", "--gateways 20 --seconds 10"),
    ("slow", "--seconds 10"),
];

/// What needs others to take over, and is measured with three replicas already.
const ALSO_WITH_THREE: &[(&str, &str)] = &[("reconnect", ""), ("failover", ""), ("rolling", "")];

/// All of them.
pub static RUNS: LazyLock<Vec<Run>> = LazyLock::new(|| {
    let mut runs: Vec<Run> = MEASURED.iter().map(|(name, line)| run_of(name, line, Made::Often)).collect();
    let mut also = |name: &str, more: &str, (place, start): (&str, &str)| {
        let line = format!("{name} --start {start} {more}");
        runs.push(run_of(&format!("{name}-{place}"), line.trim_end(), Made::Once));
    };
    for place in ELSEWHERE {
        ALSO.iter().for_each(|(name, more)| also(name, more, *place));
    }
    ALSO_WITH_THREE.iter().for_each(|(name, more)| also(name, more, REAL_3));
    let soak = "soak --start replicas=3,api=embedded --gateways 100 --seconds 3660";
    runs.push(run_of("soak", soak, Made::WhenNamed));
    runs
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_run_is_a_command_with_a_name_of_its_own() {
        let names: BTreeSet<&str> = RUNS.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names.len(), RUNS.len());
        for run in RUNS.iter() {
            let line = std::iter::once("loadtest").chain(run.arguments.iter().map(String::as_str));
            let parsed = Cli::try_parse_from(line);
            assert!(parsed.is_ok(), "{}: {:?}", run.name, parsed.err());
        }
    }
}
