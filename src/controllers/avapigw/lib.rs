//! The AVAPIGW family.
//!
//! Watches `APIRoute`, `GRPCRoute`, `Backend` and `GRPCBackend`; delivers them
//! to gateways; writes their statuses. Makes objects of these kinds of Ingresses,
//! which own them. Sets no finalizer: deletions are tombstones in the store,
//! which every replica has.
//! Conditions: `Ready`, `Valid`, and `Healthy` for backends.

mod admission;
mod compile;
mod conflicts;
mod ingress;
mod status;
mod vocabulary;
mod whole;

pub use admission::{
    References, Refusal, Services, Verdict, contested, judge, judge_ingress, kind_of_path, refuse,
};
pub use compile::AvapigwCompiler;
pub use conflicts::{Conflict, Conflicts, Scope};
pub use ingress::{
    Child, Class, Converted, Fault, Faults, Ingress, MayAct, Next, Produced, Seen, SeenIngress, Step, Told,
    Unresolved, Work, World, convert, covers,
};
pub use status::AvapigwStatus;
pub use whole::compile_all;
