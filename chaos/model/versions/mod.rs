//! The versions of gateways: what any replica may send to any gateway.
//!
//! In the state stands the product's own engine ([`Delivery`]) of every replica,
//! with its store, sessions, tombstones and versions. Modelled around it are the
//! API server's log, watches that lag each on its own, connections that break and
//! lose what is on its way, gateways, crashes, and who answers the question for
//! deletions of long ago.
//!
//! There are as many objects as namespaces, one in each; they are of two kinds in
//! turn, so that frontiers are only partially ordered. Messages of a connection
//! come in order. Time does not pass: guards are over, nothing has to wait, and
//! what is due later by design (telling a gateway its new position) is due at once.
//!
//! The engine has no events but its calls, and an action makes the one of its name:
//!
//! | action | call |
//! |---|---|
//! | `Start` | [`listed`], of every kind |
//! | `Watched` | [`changed`], [`deleted`] or [`bookmark`], whichever is next in the log |
//! | `Connected`, `Disconnected` | [`connected`], [`disconnected`] |
//! | `Acknowledged` | [`acknowledged`] |
//! | `History`, `HistoryUnavailable` | [`history`], [`history_unavailable`] |
//! | none: after each of these | [`poll`], as long as anything is due |
//! | `Write`, `Delete`, `Delivered`, `Crash` | none: they happen to the API server, a gateway, a process |
//!
//! Not called is what only moves time or work (registrations and heartbeats, draining and
//! shedding) and what is asked of another history.
//!
//! [`listed`]: flotilla_core::delivery::Delivery::listed
//! [`changed`]: flotilla_core::delivery::Delivery::changed
//! [`deleted`]: flotilla_core::delivery::Delivery::deleted
//! [`bookmark`]: flotilla_core::delivery::Delivery::bookmark
//! [`connected`]: flotilla_core::delivery::Delivery::connected
//! [`disconnected`]: flotilla_core::delivery::Delivery::disconnected
//! [`acknowledged`]: flotilla_core::delivery::Delivery::acknowledged
//! [`history`]: flotilla_core::delivery::Delivery::history
//! [`history_unavailable`]: flotilla_core::delivery::Delivery::history_unavailable
//! [`poll`]: flotilla_core::delivery::Delivery::poll
//!
//! | promise | checked where |
//! |---|---|
//! | I2 nothing goes back | at every message that a gateway takes |
//! | I4 no deletion that nobody asked for | at every message that removes something |
//! | I3 all is equal in the end | when nothing is under way any more |
//!
//! [`Delivery`]: flotilla_core::delivery::Delivery

mod gateway;
mod model;
mod replica;

pub use gateway::Gateway;
pub use model::{ALL_PER_MESSAGE, Action, Mistake, Model, ONE_PER_MESSAGE, Size, World};
pub use replica::Replica;
