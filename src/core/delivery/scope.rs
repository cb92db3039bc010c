//! What part of the fleet's configuration a gateway gets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::{Kind, ObjectKey};

/// Names nothing: an empty set means everything, and no namespace has this name.
const NOTHING: &str = "!";

/// Namespaces and kinds.
///
/// Names of namespaces may end in `*`: then they are how names begin. Such sets are
/// closed under intersection, and whether one includes a name takes two lookups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Scope {
    /// Names, and beginnings of names with a `*` behind, none of which includes
    /// another; empty: all.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Kinds; empty: all.
    pub kinds: BTreeSet<Kind>,
}

/// Whether one name is, or begins as, a pattern says; both may be patterns.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    pattern == name || pattern.strip_suffix('*').is_some_and(|beginning| name.starts_with(beginning))
}

impl Scope {
    /// What these names and kinds include together; no names or no kinds: all.
    pub fn new(names: impl IntoIterator<Item = Arc<str>>, kinds: BTreeSet<Kind>) -> Self {
        let names: BTreeSet<Arc<str>> = names.into_iter().collect();
        if names.contains("*") {
            return Scope { namespaces: BTreeSet::new(), kinds };
        }
        let mut namespaces = BTreeSet::<Arc<str>>::new();
        for name in names {
            // In their order a pattern stands before all that it includes, but for the
            // name that is its beginning, which stands right before it.
            match namespaces.last() {
                Some(last) if covers(last, &name) => continue,
                Some(last) if covers(&name, last) => drop(namespaces.pop_last()),
                _ => {}
            }
            namespaces.insert(name);
        }
        Scope { namespaces, kinds }
    }

    /// Nothing at all.
    pub fn nothing() -> Self {
        Scope { namespaces: [NOTHING.into()].into(), kinds: BTreeSet::new() }
    }

    /// What both include.
    pub fn within(&self, other: &Scope) -> Scope {
        let kinds: BTreeSet<Kind> = match (self.kinds.is_empty(), other.kinds.is_empty()) {
            (true, _) => other.kinds.clone(),
            (_, true) => self.kinds.clone(),
            _ => self.kinds.intersection(&other.kinds).copied().collect(),
        };
        if kinds.is_empty() && !(self.kinds.is_empty() && other.kinds.is_empty()) {
            return Scope::nothing();
        }
        let names: BTreeSet<Arc<str>> = match (self.namespaces.is_empty(), other.namespaces.is_empty()) {
            (true, _) => other.namespaces.clone(),
            (_, true) => self.namespaces.clone(),
            _ => {
                let own = self.namespaces.iter().filter(|name| other.includes_namespace(name));
                let theirs = other.namespaces.iter().filter(|name| self.includes_namespace(name));
                own.chain(theirs).cloned().collect()
            }
        };
        if names.is_empty() && !(self.namespaces.is_empty() && other.namespaces.is_empty()) {
            return Scope::nothing();
        }
        Scope::new(names, kinds)
    }

    /// Whether it includes objects of this kind.
    pub fn includes_kind(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// Whether it includes this namespace, or all that begin like it.
    pub fn includes_namespace(&self, name: &str) -> bool {
        // Names have no character before `*`, and nothing that a pattern includes stands
        // beside it: so a pattern that includes a name is the next one before it, or
        // behind it when the name is no longer than the beginning.
        let before = self.namespaces.range::<str, _>((Bound::Unbounded, Bound::Included(name))).next_back();
        let behind = || self.namespaces.range::<str, _>((Bound::Excluded(name), Bound::Unbounded)).next();
        self.namespaces.is_empty()
            || before.is_some_and(|known| covers(known, name))
            || behind().is_some_and(|known| covers(known, name))
    }

    /// Whether it includes this object.
    pub fn includes(&self, kind: Kind, key: &ObjectKey) -> bool {
        self.includes_kind(kind) && self.includes_namespace(&key.namespace)
    }

    /// What is known of the namespaces that it includes, each once.
    pub fn select<'a, V>(&'a self, known: &'a BTreeMap<Arc<str>, V>) -> impl Iterator<Item = &'a V> {
        let all = self.namespaces.is_empty().then(|| known.values());
        let some = self.namespaces.iter().flat_map(|name| {
            let named = known.range::<str, _>((Bound::Included(beginning(name)), Bound::Unbounded));
            named.take_while(|(key, _)| covers(name, key)).map(|(_, value)| value)
        });
        all.into_iter().flatten().chain(some)
    }

    /// The same for what is known by object.
    pub fn select_objects<'a, V>(
        &'a self,
        known: &'a BTreeMap<ObjectKey, V>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a V)> {
        let all = self.namespaces.is_empty().then(|| known.iter());
        let some = self.namespaces.iter().flat_map(|name| {
            let named = known.range(ObjectKey::new(beginning(name), "")..);
            named.take_while(|(key, _)| covers(name, &key.namespace))
        });
        all.into_iter().flatten().chain(some)
    }
}

/// Where what a name includes begins in a sorted map.
fn beginning(name: &str) -> &str {
    name.strip_suffix('*').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(names: &[&str]) -> Scope {
        Scope::new(names.iter().map(|name| Arc::from(*name)), BTreeSet::new())
    }

    fn name() -> impl Strategy<Value = String> {
        "[ab]{1,3}(-[ab])?"
    }

    fn names() -> impl Strategy<Value = Scope> {
        let pattern = ("[ab]{0,2}-?", Just("*")).prop_map(|(beginning, star)| beginning + star);
        prop::collection::vec(prop_oneof![name(), pattern], 0..6)
            .prop_map(|names| Scope::new(names.into_iter().map(Arc::from), BTreeSet::new()))
    }

    #[test]
    fn a_name_with_a_star_is_how_names_begin() {
        let scope = scope(&["team-*", "team-a", "shop", "team*"]);
        assert_eq!(scope.namespaces, ["shop".into(), "team*".into()].into(), "once each");
        for (name, included) in
            [("team", true), ("team-b", true), ("shop", true), ("shop-2", false), ("tea", false)]
        {
            assert_eq!(scope.includes_namespace(name), included, "{name}");
        }
        assert_eq!(self::scope(&["*", "a"]), Scope::default());
        assert!(!Scope::nothing().includes_namespace("a"));
    }

    #[test]
    fn kinds_that_have_nothing_in_common_are_nothing() {
        let of = |kind| Scope { kinds: [kind].into(), ..Scope::default() };
        assert_eq!(of(Kind::ApiRoute).within(&of(Kind::Backend)), Scope::nothing());
        assert_eq!(of(Kind::ApiRoute).within(&Scope::default()), of(Kind::ApiRoute));
        assert_eq!(Scope::nothing().within(&Scope::default()), Scope::nothing());
    }

    proptest! {
        #[test]
        fn an_intersection_includes_what_both_include(one in names(), other in names(), name in name()) {
            let both = one.within(&other);
            prop_assert_eq!(
                both.includes_namespace(&name),
                one.includes_namespace(&name) && other.includes_namespace(&name)
            );
            prop_assert_eq!(&both, &other.within(&one));
        }

        #[test]
        fn what_is_selected_is_what_is_included(
            scope in names(),
            known in prop::collection::btree_set(name(), 0..20),
        ) {
            let known: BTreeMap<Arc<str>, String> =
                known.into_iter().map(|name| (name.as_str().into(), name)).collect();
            let mut selected: Vec<_> = scope.select(&known).cloned().collect();
            selected.sort();
            let included: Vec<_> =
                known.values().filter(|name| scope.includes_namespace(name)).cloned().collect();
            prop_assert_eq!(selected, included);
        }
    }
}
