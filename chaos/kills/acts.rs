//! Who acted where: the replicas' own words about the statuses that they wrote,
//! judged by the maps that the leaders published.
//!
//! A namespace's statuses must be written by its owners in the order of the
//! epochs: whoever writes after the owner of a later epoch has written acts
//! beside it. Nothing is compared but the order in which processes of one
//! machine say that they wrote.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// One status that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// When its writer said so, in milliseconds since 1970.
    pub at: i64,
    /// The writer.
    pub replica: usize,
}

/// The owners by one epoch: a replica's number per namespace.
#[derive(Debug, Clone)]
pub struct EpochOwners {
    /// When the map was seen, in milliseconds since 1970.
    pub seen: i64,
    /// The epoch.
    pub epoch: u64,
    /// By namespace.
    pub owners: Vec<Option<usize>>,
}

/// A map is seen by replicas a little before it is seen here.
const SKEW: i64 = 1000;

/// A process that wakes up reads the answers to what it sent before it was
/// stopped, and says then that it wrote.
const WAKING: i64 = 1000;

/// A replica's log, read as it grows.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    offset: u64,
    rest: String,
}

/// Everything known of who acted.
#[derive(Debug)]
pub struct Acts {
    tails: Vec<Tail>,
    numbers: BTreeMap<String, usize>,
    acts: Vec<Vec<Act>>,
    /// The last generation that a status was written for, and when, by
    /// namespace and name.
    last: BTreeMap<(usize, String), (i64, i64)>,
    epochs: Vec<EpochOwners>,
    /// Replicas that were woken, and when.
    woken: Vec<(usize, i64)>,
    /// Longest gaps of acting in milliseconds, as the replicas measured them.
    pub gaps: Vec<i64>,
    /// Errors and warnings that replicas logged, by text.
    pub complaints: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Line {
    ts: String,
    level: String,
    msg: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    longest_ms: i64,
}

impl Acts {
    /// For these namespaces and the logs of these replicas.
    pub fn new(namespaces: &[String], logs: Vec<PathBuf>) -> Self {
        Acts {
            tails: logs.into_iter().map(|path| Tail { path, offset: 0, rest: String::new() }).collect(),
            numbers: namespaces.iter().enumerate().map(|(number, name)| (name.clone(), number)).collect(),
            acts: vec![Vec::new(); namespaces.len()],
            last: BTreeMap::new(),
            epochs: Vec::new(),
            woken: Vec::new(),
            gaps: Vec::new(),
            complaints: BTreeMap::new(),
        }
    }

    /// Reads what the logs have gained.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn read(&mut self) -> std::io::Result<()> {
        for replica in 0..self.tails.len() {
            for line in self.tails[replica].lines()? {
                if let Ok(line) = serde_json::from_str::<Line>(&line) {
                    self.take(replica, &line);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, replica: usize, line: &Line) {
        if line.level == "warn" || line.level == "error" {
            *self.complaints.entry(line.msg.clone()).or_default() += 1;
        }
        let Ok(at) = line.ts.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond) else { return };
        match line.msg.as_str() {
            "acting on namespaces of others from now on" => self.gaps.push(line.longest_ms),
            "status written" => {
                let Some(&number) = self.numbers.get(&line.namespace) else { return };
                self.acts[number].push(Act { at, replica });
                let last = self.last.entry((number, line.name.clone())).or_default();
                if line.generation > last.0 {
                    *last = (line.generation, at);
                }
            }
            _ => {}
        }
    }

    /// When a status was first written for this generation of an object, or for
    /// a later one.
    pub fn written(&self, namespace: &str, name: &str, generation: i64) -> Option<i64> {
        let number = *self.numbers.get(namespace)?;
        self.last.get(&(number, name.to_owned())).filter(|last| last.0 >= generation).map(|last| last.1)
    }

    /// A map was seen.
    pub fn published(&mut self, owners: EpochOwners) {
        if self.epochs.last().is_none_or(|last| last.epoch < owners.epoch) {
            self.epochs.push(owners);
        }
    }

    /// All maps so far.
    pub fn epochs(&self) -> &[EpochOwners] {
        &self.epochs
    }

    /// A stopped replica goes on.
    pub fn woke(&mut self, replica: usize, at: i64) {
        self.woken.push((replica, at));
    }

    /// How many statuses were written.
    pub fn count(&self) -> usize {
        self.acts.iter().map(Vec::len).sum()
    }

    /// Acts beside the owner, in words; and how many were only said late, by a
    /// replica that had been stopped.
    pub fn judge(&self) -> (Vec<String>, usize) {
        let mut beside = Vec::new();
        let mut late = 0;
        for (namespace, number) in &self.numbers {
            let mut acts = self.acts[*number].clone();
            acts.sort_by_key(|act| act.at);
            let mut at_epoch = 0;
            for act in acts {
                let owns = |index: &usize| {
                    let epoch = &self.epochs[*index];
                    epoch.owners[*number] == Some(act.replica) && epoch.seen <= act.at + SKEW
                };
                match (at_epoch..self.epochs.len()).find(owns) {
                    Some(index) => at_epoch = index,
                    None if self.just_woke(&act) => late += 1,
                    None => beside.push(format!("replica {} in {namespace} at {}", act.replica, act.at)),
                }
            }
        }
        (beside, late)
    }

    fn just_woke(&self, act: &Act) -> bool {
        self.woken.iter().any(|(replica, at)| *replica == act.replica && (*at..at + WAKING).contains(&act.at))
    }
}

impl Tail {
    fn lines(&mut self) -> std::io::Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        self.offset += file.read_to_end(&mut bytes)? as u64;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let mut lines: Vec<String> = self.rest.split('\n').map(str::to_owned).collect();
        // What follows the last line break is not complete yet.
        self.rest = lines.pop().unwrap_or_default();
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(epochs: &[usize], acts: &[(i64, usize)]) -> Acts {
        let mut all = Acts::new(&["n".to_owned()], Vec::new());
        for (number, owner) in epochs.iter().enumerate() {
            let epoch = number as u64 + 1;
            all.published(EpochOwners { seen: 10_000 * epoch as i64, epoch, owners: vec![Some(*owner)] });
        }
        all.acts[0] = acts.iter().map(|&(at, replica)| Act { at, replica }).collect();
        all
    }

    #[test]
    fn owners_that_follow_each_other_act_rightly() {
        let (beside, late) = acts(&[0, 1, 0], &[(11_000, 0), (21_000, 1), (22_000, 1), (31_000, 0)]).judge();
        assert_eq!((beside.len(), late), (0, 0));
        let slow = acts(&[0, 1], &[(20_900, 0), (21_000, 1)]).judge();
        assert_eq!(slow.0.len(), 0, "the old owner acts until the new one does");
    }

    #[test]
    fn whoever_acts_after_its_successor_is_named() {
        let (beside, _) = acts(&[0, 1], &[(21_000, 1), (21_100, 0)]).judge();
        assert_eq!(beside.len(), 1, "{beside:?}");
        let (early, _) = acts(&[0, 1], &[(12_000, 1)]).judge();
        assert_eq!(early.len(), 1, "it owns only by a map that is not there yet");
        let mut woken = acts(&[0, 1], &[(21_000, 1), (50_100, 0), (52_000, 0)]);
        woken.woke(0, 50_000);
        let (beside, late) = woken.judge();
        assert_eq!((beside.len(), late), (1, 1), "what is said at waking was done before the stop");
    }

    #[test]
    fn lines_are_read_once_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.log");
        let line = r#"{"level":"info","ts":"2026-01-01T00:00:01.500Z","msg":"status written","namespace":"n","name":"a","generation":3}"#;
        std::fs::write(&path, format!("{line}\n{}", &line[..40])).unwrap();
        let mut acts = Acts::new(&["n".to_owned()], vec![path.clone()]);
        acts.read().unwrap();
        assert_eq!(acts.count(), 1);
        assert_eq!(acts.written("n", "a", 3), Some(1_767_225_601_500));
        assert_eq!(acts.written("n", "a", 4), None);
        std::fs::write(&path, format!("{line}\n{line}\n")).unwrap();
        acts.read().unwrap();
        acts.read().unwrap();
        assert_eq!(acts.count(), 2);
    }
}
