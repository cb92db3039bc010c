//! I8: what was admitted never creates a conflict. (That otherwise the oldest wins,
//! on every gateway alike, is part of what gateways are to hold: `truth`.)

use crate::ids::{Names, ObjectId};
use crate::truth::Truth;
use crate::violation::{About, Fault, Invariant};

/// Admissions that have not been followed by a write.
#[derive(Debug, Default)]
pub(crate) struct Admissions {
    open: Vec<(ObjectId, u32)>,
}

impl Admissions {
    pub(crate) fn decided(&mut self, object: ObjectId, claim: u32, allowed: bool) {
        self.open.retain(|(other, _)| *other != object);
        if allowed {
            self.open.push((object, claim));
        }
    }

    /// A write landed; returns whether it had been admitted.
    pub(crate) fn written(
        &mut self,
        names: &Names,
        truth: &Truth,
        object: ObjectId,
        claim: Option<u32>,
    ) -> Result<bool, Fault> {
        let Some(index) = self.open.iter().position(|open| Some(open.1) == claim && open.0 == object) else {
            return Ok(false);
        };
        let (_, claim) = self.open.swap_remove(index);
        let Some(other) = truth.admitted_with(claim, object) else { return Ok(true) };
        let text = format!(
            "{} was admitted although {} claims the same and had been admitted",
            names.of_object(object),
            names.of_object(other)
        );
        let namespace = names.place(object).map(|(_, namespace)| namespace);
        Err(Fault::new(Invariant::I8, text, About { namespace, object: Some(object), ..About::default() }))
    }
}
