//! Whether replicas agree: detectors for what must never happen.
//!
//! Every replica now and then tells what it holds of each namespace, as a
//! digest, and on which namespaces it acts ([`Testimony`]). Two replicas that
//! have seen the same events hold the same, byte for byte; and of the members
//! of one epoch exactly one acts on each namespace. What is found otherwise is
//! counted only when the next testimonies say the same: a list may show in
//! advance what its events tell a moment later, and a namespace may have
//! appeared between two testimonies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{Epoch, Frontier, MemberName};

/// A namespace in a testimony: the hash of its name.
pub type NamespaceHash = u64;

/// The hash by which testimonies name a namespace; equal in every release.
pub fn namespace_hash(namespace: &str) -> NamespaceHash {
    xxh3_64(namespace.as_bytes())
}

/// What a replica says of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// Digest of what gateways get of it ([`crate::store::Store::digests`]).
    pub digest: u64,
    /// Whether the replica acts on it.
    pub acting: bool,
}

/// What one replica holds and acts on at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Testimony {
    /// The epoch by which it acts.
    pub epoch: Epoch,
    /// The last event that it has seen of each kind.
    pub events: Frontier,
    /// Its namespaces with delivered resources.
    pub namespaces: BTreeMap<NamespaceHash, Witness>,
}

/// What became of comparing two testimonies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// They are of different moments: nothing can be said.
    Apart,
    /// Both hold the same.
    Equal,
    /// They differ in these namespaces.
    Different(BTreeSet<NamespaceHash>),
}

impl Testimony {
    /// Compares what two replicas hold, if both have seen the same events.
    pub fn compare(&self, other: &Testimony) -> Comparison {
        if self.events != other.events {
            return Comparison::Apart;
        }
        let digest = |of: &Testimony, hash: &NamespaceHash| of.namespaces.get(hash).map(|w| w.digest);
        let all = self.namespaces.keys().chain(other.namespaces.keys());
        let different: BTreeSet<_> =
            all.filter(|hash| digest(self, hash) != digest(other, hash)).copied().collect();
        if different.is_empty() { Comparison::Equal } else { Comparison::Different(different) }
    }
}

/// Namespaces on which not exactly one member acts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Nobody acts on these.
    pub unowned: BTreeSet<NamespaceHash>,
    /// Several members act on these.
    pub doubled: BTreeSet<NamespaceHash>,
}

/// Hears testimonies and finds what does not fit together.
#[derive(Debug, Default)]
pub struct Auditor {
    heard: BTreeMap<MemberName, Arc<Testimony>>,
    /// What was different at the last comparison, by member.
    differing: BTreeMap<MemberName, BTreeSet<NamespaceHash>>,
    /// Differences that were seen twice in a row, by member.
    confirmed: BTreeMap<MemberName, BTreeSet<NamespaceHash>>,
    coverage: Coverage,
}

impl Auditor {
    /// Takes a member's testimony and compares it with ours of this moment.
    pub fn hear(&mut self, member: &MemberName, theirs: Arc<Testimony>, ours: &Testimony) -> Comparison {
        let comparison = ours.compare(&theirs);
        self.heard.insert(member.clone(), theirs);
        match &comparison {
            Comparison::Apart => {}
            Comparison::Equal => {
                self.differing.remove(member);
                self.confirmed.remove(member);
            }
            Comparison::Different(now) => {
                let before = self.differing.insert(member.clone(), now.clone()).unwrap_or_default();
                self.confirmed.insert(member.clone(), now & &before);
            }
        }
        comparison
    }

    /// Namespaces of which another member, for a second time, holds something
    /// else after the same events.
    pub fn different(&self) -> BTreeSet<NamespaceHash> {
        self.confirmed.values().flatten().copied().collect()
    }

    /// Compares who acts on what with our own testimony: only when the last
    /// testimony of every member is of our epoch, otherwise `None`. What does
    /// not fit is told when it did not at the audit before, either.
    pub fn audit(
        &mut self,
        own: &MemberName,
        ours: Arc<Testimony>,
        members: &[MemberName],
    ) -> Option<Coverage> {
        let epoch = ours.epoch;
        self.heard.retain(|member, _| members.contains(member));
        self.differing.retain(|member, _| members.contains(member));
        self.confirmed.retain(|member, _| members.contains(member));
        self.heard.insert(own.clone(), ours);
        let of_epoch = |member: &MemberName| self.heard.get(member).filter(|said| said.epoch == epoch);
        let Some(said) = members.iter().map(of_epoch).collect::<Option<Vec<_>>>() else {
            self.coverage = Coverage::default();
            return None;
        };
        let mut acting: BTreeMap<NamespaceHash, u32> = BTreeMap::new();
        for (hash, witness) in said.iter().flat_map(|said| &said.namespaces) {
            *acting.entry(*hash).or_default() += u32::from(witness.acting);
        }
        let with = |fits: fn(u32) -> bool| -> BTreeSet<NamespaceHash> {
            acting.iter().filter(|(_, count)| fits(**count)).map(|(hash, _)| *hash).collect()
        };
        let now = Coverage { unowned: with(|count| count == 0), doubled: with(|count| count > 1) };
        let before = std::mem::replace(&mut self.coverage, now.clone());
        Some(Coverage { unowned: &now.unowned & &before.unowned, doubled: &now.doubled & &before.doubled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;

    fn said(epoch: u64, event: u64, rows: &[(&str, u64, bool)]) -> Arc<Testimony> {
        let row = |(name, digest, acting): &(&str, u64, bool)| {
            (namespace_hash(name), Witness { digest: *digest, acting: *acting })
        };
        Arc::new(Testimony {
            epoch: Epoch(epoch),
            events: Frontier([Revision(event); 4]),
            namespaces: rows.iter().map(row).collect(),
        })
    }

    fn only(name: &str) -> BTreeSet<NamespaceHash> {
        [namespace_hash(name)].into()
    }

    #[test]
    fn only_the_same_events_must_give_the_same_content() {
        let ours = said(1, 7, &[("a", 1, true), ("b", 2, false)]);
        assert_eq!(ours.compare(&said(1, 8, &[("a", 9, true)])), Comparison::Apart);
        assert_eq!(ours.compare(&said(2, 7, &[("a", 1, false), ("b", 2, true)])), Comparison::Equal);
        assert_eq!(ours.compare(&said(1, 7, &[("a", 1, true)])), Comparison::Different(only("b")));
    }

    #[test]
    fn a_difference_is_told_when_it_is_seen_again_and_no_longer_than_it_lasts() {
        let (mut auditor, peer) = (Auditor::default(), MemberName::from("peer"));
        let ours = said(1, 7, &[("a", 1, true)]);
        auditor.hear(&peer, said(1, 7, &[("a", 2, false)]), &ours);
        assert!(auditor.different().is_empty());
        auditor.hear(&peer, said(1, 9, &[("a", 1, false)]), &ours);
        auditor.hear(&peer, said(1, 7, &[("a", 2, false), ("b", 1, false)]), &ours);
        assert_eq!(auditor.different(), only("a"));
        auditor.hear(&peer, said(1, 7, &[("a", 1, false)]), &ours);
        assert!(auditor.different().is_empty());
    }

    #[test]
    fn each_namespace_is_to_be_acted_on_by_exactly_one_member_of_an_epoch() {
        let mut auditor = Auditor::default();
        let (own, peer) = (MemberName::from("own"), MemberName::from("peer"));
        let members = [own.clone(), peer.clone()];
        let ours = said(3, 7, &[("a", 1, true), ("b", 1, true), ("c", 1, false)]);
        assert_eq!(auditor.audit(&own, ours.clone(), &members), None, "the other one has said nothing");
        auditor.hear(&peer, said(2, 7, &[("a", 1, true)]), &ours);
        assert_eq!(auditor.audit(&own, ours.clone(), &members), None, "it speaks of another epoch");
        auditor.hear(&peer, said(3, 7, &[("a", 1, true), ("b", 1, false)]), &ours);
        assert_eq!(
            auditor.audit(&own, ours.clone(), &members),
            Some(Coverage::default()),
            "once is not enough"
        );
        let found = Coverage { unowned: only("c"), doubled: only("a") };
        assert_eq!(auditor.audit(&own, ours.clone(), &members), Some(found));
        auditor.hear(&peer, said(3, 7, &[("a", 1, false), ("c", 1, true)]), &ours);
        assert_eq!(auditor.audit(&own, ours, &members), Some(Coverage::default()));
    }
}
