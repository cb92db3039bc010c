//! Lists: one page of a resource as it is, or as it was at an older revision.
//!
//! An older state is today's with the changes since put back, so that a list read in pages is consistent without
//! keeping copies, for as long as the history reaches.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Gone, Key, LabelSelector, Object, Store};

/// Which objects of a resource are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only this namespace; `None` means all.
    pub namespace: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// Only these labels.
    pub labels: LabelSelector,
}

impl Scope {
    /// Whether `object` is asked for.
    pub fn contains(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == object.key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == object.key.name)
            && self.labels.matches(&object.meta.labels)
    }
}

/// Where a page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageStart {
    /// The revision to read at; `None` means the current one.
    pub revision: Option<u64>,
    /// Begin after this key.
    pub after: Option<Key>,
    /// How many objects at most; `None` means all.
    pub limit: Option<usize>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects, in the order of their keys.
    pub objects: Vec<Arc<Object>>,
    /// The revision they were read at.
    pub revision: u64,
    /// Whether there are more.
    pub more: bool,
    /// How many there are after this page; unknown (`None`) when a selector is at work.
    pub remaining: Option<usize>,
}

/// Why a list was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// The resource is not served (any more).
    NoResource,
    /// The revision is older than the history.
    Gone(Gone),
    /// The revision lies in the future.
    TooLarge {
        /// The revision of the last write.
        current: u64,
    },
}

impl Store {
    /// One page of a resource. `accept` sees the objects of the scope and may leave some out.
    pub fn list(
        &self,
        id: &str,
        scope: &Scope,
        start: &PageStart,
        mut accept: impl FnMut(&Object) -> bool,
    ) -> Result<Page, ListError> {
        let collection = self.collections.get(id).ok_or(ListError::NoResource)?;
        let revision = start.revision.unwrap_or(self.revision);
        if revision > self.revision {
            return Err(ListError::TooLarge { current: self.revision });
        }
        let undo = match start.revision {
            Some(revision) => collection.log.undo_to(revision).map_err(ListError::Gone)?,
            None => BTreeMap::new(),
        };
        let first = match (&start.after, &scope.namespace) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(namespace)) => {
                Bound::Included(Key::new(namespace, scope.name.as_deref().unwrap_or_default()))
            }
            (None, None) => Bound::Unbounded,
        };
        let range = (first, Bound::Unbounded);
        let now = collection.objects.range(range.clone()).filter(|(key, _)| !undo.contains_key(*key));
        let then = undo.range(range).filter_map(|(key, object)| Some((key, object.as_ref()?)));
        let within = |key: &Key| scope.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        let mut merged =
            Merged { left: now.peekable(), right: then.peekable() }.take_while(|(key, _)| within(key));

        let limit = start.limit.unwrap_or(usize::MAX);
        let mut objects = Vec::new();
        let mut more = false;
        for (_, object) in merged.by_ref() {
            if !scope.contains(object) || !accept(object) {
                continue;
            }
            if objects.len() == limit {
                more = true;
                break;
            }
            objects.push(object.clone());
        }
        let remaining = (more && scope.labels.is_empty()).then(|| merged.count() + 1);
        Ok(Page { objects, revision, more, remaining })
    }

    /// The object as it was at `revision`.
    pub fn get_at(&self, id: &str, key: &Key, revision: u64) -> Result<Option<Arc<Object>>, ListError> {
        let scope = Scope {
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            ..Scope::default()
        };
        let start = PageStart { revision: Some(revision), ..PageStart::default() };
        Ok(self.list(id, &scope, &start, |_| true)?.objects.pop())
    }
}

/// Merges two iterators of disjoint, ascending keys.
struct Merged<L: Iterator, R: Iterator> {
    left: std::iter::Peekable<L>,
    right: std::iter::Peekable<R>,
}

impl<'a, L, R> Iterator for Merged<L, R>
where
    L: Iterator<Item = (&'a Key, &'a Arc<Object>)>,
    R: Iterator<Item = (&'a Key, &'a Arc<Object>)>,
{
    type Item = (&'a Key, &'a Arc<Object>);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.left.peek(), self.right.peek()) {
            (Some((left, _)), Some((right, _))) if right < left => self.right.next(),
            (Some(_), _) => self.left.next(),
            (None, _) => self.right.next(),
        }
    }
}
