//! etcd is restored from a backup, or a standalone server's disk forgot: the log is
//! replaced by a shorter one, and its revisions are used again for other contents.

use flotilla_core::object::RawObject;
use flotilla_observer::{Content, Event as Seen, ObjectId, Past, Subject};

use crate::api::status::claim_of;
use crate::api::{Api, LANES};
use crate::clock::SECONDS;
use crate::universe::Spec;

use super::{Occurrence, World};

/// How long after a restore replicas may be busy with noticing it and starting anew,
/// and gateways with what follows.
const SETTLING: u64 = 120 * SECONDS;

impl World<'_> {
    /// The API servers go away, and come back with the last backup.
    pub(super) fn restore(&mut self, until: u64) {
        let now = self.now;
        self.impair(Subject::ApiServer, until + SETTLING);
        for cache in 0..self.caches.len() {
            let known = &mut self.caches[cache];
            known.down_until = known.down_until.max(until);
            (known.frozen_until, known.frozen_from, known.stale_until) = (0, 0, 0);
            self.break_watches_of(cache);
        }
        let places = self.universe.places();
        let nothing = || (Api::new(places, 0).backup(), vec![None; places]);
        let (backup, written) = self.backup.clone().unwrap_or_else(nothing);
        let before: Vec<Option<RawObject>> =
            (0..places as u32).map(|place| self.api.object(place).cloned()).collect();
        self.api.restore(backup);
        self.api.news = [false; LANES];
        self.old_lives = self.lives;
        self.witness.see(now, &Seen::HistoryReplaced);
        for (place, before) in (0u32..).zip(before) {
            let held = self.written[place as usize];
            self.tell_restored(place, before.as_ref(), held, written[place as usize]);
            if self.api.object(place).is_some_and(|object| object.deleting) {
                self.queue.push(until + SECONDS, Occurrence::Released(place));
            }
        }
        self.written = written;
        for client in &mut self.clients {
            client.model.forget_newest();
        }
    }

    fn tell_restored(
        &mut self,
        place: u32,
        before: Option<&RawObject>,
        held: Option<(u32, Spec)>,
        written: Option<(u32, Spec)>,
    ) {
        let after = self.api.object(place);
        let live = |object: Option<&RawObject>| object.is_some_and(|object| !object.deleting);
        if !live(before) && !live(after) {
            return;
        }
        let same = live(before) == live(after)
            && held.map(|(content, _)| content) == written.map(|(content, _)| content)
            && before.map(|object| &object.uid) == after.map(|object| &object.uid);
        let past = after.filter(|object| !object.deleting).zip(written).map(|(object, (content, _))| Past {
            content: Content(content),
            uid: u32::from_str_radix(&object.uid, 16).unwrap_or(0),
            generation: u32::try_from(object.generation).unwrap_or(u32::MAX),
            says: claim_of(&object.status),
            same,
        });
        let revision = after.map_or(self.api.revision, |object| object.revision.0);
        self.witness.see(self.now, &Seen::Restored { object: ObjectId(place), revision, past });
    }
}
