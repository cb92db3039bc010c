//! The delivery engine's objects as the reporter sees them.

use super::{ObjectView, Objects, Validity};
use crate::delivery::Delivery;
use crate::ids::{Frontier, Kind, ObjectKey};

impl<C> Objects for Delivery<C> {
    fn changed_since(&self, frontier: &Frontier) -> Vec<(Kind, ObjectKey)> {
        self.store().changed_since(frontier)
    }

    fn restated_since(&self, frontier: &Frontier) -> Vec<(Kind, ObjectKey)> {
        self.store().restated_since(frontier)
    }

    fn all(&self) -> Vec<(Kind, ObjectKey)> {
        let of = |kind| self.objects(kind).map(move |object| (kind, object.key.clone()));
        Kind::ALL.into_iter().flat_map(of).collect()
    }

    fn get(&self, kind: Kind, key: &ObjectKey) -> Option<ObjectView<'_>> {
        let view = self.content_of(kind, key).filter(|view| !view.deleting)?;
        let validity = match view.outcome {
            Ok(_) => Validity::Valid,
            Err(invalid) => Validity::Invalid(invalid),
        };
        Some(ObjectView { object: view.object, needs: view.needs, content: view.content, validity })
    }

    fn frontier(&self) -> Frontier {
        Delivery::frontier(self)
    }
}
