//! How long nobody acted on a namespace that this replica has gained: the gap of
//! acting.

use std::sync::Arc;
use std::time::Duration;

use flotilla_core::ids::MemberName;
use flotilla_k8s::coordination::OwnershipView;

/// Remembers who owned what before.
pub(super) struct Gaps {
    member: MemberName,
    /// The last map by which this replica acted or, before it ever did, the
    /// first map that it saw.
    before: Option<Arc<OwnershipView>>,
}

/// Two maps, and what went from others to this process between them.
pub(super) struct Gained {
    member: MemberName,
    before: Arc<OwnershipView>,
    now: Arc<OwnershipView>,
}

impl Gaps {
    pub fn new(member: MemberName) -> Self {
        Gaps { member, before: None }
    }

    /// A new view; `Some` when this replica has just begun to act by its map.
    pub fn gained(&mut self, view: &Arc<OwnershipView>) -> Option<Gained> {
        view.map()?;
        if !view.taken_over() {
            self.before.get_or_insert_with(|| view.clone());
            return None;
        }
        let before = self.before.replace(view.clone())?;
        Some(Gained { member: self.member.clone(), before, now: view.clone() })
    }
}

impl Gained {
    /// How long nobody acted on this namespace, as far as known; `None` when it
    /// is not gained.
    pub fn gap(&self, namespace: &str) -> Option<Duration> {
        if self.now.owner(namespace) != Some(&self.member) {
            return None;
        }
        let owner = self.before.owner(namespace)?;
        // The same name may stand for another process.
        if owner == &self.member && self.before.instance(owner) == self.now.instance(owner) {
            return None;
        }
        self.now.idle(owner)
    }
}
