//! Batches as edges between positions.
//!
//! **Versions never claim what was not acknowledged.** A gateway that rejects
//! one update of a batch takes the later ones and their versions. If the last
//! one carried the version of the finished difference, a gateway that moved to
//! another replica at that moment would be thought to have the rejected one.
//! So a batch of several updates carries versions that name the whole
//! difference as unfinished, and the finished version follows as an empty
//! message once all are acknowledged.
//!
//! **Versions name what may be held.** A rejected update may be held all the
//! same, and with it those that only shared its fate, while the version stays
//! what it was. If that one named a lower `high`, a replica that lags could
//! take the gateway back. So what can be rejected in company, several updates
//! or a snapshot, is preceded by an empty message that names the difference.

use std::sync::Arc;

use super::plan::{Difference, Item, What, fill};
use super::position::{Base, Position, Positions};
use super::{Batch, Change, DeliveryConfig, Snapshot, Update, size};
use crate::breakage::Breakage;
use crate::ids::{Frontier, Kind, ObjectKey};
use crate::object::Resource;
use crate::store::{Mark, Stamp, Store};

/// An entry of a snapshot. The last good version of what the gateway rejected has
/// no mark: it delivers nothing.
pub(crate) type Listing = (Arc<Resource>, Mark);

/// Whether a snapshot has an entry in place of what the gateway rejected.
pub(crate) fn is_last_good((_, mark): &Listing) -> bool {
    *mark == Mark::default()
}

/// A batch and where it leads.
#[derive(Debug)]
pub(crate) struct Edge {
    pub batch: Arc<Batch>,
    /// For each update the outcome that it delivers, if any.
    pub marks: Vec<Option<Mark>>,
    /// Where it starts; versions and NACKs refer to it.
    pub from: Arc<Position>,
    /// What of `from.ahead` was still current.
    pub already: Arc<[Stamp]>,
    /// The frontier that it was computed for.
    pub frontier: Frontier,
    /// Where it leads when everything is acknowledged.
    pub target: Arc<Position>,
    /// What the snapshot holds, in its order.
    pub snapshot: Vec<Listing>,
    /// Whether the snapshot alone was the whole configuration.
    pub whole: bool,
}

/// What edges are built with.
pub(crate) struct Builder<'a> {
    pub config: &'a DeliveryConfig,
    pub store: &'a Store,
    pub positions: &'a mut Positions,
    pub batch_ids: &'a mut u64,
}

/// One message being put together.
struct Part {
    change: Change,
    mark: Option<Mark>,
    bytes: u64,
}

impl Part {
    fn reset() -> Self {
        Part { change: Change::Reset, mark: None, bytes: size::UPDATE }
    }

    fn announcement() -> Self {
        Part { change: Change::Heartbeat, mark: None, bytes: size::UPDATE }
    }

    /// What makes a gateway's version name a difference before its first part.
    fn opening(reset: bool, rejectable: usize) -> Option<Self> {
        if reset { Some(Part::reset()) } else { (rejectable > 1).then(Part::announcement) }
    }

    fn item(item: Item) -> Self {
        let Item { kind, key, mark, bytes, what } = item;
        let change = match what {
            What::Upsert { resource, added } => Change::Upsert { resource, added },
            What::Delete => Change::Delete { kind, key },
        };
        Part { change, mark: Some(mark), bytes }
    }
}

impl Builder<'_> {
    /// Increments of as much of a difference as fits into a batch. `covered`:
    /// the difference is known to be complete.
    pub fn increments(
        &mut self,
        from: &Arc<Position>,
        difference: &Difference,
        covered: bool,
        reset: bool,
    ) -> Edge {
        let (items, turn) = fill(
            difference.items.clone(),
            self.config.batch_updates,
            self.config.batch_bytes,
            from.turn.as_ref(),
        );
        let complete = covered && turn.is_none();
        let opening = Part::opening(reset, items.len());
        let parts: Vec<_> = opening.into_iter().chain(items.into_iter().map(Part::item)).collect();
        self.edge(from, difference, parts, complete, turn)
    }

    /// A full synchronisation: a snapshot, and as ADDED what does not fit into
    /// one message with it. `padding` are entries that only count.
    ///
    /// With `reset` an empty message goes first. A gateway that rejects a
    /// snapshot does not take over its sequence, and may hold it all the same
    /// while its version is still empty: wherever it connects next, it must not
    /// be taken for one that has just started.
    pub fn full(
        &mut self,
        from: &Arc<Position>,
        difference: &Difference,
        mut padding: Vec<(Kind, ObjectKey)>,
        list: Vec<Listing>,
        reset: bool,
    ) -> Edge {
        let never_empty = from.base != Base::Nothing(None);
        if never_empty && list.is_empty() && padding.is_empty() {
            padding.push(filler());
        }
        let (list, rest) = self.first_message(list, &padding);
        let remaining = Difference {
            items: rest.iter().map(|(resource, mark)| Item::upsert(resource, *mark, true)).collect(),
            already: list.iter().flat_map(|(_, mark)| mark.stamps()).collect::<Vec<_>>().into(),
            excluded: difference.excluded.clone(),
        };
        let snapshot = snapshot_part(&list, padding);
        let room = self.config.batch_bytes.saturating_sub(snapshot.bytes);
        let updates = self.config.batch_updates.saturating_sub(1);
        let (items, turn) = if rest.is_empty() || updates == 0 || room == 0 {
            (Vec::new(), (!rest.is_empty()).then(|| "".into()))
        } else {
            fill(remaining.items.clone(), updates, room, None)
        };
        let opening = Part::opening(reset, list.len().max(2));
        let items = items.into_iter().map(Part::item);
        let parts = opening.into_iter().chain(std::iter::once(snapshot)).chain(items).collect();
        let base = Position {
            base: Base::Nothing(Some(self.store.frontier())),
            low: Frontier::default(),
            reach: self.store.frontier(),
            step: if from.base == Base::Log { 0 } else { from.step },
            ahead: Vec::new(),
            doubtful: Vec::new(),
            bereft: false,
            resumed: false,
            ..Position::clone(from)
        };
        let whole = rest.is_empty();
        let mut edge = self.edge_from(from, base, &remaining, parts, turn.is_none(), turn);
        edge.snapshot = list;
        edge.whole = whole;
        edge
    }

    /// What of a list, in its order, is in the snapshot, and what comes after it. Last
    /// good versions are in the snapshot, as nothing would ask for them again, even if
    /// their backends come only after it; should they alone be too much, the gateway
    /// loses some.
    fn first_message(
        &self,
        list: Vec<Listing>,
        padding: &[(Kind, ObjectKey)],
    ) -> (Vec<Listing>, Vec<Listing>) {
        let mut bytes = snapshot_bytes(0, padding);
        let mut fits = |(resource, _): &Listing| {
            let sum = bytes + size::resource(resource);
            let fits = sum <= self.config.message_limit;
            if fits {
                bytes = sum;
            }
            fits
        };
        let mut all_so_far = true;
        let kept: Vec<_> = list.iter().map(|listing| is_last_good(listing) && fits(listing)).collect();
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for (listing, kept) in list.into_iter().zip(kept) {
            if kept {
                first.push(listing);
            } else if !is_last_good(&listing) {
                all_so_far = all_so_far && fits(&listing);
                if all_so_far { first.push(listing) } else { rest.push(listing) }
            }
        }
        (first, rest)
    }

    /// A full synchronisation that is known to be partial: a probe for the one
    /// resource that makes a gateway reject everything.
    pub fn probe(&mut self, from: &Arc<Position>, list: &[Listing], padding: Vec<(Kind, ObjectKey)>) -> Edge {
        let mut list = list.to_vec();
        snapshot_order(&mut list);
        let difference = Difference { excluded: from.excluded.clone(), ..Difference::default() };
        let mut edge =
            self.edge(from, &difference, vec![snapshot_part(&list, padding)], false, from.turn.clone());
        edge.snapshot = list;
        edge
    }

    /// Updates that put back what a gateway held; they deliver nothing new.
    /// `bereft`: see [`Position::bereft`].
    pub fn repair(&mut self, from: &Arc<Position>, changes: Vec<Change>, bereft: bool) -> Edge {
        let difference = Difference {
            already: from.ahead.as_slice().into(),
            excluded: from.excluded.clone(),
            ..Difference::default()
        };
        let part = |change: Change| {
            let bytes = size::UPDATE
                + match &change {
                    Change::Upsert { resource, .. } => size::resource(resource),
                    Change::Delete { key, .. } => size::entry(key),
                    _ => 0,
                };
            Part { change, mark: None, bytes }
        };
        let parts = changes.into_iter().map(part).collect();
        let base = Position { bereft: from.bereft || bereft, ..Position::clone(from) };
        self.edge_from(from, base, &difference, parts, false, from.turn.clone())
    }

    /// The empty message that tells a gateway where it is.
    pub fn heartbeat(&mut self, at: &Position) -> Arc<Batch> {
        let update = Update { change: Change::Heartbeat, version: at.version.clone(), last: true };
        self.batch(vec![update], size::UPDATE, false)
    }

    fn batch(&mut self, updates: Vec<Update>, bytes: u64, full: bool) -> Arc<Batch> {
        *self.batch_ids += 1;
        Arc::new(Batch { id: *self.batch_ids, updates, bytes, full })
    }

    fn edge(
        &mut self,
        from: &Arc<Position>,
        difference: &Difference,
        parts: Vec<Part>,
        complete: bool,
        turn: Option<Arc<str>>,
    ) -> Edge {
        self.edge_from(from, Position::clone(from), difference, parts, complete, turn)
    }

    /// `base` is `from`, or what a snapshot makes of it.
    fn edge_from(
        &mut self,
        from: &Arc<Position>,
        base: Position,
        difference: &Difference,
        parts: Vec<Part>,
        complete: bool,
        turn: Option<Arc<str>>,
    ) -> Edge {
        let frontier = self.store.frontier();
        let high = base.high.join(&frontier);
        let marks: Vec<_> = parts.iter().map(|part| part.mark).collect();
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let target = if complete {
            Position {
                base: Base::Log,
                low: frontier,
                high,
                reach: frontier,
                step: 0,
                ahead: Vec::new(),
                doubtful: Vec::new(),
                excluded: difference.excluded.clone(),
                bereft: false,
                resumed: false,
                turn: None,
                ..base.clone()
            }
        } else {
            let delivered = marks.iter().flatten().flat_map(|mark| mark.stamps());
            // No more room than they need: there is one list for each batch of a large
            // difference, and each has all before it.
            let mut ahead = Vec::with_capacity(difference.already.len() + 2 * marks.len());
            ahead.extend(difference.already.iter().copied().chain(delivered));
            ahead.sort_unstable();
            ahead.dedup();
            let step = base.step.saturating_add(count);
            let excluded = difference.excluded.clone();
            Position { high, step, ahead, excluded, turn, ..base.clone() }
        };
        let target = self.positions.intern(target);
        // See the module's description: only a batch that cannot be taken in
        // part may carry the version of its end.
        let rejectable =
            parts.iter().filter(|part| !matches!(part.change, Change::Reset | Change::Heartbeat)).count();
        let plain_end = rejectable <= 1 || !complete;
        let last = parts.len();
        let full = parts.iter().any(|part| matches!(part.change, Change::FullSync(_)));
        let bytes = parts.iter().map(|part| part.bytes).sum();
        let mut updates = Vec::with_capacity(last);
        for (number, part) in (1u32..).zip(parts) {
            let is_last = number == count;
            let hasty = self.config.breakage.is(Breakage::VersionTooEarly);
            let version = if is_last && plain_end || hasty {
                target.version.clone()
            } else {
                self.positions.version(&base, base.low, high, base.step.saturating_add(number))
            };
            updates.push(Update { change: part.change, version, last: is_last });
        }
        Edge {
            batch: self.batch(updates, bytes, full),
            marks,
            from: from.clone(),
            already: difference.already.clone(),
            frontier,
            target,
            snapshot: Vec::new(),
            whole: false,
        }
    }
}

impl Edge {
    /// Where a gateway is that acknowledged only the updates for which `taken`
    /// says so: nothing is claimed, all that was taken is remembered. What was
    /// not taken it may hold all the same (wire point 13), see
    /// [`Position::doubtful`].
    pub fn partial(
        &self,
        positions: &mut Positions,
        store: &Store,
        taken: impl Fn(usize) -> bool,
    ) -> Arc<Position> {
        let took_snapshot = self
            .batch
            .updates
            .iter()
            .enumerate()
            .any(|(index, update)| matches!(update.change, Change::FullSync(_)) && taken(index));
        let delivered = self.marks.iter().enumerate().filter(|(index, _)| taken(*index));
        let marks = delivered.filter_map(|(_, mark)| *mark);
        let mut ahead: Vec<_> = marks.flat_map(Mark::stamps).collect();
        ahead.extend(self.already.iter());
        let mut draft = Position::clone(&self.from);
        let not_taken = self.marks.iter().enumerate().filter(|(index, _)| !taken(*index));
        let mut doubtful: Vec<_> = not_taken.filter_map(|(_, mark)| Some(mark.as_ref()?.birth)).collect();
        doubtful.extend(self.from.doubtful.iter().filter(|_| !took_snapshot));
        if took_snapshot {
            draft.base = Base::Nothing(Some(self.frontier));
            draft.low = Frontier::default();
            draft.reach = self.frontier;
            draft.bereft = false;
            draft.resumed = false;
        }
        if self.batch.full && !took_snapshot {
            ahead.clone_from(&draft.ahead);
            // What appeared after all that it had.
            let new = |(resource, mark): &&Listing| match store
                .entry(resource.kind, &resource.key)
                .filter(|entry| entry.mark.birth == mark.birth)
            {
                Some(entry) => entry.born.is_some_and(|born| born.at > self.from.reach.get(resource.kind)),
                None => true,
            };
            let snapshot = self.snapshot.iter().filter(new).map(|(_, mark)| mark);
            doubtful.extend(snapshot.chain(self.marks.iter().flatten()).map(|mark| mark.birth));
        }
        doubtful.sort_unstable();
        doubtful.dedup();
        draft.doubtful = doubtful;
        ahead.sort_unstable();
        ahead.dedup();
        draft.ahead = ahead;
        draft.high = draft.high.join(&self.frontier);
        let updates = u32::try_from(self.batch.updates.len()).unwrap_or(u32::MAX);
        draft.step = draft.step.saturating_add(updates);
        positions.intern(draft)
    }
}

/// Backends before routes; within a kind by rank, then by key. The sort is one
/// that makes use of what is in order already: lists come from the store in the
/// order of kinds and keys.
pub(crate) fn snapshot_order(list: &mut [Listing]) {
    list.sort_by(|(a, _), (b, _)| {
        let order = |r: &Resource| (r.kind.is_route(), r.kind, r.rank);
        order(a).cmp(&order(b)).then_with(|| a.key.cmp(&b.key))
    });
}

/// The bytes of a snapshot with everything in it.
pub(crate) fn snapshot_bytes(resources: u64, padding: &[(Kind, ObjectKey)]) -> u64 {
    size::UPDATE + size::SNAPSHOT + resources + padding.iter().map(size::padding).sum::<u64>()
}

/// A name that no object has (names in Kubernetes begin with a letter or digit).
fn filler() -> (Kind, ObjectKey) {
    (Kind::ApiRoute, ObjectKey::new("-", "padding"))
}

fn snapshot_part(list: &[Listing], padding: Vec<(Kind, ObjectKey)>) -> Part {
    let resources: Vec<_> = list.iter().map(|(resource, _)| resource.clone()).collect();
    let sum = resources.iter().map(|resource| size::resource(resource)).sum();
    let bytes = snapshot_bytes(sum, &padding);
    Part { change: Change::FullSync(Snapshot { resources, padding }), mark: None, bytes }
}
