//! The AVAPIGW family.
//!
//! Watches `APIRoute`, `GRPCRoute`, `Backend` and `GRPCBackend`; delivers them
//! to gateways; writes their statuses. Owns no other objects and sets no
//! finalizer: deletions are tombstones in the store, which every replica has.
//! Conditions: `Ready`, `Valid`, and `Healthy` for backends.

mod admission;
mod compile;
mod conflicts;
mod ingress;
mod status;
mod whole;

pub use admission::{References, Refusal, Verdict, contested, judge, judge_ingress, kind_of_path, refuse};
pub use compile::AvapigwCompiler;
pub use conflicts::{Conflict, Conflicts, Scope};
pub use ingress::{Class, Converted, Fault, Faults, Ingress, Produced, Unresolved, convert, is_part_of};
pub use status::AvapigwStatus;
pub use whole::compile_all;
