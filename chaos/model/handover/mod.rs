//! The hand-over of namespaces between replicas.
//!
//! In the state stands the product's own barrier (`Handover`) of every replica;
//! maps are planned by `plan_map` and owners computed by `Ownership`. Modelled
//! around it are Leases, messages and the network:
//!
//! - A message may arrive at any later time or never; so may what a watch shows.
//!   A replica may skip maps, as one does whose watch was cut.
//! - Time is an order of facts: a Lease's validity passes on its holder's clock
//!   ([`Action::Tick`]) before anybody can conclude from its silence that it has
//!   ended ([`Action::LeasesListed`]). That is what margin and self-fencing give,
//!   provided clocks run at about the same rate and writes that are on their way
//!   end within the margin.
//! - Any member that has seen the newest map may publish the next one. Two leaders
//!   at a time do no harm, because publishing is a compare-and-swap.
//! - Whoever was told of an epoch after the barrier has been passed, or of another
//!   than its own, decides nothing by it; such deliveries are left out.
//!
//! Not in it: a map that was deleted or restored, and that epochs grow over it;
//! Leases that were deleted; the waiting time of a first map. The simulations cover
//! those.

mod events;
mod model;
mod world;

pub use events::{Modelled, modelled};
pub use model::{Action, Mistake, Model, Size};
pub use world::{Id, NAMES, Phase, Replica, World, namespace};
