//! What was seen of a run: every request of a replica with its outcome, and
//! every event that a watch delivered. Plans are made from it, and runs are
//! judged by it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use flotilla_apiserver::Verb;

use crate::plan::{Object, is_write};

/// A replica's process: a replica that is started again is another writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// Which replica, from 0.
    pub replica: usize,
    /// How often it had been started before.
    pub starts: u32,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}.{}", self.replica, self.starts)
    }
}

/// A request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it came, since the start of the run.
    pub at: Duration,
    /// The scenario's phase at that moment.
    pub phase: u32,
    /// Who sent it.
    pub by: Incarnation,
    /// What it wanted.
    pub verb: Verb,
    /// Plural name, with the subresource.
    pub resource: String,
    /// The object; its name is empty for lists, watches, and what is created.
    pub object: Object,
    /// The API server's answer; `None` when it was never asked or did not answer.
    pub code: Option<u16>,
    /// What a status says of `Ready`; empty for all other requests.
    pub said: String,
    /// The epoch in which the writer of a status acts, as the status says.
    pub epoch: Option<u64>,
    /// The object's revision in the answer to the write of a status.
    pub revision: Option<u64>,
}

impl Request {
    /// Whether it changed something.
    pub fn is_applied_write(&self) -> bool {
        is_write(self.verb) && self.code.is_some_and(|code| (200..300).contains(&code))
    }
}

/// How an event changes an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// ADDED
    Added,
    /// MODIFIED
    Modified,
    /// DELETED
    Deleted,
}

/// One state of an object that watches told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The scenario's phase when it was first told.
    pub phase: u32,
    /// What the event was called.
    pub change: Change,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// `metadata.generation`; 0 for kinds without.
    pub generation: i64,
    /// `metadata.uid`
    pub uid: String,
}

impl State {
    /// Whether only the status differs from the state before.
    pub fn has_content_of(&self, before: &State) -> bool {
        let deleted = |state: &State| state.change == Change::Deleted;
        (&self.uid, self.generation, deleted(self)) == (&before.uid, before.generation, deleted(before))
    }
}

/// An object of a resource.
pub type Subject = (String, Object);

/// Most requests that are kept; a run that sends more is not judged by half of
/// them, see [`Tape::is_whole`].
const LONGEST: usize = 500_000;

/// The record of a run.
#[derive(Debug, Clone, Default)]
pub struct Tape {
    requests: Vec<Request>,
    lost: usize,
    /// By object: its states in the order of their revisions.
    states: BTreeMap<Subject, Vec<State>>,
}

impl Tape {
    /// Keeps a request.
    pub fn request(&mut self, request: Request) {
        if self.requests.len() < LONGEST { self.requests.push(request) } else { self.lost += 1 }
    }

    /// Keeps what an event told; returns the number of its content among those
    /// that the object has had, from 1. States that differ in their status only
    /// have the same number: when statuses are written is not the same in every
    /// run. One that was told before keeps its number.
    pub fn event(&mut self, subject: &Subject, state: State) -> u64 {
        let known = self.states.entry(subject.clone()).or_default();
        let place = known.partition_point(|one| one.revision < state.revision);
        if known.get(place).is_none_or(|one| one.revision != state.revision) {
            known.insert(place, state);
        }
        let changes = known[..=place].windows(2).filter(|pair| !pair[1].has_content_of(&pair[0]));
        changes.count() as u64 + 1
    }

    /// Whether nothing was left out.
    pub fn is_whole(&self) -> bool {
        self.lost == 0
    }

    /// All requests, in the order in which they came.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// All objects with their states.
    pub fn states(&self) -> &BTreeMap<Subject, Vec<State>> {
        &self.states
    }

    /// Writes that changed something from this time on, without Leases, and
    /// without the map, which names the processes of the moment.
    pub fn writes_since(&self, since: Duration) -> Vec<&Request> {
        let counts = |request: &&Request| {
            request.at >= since
                && request.is_applied_write()
                && request.resource != "leases"
                && !request.resource.starts_with("shardmaps")
        };
        self.requests.iter().filter(counts).collect()
    }

    /// How often replicas created and deleted objects, by what and which verb.
    /// Leases come and go with processes and are left out; so are Events, which are
    /// told as far as that is possible, and named for the uids of what they are about.
    pub fn lives(&self) -> BTreeMap<(Verb, String, Object), usize> {
        let mut lives = BTreeMap::new();
        let made = |request: &&Request| {
            request.is_applied_write()
                && !matches!(request.resource.as_str(), "leases" | "events")
                && matches!(request.verb, Verb::Create | Verb::Delete | Verb::DeleteCollection)
        };
        for Request { verb, resource, object, .. } in self.requests.iter().filter(made) {
            *lives.entry((*verb, resource.clone(), object.clone())).or_default() += 1;
        }
        lives
    }

    /// Statuses that were written beside the owner, which breaks "at most one
    /// writer", in words: in each epoch a namespace has one writer at most, and in
    /// the order in which the API server wrote, nobody writes in an epoch after its
    /// successor has. Nothing is
    /// compared but what statuses and answers say, so no delay has a part in it.
    pub fn beside(&self) -> Vec<String> {
        let mut writes: BTreeMap<&str, Vec<(u64, u64, Incarnation)>> = BTreeMap::new();
        for request in self.requests.iter().filter(|request| request.is_applied_write()) {
            if let (Some(epoch), Some(revision)) = (request.epoch, request.revision) {
                writes.entry(&request.object.namespace).or_default().push((revision, epoch, request.by));
            }
        }
        let mut beside = Vec::new();
        for (namespace, mut writes) in writes {
            writes.sort_unstable();
            let mut writers: BTreeMap<u64, Incarnation> = BTreeMap::new();
            for (revision, epoch, by) in writes {
                let owner = *writers.entry(epoch).or_insert(by);
                // One writer's requests of two epochs may have been on their way at once.
                let (latest, successor) = writers.last_key_value().map_or((epoch, by), |(a, b)| (*a, *b));
                if owner != by || epoch < latest && successor != by {
                    beside.push(format!(
                        "{namespace} at {revision} by {by} in epoch {epoch}: there {owner} wrote, and the latest was {latest}"
                    ));
                }
            }
        }
        beside
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn state(revision: u64, generation: i64) -> State {
        State { phase: 0, change: Change::Modified, revision, generation, uid: String::new() }
    }

    fn patch(at: u64, replica: usize) -> Request {
        Request {
            at: Duration::from_secs(at),
            phase: 0,
            by: Incarnation { replica, starts: 0 },
            verb: Verb::Patch,
            resource: "apiroutes/status".to_owned(),
            object: Object::new("a", "x"),
            code: Some(200),
            said: String::new(),
            epoch: None,
            revision: None,
        }
    }

    /// A status that was written and says this of `Ready`.
    pub(crate) fn said(words: &str) -> Request {
        Request { said: words.to_owned(), ..patch(0, 0) }
    }

    #[test]
    fn a_state_keeps_its_number_whoever_tells_of_it_again() {
        let mut tape = Tape::default();
        let subject = ("apiroutes".to_owned(), Object::new("a", "x"));
        assert_eq!(tape.event(&subject, state(5, 1)), 1);
        assert_eq!(tape.event(&subject, state(6, 1)), 1);
        assert_eq!(tape.event(&subject, state(9, 2)), 2);
        assert_eq!(tape.event(&subject, state(5, 1)), 1);
        assert_eq!(tape.event(&("apiroutes".to_owned(), Object::new("a", "y")), state(7, 1)), 1);
        assert_eq!(tape.states()[&subject].len(), 3);
    }

    #[test]
    fn a_namespace_has_one_writer_an_epoch_and_none_after_its_successor() {
        let judge = |writes: &[(u64, u64, usize)]| {
            let mut tape = Tape::default();
            for &(revision, epoch, replica) in writes {
                tape.request(Request { epoch: Some(epoch), revision: Some(revision), ..patch(0, replica) });
            }
            tape.beside().len()
        };
        assert_eq!(judge(&[(1, 4, 0), (2, 4, 0), (3, 5, 1), (9, 7, 0)]), 0);
        assert_eq!(judge(&[(3, 5, 1), (1, 4, 0)]), 0, "answers may come in another order");
        assert_eq!(judge(&[(1, 5, 0), (2, 4, 0)]), 0, "one writer is not its own successor");
        assert_eq!(judge(&[(1, 4, 0), (2, 4, 1)]), 1, "two in one epoch");
        assert_eq!(judge(&[(1, 4, 0), (2, 5, 1), (3, 4, 0)]), 1, "one after its successor");
    }

    #[test]
    fn refused_writes_change_nothing() {
        let mut tape = Tape::default();
        tape.request(Request { code: Some(409), ..patch(1, 0) });
        tape.request(Request { code: None, ..patch(1, 0) });
        tape.request(Request { resource: "leases".to_owned(), ..patch(1, 0) });
        tape.request(patch(0, 0));
        assert!(tape.writes_since(Duration::from_secs(1)).is_empty());
        assert_eq!(tape.writes_since(Duration::ZERO).len(), 1);
    }
}
