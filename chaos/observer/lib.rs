//! Checks what was seen of a fleet against its promises. It shares no code with
//! the product: a mistake in the product must not hide itself here.
//!
//! Whoever watches a fleet tells an [`Observer`] every [`Event`] in the order of
//! time, and stops at the first [`Violation`].

mod event;
mod ids;
mod violation;

pub use event::{Claim, Event, Map, Memory, Ready, Refused, Removal, Subject, Write};
pub use ids::{At, Content, GatewayId, InstanceId, KindId, Names, NamespaceId, ObjectId};
pub use violation::{About, Invariant, Violation};

/// What the promises are held to, where they name a bound.
#[derive(Debug, Clone, Default)]
pub struct Bounds {}

/// Sees what happens and says when a promise is broken.
#[derive(Debug, Default)]
pub struct Observer {
    names: Names,
}

impl Observer {
    /// An observer that has seen nothing.
    pub fn new(_bounds: Bounds) -> Self {
        Observer { names: Names::default() }
    }

    /// The words behind the ids in events.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// To give ids to what appears.
    pub fn names_mut(&mut self) -> &mut Names {
        &mut self.names
    }

    /// Takes one event into account.
    ///
    /// # Errors
    /// When it breaks a promise.
    pub fn see(&mut self, _at: At, _event: &Event<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
