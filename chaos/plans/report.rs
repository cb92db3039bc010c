//! What is told of plans: a line each as they end, and all of it as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::promises::Judged;

/// The name of the run without a fault.
pub(crate) const REFERENCE: &str = "reference";

/// How one plan ended.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The plan's name; `reference` for the run without a fault.
    pub plan: String,
    /// How often its fault struck.
    pub struck: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was not as it must be. Empty when all was well.
    pub problems: Vec<String>,
    /// How often each promise could be judged.
    pub judged: Judged,
}

impl Verdict {
    /// A verdict for which nothing was judged.
    pub(crate) fn new(plan: String, struck: u64, took: Duration, problems: Vec<String>) -> Self {
        Verdict { plan, struck, seconds: took.as_secs_f64(), problems, judged: Judged::default() }
    }

    /// Whether all was well.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_good() { "ok  " } else { "FAIL" };
        write!(f, "{word} {:6.1} s  {}", self.seconds, self.plan)?;
        for problem in &self.problems {
            write!(f, "\n       {}", problem.replace('\n', "\n       "))?;
        }
        Ok(())
    }
}

/// Everything that was played.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `embedded` or `real`.
    pub api: &'static str,
    /// How many plans went on at the same time.
    pub jobs: usize,
    /// How long all of it took, in seconds.
    pub seconds: f64,
    /// By plan, in the order in which they ended; the reference first.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// Those with problems.
    pub fn failed(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| !verdict.is_good())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, all) = (self.failed().count(), self.verdicts.len());
        write!(
            f,
            "{all} runs against the {} API server in {:.0} s, {failed} failed",
            self.api, self.seconds
        )?;
        let mut judged = Judged::default();
        self.verdicts.iter().for_each(|verdict| judged += verdict.judged);
        write!(f, "\n  judged: {judged}")?;
        for verdict in self.failed().filter(|verdict| verdict.plan != REFERENCE) {
            write!(f, "\n  again: chaos plans --api {} --plan '{}'", self.api, verdict.plan)?;
        }
        Ok(())
    }
}
