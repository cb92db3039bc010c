//! Hands what happens to the observer, keeps the first broken promise, and sums up
//! the whole run in one number: two runs with the same sum went the same way.

use std::fmt::Write as _;

use flotilla_observer::{At, Bounds, Event, InstanceId, Invariant, KindId, Observer, Tally};

use crate::universe::Universe;

/// How a run ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// When, in nanoseconds after the beginning.
    pub at: u64,
    /// Which promise; `None` when the simulator itself found it.
    pub invariant: Option<Invariant>,
    /// What kept the run from going on, if something did.
    pub stopped: Option<Stopped>,
    /// Which promise, who and what.
    pub text: String,
    /// The names of those whom it is about.
    pub about: Vec<String>,
}

/// What keeps a run from going on, whatever was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// What is played panicked.
    Panic {
        /// In which file, line and column.
        place: String,
    },
    /// There is always something more to do before time can move on.
    StandsStill,
}

impl Broken {
    /// Whether another run ended for the same reason, as far as can be told: those who are
    /// concerned may be others, and it may be later.
    pub fn is_like(&self, other: &Broken) -> bool {
        (self.invariant, &self.stopped) == (other.invariant, &other.stopped)
    }

    /// What was broken, in a word.
    pub fn promise(&self) -> String {
        match (&self.stopped, self.invariant) {
            (Some(Stopped::Panic { .. }), _) => "no panic".to_owned(),
            (Some(Stopped::StandsStill), _) => "an end".to_owned(),
            (None, Some(invariant)) => invariant.to_string(),
            (None, None) => "the end".to_owned(),
        }
    }

    /// Whether a line of the story is about one of them.
    pub fn concerns(&self, words: &str) -> bool {
        self.about.iter().any(|name| words.contains(name.as_str()))
    }
}

/// Takes lines for people, with the time in nanoseconds.
pub type Story<'a> = &'a mut dyn FnMut(u64, &str);

/// See the module's description.
pub struct Witness<'a> {
    observer: Observer,
    broken: Option<Broken>,
    sum: u64,
    words: String,
    story: Option<Story<'a>>,
}

impl<'a> Witness<'a> {
    /// One that has seen nothing. With a story, everything is told to it, too.
    pub fn new(universe: &Universe, gateways: usize, bounds: Bounds, story: Option<Story<'a>>) -> Self {
        let mut observer = Observer::new(bounds);
        let names = observer.names_mut();
        for namespace in universe.namespaces() {
            names.namespace(namespace);
        }
        for place in 0..universe.places() as u32 {
            let (kind, key) = (universe.kind(place), universe.key(place));
            let namespace = names.namespace(&key.namespace);
            names.object(KindId(kind.index() as u8), kind.name(), namespace, &key.name);
        }
        for gateway in 0..gateways {
            names.gateway(&format!("g{gateway:04}"));
        }
        Witness { observer, broken: None, sum: 0, words: String::new(), story }
    }

    /// The number of one life of a replica.
    pub fn instance(&mut self, name: &str) -> InstanceId {
        self.observer.names_mut().instance(name)
    }

    /// Something happened that the observer is to know.
    pub fn see(&mut self, now: u64, event: &Event<'_>) {
        self.words.clear();
        if self.story.is_some() {
            let _ = write!(self.words, "{}", self.observer.names().tell(event));
            let words = std::mem::take(&mut self.words);
            self.tell(now, || &words);
            self.words = words;
        }
        if self.broken.is_some() {
            return;
        }
        if let Err(violation) = self.observer.see(At(now), event) {
            let (names, about) = (self.observer.names(), violation.about);
            // The narrowest names there are: an object's includes its namespace's.
            let narrow = match about.object {
                Some(object) => Some(names.of_object(object)),
                None => about.namespace.map(|namespace| names.of_namespace(namespace)),
            };
            let others = [
                about.gateway.map(|gateway| names.of_gateway(gateway)),
                about.instance.map(|instance| names.of_instance(instance)),
            ];
            let about = narrow.into_iter().chain(others.into_iter().flatten()).map(str::to_owned).collect();
            let (invariant, text) = (Some(violation.invariant), violation.to_string());
            self.broken = Some(Broken { at: now, invariant, stopped: None, text, about });
        }
    }

    /// A promise is broken that the simulator itself looks after.
    pub fn broken(&mut self, now: u64, text: String) {
        self.found(now, None, text);
    }

    /// The run cannot go on.
    pub fn stopped(&mut self, now: u64, stopped: Stopped, text: String) {
        self.found(now, Some(stopped), text);
    }

    fn found(&mut self, now: u64, stopped: Option<Stopped>, text: String) {
        let about = Vec::new();
        self.broken.get_or_insert(Broken { at: now, invariant: None, stopped, text, about });
    }

    /// The first broken promise.
    pub fn first_broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Adds a step to the sum.
    pub fn step(&mut self, now: u64, what: u64) {
        // Two rounds of a multiplication that mixes high bits into low ones.
        let mixed = (self.sum ^ now).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.sum = (mixed ^ mixed >> 29 ^ what).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.sum ^= self.sum >> 32;
    }

    /// How often there was something to judge.
    pub fn tally(&self) -> Tally {
        self.observer.tally()
    }

    /// The sum of the run so far.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Whether somebody listens to the story.
    pub fn telling(&self) -> bool {
        self.story.is_some()
    }

    /// Tells a line of the story.
    pub fn tell<T: AsRef<str>>(&mut self, now: u64, words: impl FnOnce() -> T) {
        if let Some(story) = &mut self.story {
            story(now, words().as_ref());
        }
    }
}
