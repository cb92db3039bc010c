//! The counts that are in the repository, and what has become of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A count may grow by this, in percent.
const TOLERATED: u64 = 5;

/// With another compiler a count may grow by this, in percent: what the compiler makes of
/// the same code differs by a few, what is done for every object or gateway more shows
/// nevertheless.
const TOLERATED_OF_ANOTHER: u64 = 25;

/// Counts, and what they depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// What `rustc --version` said.
    pub compiler: String,
    /// The processor's architecture.
    pub architecture: String,
    /// Instructions, by path.
    pub instructions: BTreeMap<String, u64>,
}

/// What has become of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It takes about as much as before.
    Same(u64, u64),
    /// It takes less than before by so much that it should be held.
    Less(u64, u64),
    /// It takes more.
    More(u64, u64),
    /// It is not in the baseline.
    New(u64),
    /// It is in the baseline only.
    Gone,
    /// There is nothing to compare with.
    Alone(u64),
}

impl Finding {
    /// Whether the baseline may stay as it is.
    pub fn holds(&self) -> bool {
        !matches!(self, Finding::More(..) | Finding::New(_) | Finding::Gone)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = |before: u64, now: u64| (now as f64 / before as f64 - 1.0) * 100.0;
        match *self {
            Finding::Same(before, now) => write!(f, "{now:>12}  {:+.2} %", change(before, now)),
            Finding::Less(before, now) => {
                write!(f, "{now:>12}  {:+.2} %: write the baseline anew to keep that", change(before, now))
            }
            Finding::More(before, now) => {
                write!(f, "{now:>12}  {:+.2} %: GROWN from {before}", change(before, now))
            }
            Finding::New(now) => write!(f, "{now:>12}  MISSING in the baseline"),
            Finding::Gone => write!(f, "{:>12}  no path any more: STALE in the baseline", "-"),
            Finding::Alone(now) => write!(f, "{now:>12}"),
        }
    }
}

/// What has become of all paths.
pub struct Compared {
    /// Why that says less than it could.
    pub doubt: Option<String>,
    /// By path.
    pub findings: BTreeMap<String, Finding>,
}

impl Baseline {
    /// Reads a baseline.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub fn read(file: &Path) -> anyhow::Result<Baseline> {
        let text = std::fs::read(file).with_context(|| file.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| file.display().to_string())
    }

    /// Writes it.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// What has become of these counts.
    pub fn compared_with(&self, now: &Baseline) -> Compared {
        let alone = self.architecture != now.architecture;
        let (mut tolerated, mut doubt) = (TOLERATED, None);
        if alone {
            doubt = Some(format!(
                "counted on {}, the baseline is of {}: nothing is compared",
                now.architecture, self.architecture
            ));
        } else if self.compiler != now.compiler {
            tolerated = TOLERATED_OF_ANOTHER;
            doubt = Some(format!(
                "counted with {}, the baseline with {}: {TOLERATED_OF_ANOTHER} % more are taken for the compiler's",
                now.compiler, self.compiler
            ));
        }
        let of = |(name, count): (&String, &u64)| {
            let finding = match self.instructions.get(name) {
                _ if alone => Finding::Alone(*count),
                None => Finding::New(*count),
                Some(before) => judged(*before, *count, tolerated),
            };
            (name.clone(), finding)
        };
        let mut findings: BTreeMap<String, Finding> = now.instructions.iter().map(of).collect();
        for name in self.instructions.keys() {
            findings.entry(name.clone()).or_insert(Finding::Gone);
        }
        Compared { doubt, findings }
    }
}

fn judged(before: u64, now: u64, tolerated: u64) -> Finding {
    if u128::from(now) * 100 > u128::from(before) * u128::from(100 + tolerated) {
        Finding::More(before, now)
    } else if u128::from(now) * 100 < u128::from(before) * u128::from(100 - tolerated) {
        Finding::Less(before, now)
    } else {
        Finding::Same(before, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(compiler: &str, all: &[(&str, u64)]) -> Baseline {
        Baseline {
            compiler: compiler.to_owned(),
            architecture: "x86_64".to_owned(),
            instructions: all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        }
    }

    #[track_caller]
    fn check(before: &Baseline, now: &Baseline, expected: Finding, holds: bool) {
        let compared = before.compared_with(now);
        assert_eq!(compared.findings["a"], expected);
        assert_eq!(compared.findings["a"].holds(), holds);
        assert_eq!(compared.doubt.is_some(), before.compiler != now.compiler);
    }

    #[test]
    fn growth_beyond_what_is_tolerated_is_found() {
        let before = counts("1", &[("a", 1000)]);
        check(&before, &counts("1", &[("a", 1050)]), Finding::Same(1000, 1050), true);
        check(&before, &counts("1", &[("a", 1051)]), Finding::More(1000, 1051), false);
        check(&before, &counts("1", &[("a", 949)]), Finding::Less(1000, 949), true);
    }

    #[test]
    fn another_compiler_is_given_more_but_not_everything() {
        let before = counts("1", &[("a", 1000)]);
        check(&before, &counts("2", &[("a", 1250)]), Finding::Same(1000, 1250), true);
        check(&before, &counts("2", &[("a", 1251)]), Finding::More(1000, 1251), false);
    }

    #[test]
    fn the_baseline_has_exactly_the_paths_there_are() {
        check(&counts("1", &[]), &counts("1", &[("a", 1)]), Finding::New(1), false);
        check(&counts("1", &[("a", 1)]), &counts("1", &[]), Finding::Gone, false);
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");
        let written: Vec<String> = Baseline::read(file.as_ref()).unwrap().instructions.into_keys().collect();
        let mut paths: Vec<&str> = flotilla_counts::paths::PATHS.iter().map(|path| path.name).collect();
        paths.sort_unstable();
        assert_eq!(written, paths);
    }
}
