//! Objects that claim the same: who is delivered, what a change costs, and what a
//! replica makes of a past that it did not see.

use std::sync::atomic::{AtomicUsize, Ordering};

use flotilla_core::breakage::Breakages;
use flotilla_core::claims::Claim;
use flotilla_core::compile::{Compilation, Compiler, Fault};
use flotilla_core::ids::{Frontier, Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::store::Store;

use super::bench::key;
use super::log::{Log, TestCompiler, WITHHELD};

const KIND: Kind = Kind::ApiRoute;

/// Counts how often it is asked to compile.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Counting {
    /// How often since the last question.
    fn taken(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Compiler for Counting {
    fn compile(&self, object: &RawObject, exists: &dyn Fn(Kind, &ObjectKey) -> bool) -> Compilation {
        self.0.fetch_add(1, Ordering::Relaxed);
        TestCompiler.compile(object, exists)
    }

    fn claims(&self, object: &RawObject) -> Vec<Claim> {
        self.0.fetch_add(1, Ordering::Relaxed);
        TestCompiler.claims(object)
    }

    fn was_withheld(&self, object: &RawObject) -> Option<bool> {
        TestCompiler.was_withheld(object)
    }
}

/// A store that has read a log to its end.
struct Reader {
    log: Log,
    store: Store,
    compiler: Counting,
}

impl Reader {
    fn new() -> Reader {
        let mut store = Store::new(1 << 20, 1000, Breakages::default());
        let compiler = Counting::default();
        let log = Log { revision: 10, ..Log::default() };
        for kind in Kind::ALL {
            store.listed(&compiler, kind, Revision(10), Vec::new());
        }
        Reader { log, store, compiler }
    }

    fn put(&mut self, name: &str, spec: &str) {
        let object = self.log.put(KIND, &key(name), spec);
        self.store.changed(&self.compiler, object);
    }

    fn delete(&mut self, name: &str) -> Revision {
        let revision = self.log.delete(KIND, &key(name));
        self.store.deleted(&self.compiler, KIND, &key(name), revision);
        revision
    }

    /// Who keeps an object from being delivered, if anybody does.
    fn kept_by(&self, name: &str) -> Option<String> {
        let view = self.store.content_of(KIND, &key(name)).unwrap();
        let invalid = view.outcome.as_ref().err()?;
        assert_eq!(invalid.fault, Fault::Conflict);
        let by = invalid.problem.split(' ').find(|word| word.contains('/')).unwrap();
        Some(by.trim_end_matches(',').to_owned())
    }

    fn news_since(&self, revision: u64) -> Vec<String> {
        let mut since = Frontier::default();
        Kind::ALL.into_iter().for_each(|kind| since.advance(kind, Revision(revision)));
        self.store.changed_since(&since).into_iter().map(|(_, key)| key.to_string()).collect()
    }
}

#[test]
fn the_first_is_delivered_and_the_next_when_it_goes_or_changes() {
    let mut reader = Reader::new();
    // The second and the third are of the same moment: the name decides.
    reader.put("a/z", "takes=k takes=l");
    reader.put("a/x", "takes=k");
    reader.put("a/y", "takes=k takes=m");
    reader.put("b/y", "takes=k");
    let kept = |reader: &Reader| ["a/z", "a/x", "a/y", "b/y"].map(|name| reader.kept_by(name));
    let by = |name: &str| Some(name.to_owned());
    assert_eq!(kept(&reader), [None, by("a/z"), by("a/z"), None]);
    let before = reader.log.revision;
    reader.put("a/z", "takes=l");
    assert_eq!(kept(&reader), [None, None, by("a/x"), None]);
    assert_eq!(reader.news_since(before), ["a/x", "a/y", "a/z"], "also who is kept by another now");
    // Invalid or being deleted it claims nothing.
    reader.put("a/x", "takes=k invalid");
    assert_eq!(reader.kept_by("a/y"), None);
    reader.put("a/x", "takes=k");
    assert_eq!(reader.kept_by("a/y"), by("a/x"));
    let going = reader.log.mark_deleting(KIND, &key("a/x"));
    reader.store.changed(&reader.compiler, going);
    assert_eq!(reader.kept_by("a/y"), None);
    reader.delete("a/x");
    // Created again it is younger.
    reader.put("a/x", "takes=k");
    assert_eq!((reader.kept_by("a/x"), reader.kept_by("a/y")), (by("a/y"), None));
}

#[test]
fn a_change_compiles_those_that_it_concerns_among_any_number() {
    let mut reader = Reader::new();
    for number in 0..3_000 {
        reader.put(&format!("a/r{number:04}"), &format!("takes=own-{number}"));
    }
    for number in 0..1_000 {
        reader.put(&format!("a/same-{number:04}"), "takes=same");
    }
    reader.compiler.taken();
    reader.put("a/another", "takes=own-7");
    assert_eq!((reader.kept_by("a/another"), reader.compiler.taken()), (Some("a/r0007".to_owned()), 1));
    reader.put("a/r0007", "takes=nothing");
    assert_eq!((reader.kept_by("a/another"), reader.compiler.taken()), (None, 2), "itself and who gains");
    // Of a thousand that want the same one is compiled; the others name somebody else.
    reader.delete("a/same-0000");
    assert_eq!((reader.kept_by("a/same-0001"), reader.compiler.taken()), (None, 1));
    assert_eq!(reader.kept_by("a/same-0999"), Some("a/same-0001".to_owned()));
}

#[test]
fn what_a_status_says_otherwise_than_the_list_is_news_as_of_the_list() {
    let mut log = Log { revision: 10, ..Log::default() };
    for (name, status) in [("a/won", WITHHELD), ("b/first", "{}"), ("b/lost", "{}"), ("c/lost", WITHHELD)] {
        log.put(KIND, &key(name), "takes=k");
        log.status(KIND, &key(name), status);
    }
    log.put(KIND, &key("c/a-first"), "takes=k");
    let earlier = log.revision;
    log.revision += 5;
    let list = log.list(KIND, Revision(log.revision));
    let mut reader = Reader::new();
    reader.store.listed(&reader.compiler, KIND, Revision(log.revision), list);
    assert_eq!(reader.kept_by("a/won"), None);
    assert_eq!(reader.kept_by("b/lost"), Some("b/first".to_owned()));
    // Delivered although it says otherwise, and the other way round; the rest is as it says.
    let news = reader.news_since(earlier);
    assert!(news.contains(&"a/won".to_owned()) && news.contains(&"b/lost".to_owned()), "{news:?}");
    assert!(!news.contains(&"b/first".to_owned()), "{news:?}");
    // Nothing was said of it as it is now: it may have lost for a while, and a gateway
    // that has read as far may be without it.
    assert!(news.contains(&"c/a-first".to_owned()), "{news:?}");
}

#[test]
fn a_status_that_was_written_unseen_is_news_as_of_the_list_although_it_fits() {
    let mut reader = Reader::new();
    for name in ["a/first", "b/other"] {
        reader.put(name, "takes=k");
        let said = reader.log.status(KIND, &key(name), "{}");
        reader.store.changed(&reader.compiler, said);
    }
    let seen = reader.log.revision;
    // Meanwhile it lost to one that has gone since, and both was said of it.
    reader.log.put(KIND, &key("a/a"), "takes=k");
    for status in [WITHHELD, "{}"] {
        reader.log.status(KIND, &key("a/first"), status);
    }
    let gone = reader.log.delete(KIND, &key("a/a"));
    let list = reader.log.list(KIND, gone);
    reader.store.listed(&reader.compiler, KIND, gone, list);
    assert_eq!(reader.kept_by("a/first"), None);
    let news = reader.news_since(seen);
    assert!(news.contains(&"a/first".to_owned()), "{news:?}");
    assert!(!news.contains(&"b/other".to_owned()), "{news:?}");
}

#[test]
fn peers_are_told_who_was_let_go_and_by_which_change() {
    let mut reader = Reader::new();
    reader.put("a/first", "takes=k");
    reader.put("a/second", "takes=k");
    // Its status does not help: it was written when it was alone, or so it says.
    let said = reader.log.status(KIND, &key("a/second"), "{}");
    reader.store.changed(&reader.compiler, said);
    let before = Revision(reader.log.revision);
    reader.put("a/first", "takes=other");
    let told = |since| reader.store.tombstones(KIND, since).unwrap();
    let [tombstone] = &told(before)[..] else { panic!("{:?}", told(before)) };
    assert_eq!((tombstone.key.to_string().as_str(), tombstone.revision.0), ("a/second", before.0 + 1));
    assert!(told(Revision(before.0 + 1)).is_empty());
    // Whoever began to read after that takes it for news.
    let mut other = Reader::new();
    let at = Revision(before.0 + 1);
    other.store.listed(&other.compiler, KIND, at, reader.log.list(KIND, at));
    assert!(!other.news_since(before.0).contains(&"a/second".to_owned()));
    assert!(other.store.history(KIND, before, at, told(before)));
    assert!(other.news_since(before.0).contains(&"a/second".to_owned()));
}
