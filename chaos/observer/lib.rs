//! Checks what was seen of a fleet against its promises. It shares no code with
//! the product: a mistake in the product must not hide itself here.
//!
//! Whoever watches a fleet tells an [`Observer`] every [`Event`] in the order of
//! time, and stops at the first [`Violation`]. Telling one costs a few looks into
//! tables and allocates nothing, so that a simulation can tell millions.
//!
//! | promise | where | what is checked, and when |
//! |---|---|---|
//! | I1 | `acting` | when an instance begins to act, and when its write lands |
//! | I2, I4, I5 | `gateways` | whenever what a gateway holds changes |
//! | I3 | `settled` | when all has rested; a status that says "everywhere", at once |
//! | I6 | `movement` | when a map is published |
//! | I7 | `reach` | a stated time after each change of a quiet tenant |
//! | I8 | `admission`, `truth` | when an admitted write lands; the oldest wins on gateways |
//! | I9 | `memory` | whenever figures are told |

mod acting;
mod admission;
mod bounds;
mod event;
mod gateways;
mod ids;
mod memory;
mod movement;
mod observer;
mod reach;
mod settled;
mod telling;
mod truth;
mod violation;

pub use bounds::Bounds;
pub use event::{Basis, Claim, Event, Map, Memory, Past, Ready, Refused, Removal, Subject, Write};
pub use ids::{At, Content, GatewayId, InstanceId, KindId, Names, NamespaceId, ObjectId};
pub use observer::{Observer, Tally};
pub use violation::{About, Invariant, Violation};
