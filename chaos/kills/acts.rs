//! Who acted where: the replicas' own words about the statuses that they wrote,
//! judged by the maps that the leaders published.
//!
//! A line about a written status names the epoch in which its writer acted and
//! the revision at which the API server wrote it. So the order in which things
//! were done is that of the log, and no clock and no delay of this process has
//! a part in the judgement: a replica that was stopped may say late what it did
//! in time. Two things must hold of every namespace: whoever wrote was its owner
//! in the epoch that he names, and in the order of the log an owner does not
//! write after its successor has. What one replica wrote in two epochs may stand
//! in either order: both requests were on their way at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// One status that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// Where in the log of the API server it stands.
    pub revision: u64,
    /// The epoch in which its writer acted.
    pub epoch: u64,
    /// The writer.
    pub replica: usize,
}

/// What is to be said of all acts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Acts of replicas that were not the owner, or not any more, in words.
    pub beside: Vec<String>,
    /// Acts in epochs whose map was not seen here, or without a revision.
    pub unjudged: usize,
}

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
    /// By namespace, in no order.
    acts: Vec<Vec<Act>>,
    /// The last generation that a status was written for, and when, by
    /// namespace and name.
    last: BTreeMap<(usize, String), (i64, i64)>,
    /// By epoch: a replica's number per namespace.
    epochs: BTreeMap<u64, Vec<Option<usize>>>,
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
    epoch: u64,
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    longest_ms: Value,
}

/// A number, also where a log line has it as text because it is wide.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

impl Acts {
    /// For these namespaces and the logs of these replicas.
    pub fn new(namespaces: &[String], logs: Vec<PathBuf>) -> Self {
        Acts {
            tails: logs.into_iter().map(|path| Tail { path, offset: 0, rest: String::new() }).collect(),
            numbers: namespaces.iter().enumerate().map(|(number, name)| (name.clone(), number)).collect(),
            acts: vec![Vec::new(); namespaces.len()],
            last: BTreeMap::new(),
            epochs: BTreeMap::new(),
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
            "acting on namespaces of others from now on" => self.gaps.extend(number(&line.longest_ms)),
            "status written" => {
                let Some(&number) = self.numbers.get(&line.namespace) else { return };
                self.acts[number].push(Act { revision: line.revision, epoch: line.epoch, replica });
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

    /// The map of an epoch was seen: who owns each namespace by it.
    pub fn published(&mut self, epoch: u64, owners: Vec<Option<usize>>) {
        self.epochs.insert(epoch, owners);
    }

    /// The owners of all epochs so far, from the first on.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = &Vec<Option<usize>>> {
        self.epochs.values()
    }

    /// How many statuses were written.
    pub fn count(&self) -> usize {
        self.acts.iter().map(Vec::len).sum()
    }

    /// Judges all acts so far.
    pub fn judge(&self) -> Judgement {
        let mut judgement = Judgement::default();
        for (namespace, number) in &self.numbers {
            let mut acts = self.acts[*number].clone();
            acts.sort_unstable();
            let mut latest = Act { revision: 0, epoch: 0, replica: 0 };
            for act in acts {
                let Act { revision, epoch, replica } = act;
                let Some(owners) = self.epochs.get(&epoch).filter(|_| revision > 0) else {
                    judgement.unjudged += 1;
                    continue;
                };
                let said = format!("replica {replica} in {namespace} in epoch {epoch} at {revision}");
                if owners[*number] != Some(replica) {
                    judgement.beside.push(format!("{said}: the owner is {:?}", owners[*number]));
                } else if epoch < latest.epoch && replica != latest.replica {
                    judgement.beside.push(format!("{said}: after {latest:?}"));
                } else if epoch > latest.epoch {
                    latest = act;
                }
            }
        }
        judgement
    }
}

impl Tail {
    fn lines(&mut self) -> std::io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
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

    /// Owners of one namespace in the epochs from 1 on, and acts as revision,
    /// epoch, replica.
    fn judge(epochs: &[usize], acts: &[(u64, u64, usize)]) -> Judgement {
        let mut all = Acts::new(&["n".to_owned()], Vec::new());
        for (epoch, owner) in (1..).zip(epochs) {
            all.published(epoch, vec![Some(*owner)]);
        }
        all.acts[0] =
            acts.iter().map(|&(revision, epoch, replica)| Act { revision, epoch, replica }).collect();
        all.judge()
    }

    #[test]
    fn owners_that_follow_each_other_act_rightly() {
        let right = Judgement::default();
        assert_eq!(judge(&[0, 1, 0], &[(11, 1, 0), (21, 2, 1), (22, 2, 1), (31, 3, 0)]), right);
        let said_late = judge(&[0, 1], &[(21, 2, 1), (20, 1, 0)]);
        assert_eq!(said_late, right, "only the order of the log counts");
        assert_eq!(judge(&[0, 0], &[(21, 2, 0), (22, 1, 0)]), right, "one replica is not its own successor");
        assert_eq!(judge(&[0, 1], &[(21, 2, 1), (21, 2, 1)]), right, "what changes nothing has no revision");
    }

    #[test]
    fn whoever_acts_after_its_successor_or_beside_the_owner_is_named() {
        let late = judge(&[0, 1], &[(21, 2, 1), (22, 1, 0)]);
        assert_eq!(late.beside.len(), 1, "{late:?}");
        let beside = judge(&[0, 1], &[(12, 1, 1)]);
        assert_eq!(beside.beside.len(), 1, "{beside:?}");
    }

    #[test]
    fn acts_in_unknown_epochs_are_counted() {
        assert_eq!(judge(&[0], &[(5, 7, 0), (0, 1, 0)]), Judgement { beside: Vec::new(), unjudged: 2 });
    }

    #[test]
    fn lines_are_read_once_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.log");
        let line = r#"{"level":"info","ts":"2026-01-01T00:00:01.500Z","msg":"status written","namespace":"n","name":"a","generation":3,"epoch":2,"revision":7}"#;
        std::fs::write(&path, format!("{line}\n{}", &line[..40])).unwrap();
        let mut acts = Acts::new(&["n".to_owned()], vec![path.clone()]);
        acts.read().unwrap();
        assert_eq!(acts.count(), 1);
        assert_eq!(acts.written("n", "a", 3), Some(1_767_225_601_500));
        assert_eq!(acts.written("n", "a", 4), None);
        assert_eq!(acts.acts[0], [Act { revision: 7, epoch: 2, replica: 0 }]);
        std::fs::write(&path, format!("{line}\n{line}\n")).unwrap();
        acts.read().unwrap();
        acts.read().unwrap();
        assert_eq!(acts.count(), 2);
    }
}
