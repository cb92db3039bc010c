//! Faults on purpose: what a test or a demonstration lets go wrong, changeable while the server runs.
//!
//! A rule says which requests (or watches) it is for, what goes wrong, how many matches it lets pass first and how
//! often it strikes. Rules are looked at in the order in which they were added; the first that matches and is not
//! used up wins. A watch asks again for every event, so rules act on watches that are open already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::verb::Verb;

/// Which requests a rule is for. What is `None` or empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// Verbs.
    pub verbs: Vec<Verb>,
    /// Plural name of the resource, such as `leases`.
    pub resource: Option<String>,
    /// Subresource, such as `status`; `""` means the object itself.
    pub subresource: Option<String>,
    /// Namespace. A watch over all namespaces is matched by the namespace of each event.
    pub namespace: Option<String>,
    /// Name of the object. A watch is matched by the name of each event.
    pub name: Option<String>,
    /// The client's user name.
    pub user: Option<String>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The request is answered with an error: 409, 410, 429, 500, 503 or any other code.
    Status {
        /// HTTP status code.
        code: u16,
        /// Seconds in the header `Retry-After`.
        retry_after: Option<u64>,
    },
    /// The request is worked on only after this time.
    Delay(Duration),
    /// The request is never answered (until the client gives up, the rule is removed or the server ends).
    Hang,
    /// The request is carried out, but the connection is cut instead of an answer.
    LoseAnswer,
    /// A get or list is answered as of this revision.
    StaleRead {
        /// A revision that the server has seen; see [`ApiServer::revision`](crate::ApiServer::revision).
        revision: u64,
    },
    /// A watch event is left out.
    DropEvent,
    /// A watch event comes this much later than it was committed; later events of the watch wait for it.
    DelayEvents(Duration),
    /// A watch stands still, without bookmarks, until the rule is removed.
    FreezeEvents,
    /// A watch ends when it would send the event.
    CutWatch,
}

impl Effect {
    fn is_for_events(&self) -> bool {
        matches!(self, Self::DropEvent | Self::DelayEvents(_) | Self::FreezeEvents | Self::CutWatch)
    }
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For what.
    pub matcher: Matcher,
    /// What happens.
    pub effect: Effect,
    /// How many matches pass unharmed first: `skip: 2` strikes from the third on.
    pub skip: u64,
    /// How often it strikes; `None` means until it is removed. A watch that is frozen or delayed uses this up only
    /// once per event.
    pub count: Option<u64>,
}

impl Rule {
    /// Strikes every matching request until it is removed.
    pub fn new(matcher: Matcher, effect: Effect) -> Self {
        Self { matcher, effect, skip: 0, count: None }
    }

    /// Strikes only `count` times.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Lets `skip` matches pass first.
    #[must_use]
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }
}

/// Identifies an added rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u64);

/// What a rule is matched with.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub verb: Verb,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub user: String,
}

impl Matcher {
    fn matches(&self, subject: &Subject) -> bool {
        let same =
            |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        (self.verbs.is_empty() || self.verbs.contains(&subject.verb))
            && same(&self.resource, &subject.resource)
            && same(&self.subresource, &subject.subresource)
            && same(&self.namespace, &subject.namespace)
            && same(&self.name, &subject.name)
            && same(&self.user, &subject.user)
    }
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    seen: u64,
    hits: u64,
}

impl Active {
    fn strikes(&mut self) -> bool {
        self.seen += 1;
        let strikes = self.seen > self.rule.skip && self.rule.count.is_none_or(|count| self.hits < count);
        self.hits += u64::from(strikes);
        strikes
    }
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Keyed by the order of addition.
    rules: BTreeMap<u64, Active>,
    /// Open watches, keyed by a running number; each removes itself when it ends.
    watches: BTreeMap<u64, (Subject, CancellationToken)>,
}

/// The server's faults: add and remove rules, cut watches. Clones share them.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Faults {
    /// Adds a rule.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        state.rules.insert(id, Active { rule, seen: 0, hits: 0 });
        drop(state);
        self.announce();
        RuleId(id)
    }

    /// Removes a rule; what it held goes on.
    pub fn remove(&self, id: RuleId) {
        self.lock().rules.remove(&id.0);
        self.announce();
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().rules.clear();
        self.announce();
    }

    /// How often a rule has struck; 0 for one that was removed.
    pub fn hits(&self, id: RuleId) -> u64 {
        self.lock().rules.get(&id.0).map_or(0, |active| active.hits)
    }

    /// Cuts the connection of every open watch that matches. `matcher.namespace` and `matcher.name` are those the
    /// watch asked for. Returns how many were cut.
    pub fn cut_watches(&self, matcher: &Matcher) -> usize {
        let state = self.lock();
        let cut = state.watches.values().filter(|(subject, _)| matcher.matches(subject));
        cut.map(|(_, token)| token.cancel()).count()
    }

    /// How many watches are open that match.
    pub fn open_watches(&self, matcher: &Matcher) -> usize {
        self.lock().watches.values().filter(|(subject, _)| matcher.matches(subject)).count()
    }

    /// The fault that strikes a request, if any.
    pub(crate) fn strike(&self, subject: &Subject) -> Option<(RuleId, Effect)> {
        self.find(subject, false)
    }

    /// The fault that strikes an event of a watch, if any.
    pub(crate) fn strike_event(&self, subject: &Subject) -> Option<(RuleId, Effect)> {
        self.find(subject, true)
    }

    /// Whether the watch is to stand still at this moment, apart from any event. Uses nothing up.
    pub(crate) fn frozen(&self, subject: &Subject) -> bool {
        let state = self.lock();
        let unbounded =
            |active: &&Active| active.rule.effect == Effect::FreezeEvents && active.rule.count.is_none();
        state.rules.values().filter(unbounded).any(|active| {
            // Bookmarks have neither namespace nor name, and must not run ahead of what is frozen.
            let matcher = Matcher { namespace: None, name: None, ..active.rule.matcher.clone() };
            matcher.matches(subject)
        })
    }

    pub(crate) fn is_active(&self, id: RuleId) -> bool {
        self.lock().rules.contains_key(&id.0)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn register_watch(&self, subject: Subject) -> WatchGuard {
        let token = CancellationToken::new();
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        state.watches.insert(id, (subject, token.clone()));
        drop(state);
        WatchGuard { faults: self.clone(), id, cut: token }
    }

    fn find(&self, subject: &Subject, events: bool) -> Option<(RuleId, Effect)> {
        let mut state = self.lock();
        if state.rules.is_empty() {
            return None;
        }
        let matching = state.rules.iter_mut().filter(|(_, active)| {
            active.rule.effect.is_for_events() == events && active.rule.matcher.matches(subject)
        });
        for (id, active) in matching {
            if active.strikes() {
                return Some((RuleId(*id), active.rule.effect.clone()));
            }
        }
        None
    }

    fn announce(&self) {
        self.changed.send_modify(|generation| *generation += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a watch in the list of open watches for as long as it lives.
#[derive(Debug)]
pub(crate) struct WatchGuard {
    faults: Faults,
    id: u64,
    /// Cancelled when the watch is to be cut.
    pub cut: CancellationToken,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.faults.lock().watches.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(verb: Verb, name: &str) -> Subject {
        Subject {
            verb,
            resource: "leases".into(),
            subresource: String::new(),
            namespace: "n".into(),
            name: name.into(),
            user: "bob".into(),
        }
    }

    #[test]
    fn a_rule_strikes_the_nth_match_and_only_as_often_as_asked() {
        let faults = Faults::default();
        let matcher = Matcher { verbs: vec![Verb::Update], name: Some("a".into()), ..Matcher::default() };
        let effect = Effect::Status { code: 409, retry_after: None };
        let id = faults.add(Rule::new(matcher, effect).after(1).times(2));
        let struck: Vec<bool> =
            (0..5).map(|_| faults.strike(&subject(Verb::Update, "a")).is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!(faults.hits(id), 2);
        assert!(faults.strike(&subject(Verb::Update, "b")).is_none());
        assert!(faults.strike(&subject(Verb::Get, "a")).is_none());
    }

    #[test]
    fn rules_for_events_leave_requests_alone() {
        let faults = Faults::default();
        let id = faults.add(Rule::new(Matcher::default(), Effect::DropEvent));
        assert!(faults.strike(&subject(Verb::Watch, "a")).is_none());
        assert!(faults.strike_event(&subject(Verb::Watch, "a")).is_some());
        faults.remove(id);
        assert!(faults.strike_event(&subject(Verb::Watch, "a")).is_none());
    }

    #[test]
    fn open_watches_are_counted_and_cut() {
        let faults = Faults::default();
        let guard = faults.register_watch(subject(Verb::Watch, ""));
        assert_eq!(faults.open_watches(&Matcher::default()), 1);
        assert_eq!(
            faults.cut_watches(&Matcher { resource: Some("secrets".into()), ..Matcher::default() }),
            0
        );
        assert!(!guard.cut.is_cancelled());
        assert_eq!(faults.cut_watches(&Matcher { resource: Some("leases".into()), ..Matcher::default() }), 1);
        assert!(guard.cut.is_cancelled());
        drop(guard);
        assert_eq!(faults.open_watches(&Matcher::default()), 0);
    }
}
