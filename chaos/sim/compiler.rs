//! The product's compiler, asked only once about the same thing.
//!
//! It is pure, so all replicas of a world may share what it said: each of them
//! compiles every object, and a simulation of five replicas would spend most of its
//! time on parsing the same specs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flotilla_avapigw::AvapigwCompiler;
use flotilla_core::claims::Claim;
use flotilla_core::compile::{Compilation, Compiler};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;

use crate::universe::is_contested;

/// What was said about one spec of one object: per answer to its questions. Most
/// specs ask about one object at most.
struct Known {
    /// Held, so that the address by which it is found stays its own.
    _spec: Bytes,
    questions: Vec<(Kind, ObjectKey)>,
    answers: Vec<(Vec<bool>, Compilation)>,
}

/// Keyed by the address and length of a spec's bytes: replicas get the very bytes
/// that the API server has, and every write makes new ones. Never iterated, so its
/// order does not matter; emptied when it has grown large.
type Memory = HashMap<(usize, usize), Known>;

/// See the module's description. Clones share what they remember.
#[derive(Clone, Default)]
pub struct SharedCompiler {
    memory: Arc<Mutex<Memory>>,
}

/// What the product says. Of claims only those that are contested on purpose count:
/// else the tenants of a universe all match the same.
fn said_of(object: &RawObject, exists: &dyn Fn(Kind, &ObjectKey) -> bool) -> Compilation {
    let mut said = AvapigwCompiler::default().compile(object, exists);
    if !is_contested(&object.spec) {
        said.claims.clear();
    }
    said
}

/// Specs that are remembered at once: several times as many as there are places in
/// the largest worlds, and few enough for a processor's cache.
const LARGEST: usize = 4_000;

impl Compiler for SharedCompiler {
    fn compile(&self, object: &RawObject, exists: &dyn Fn(Kind, &ObjectKey) -> bool) -> Compilation {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (object.spec.as_ptr() as usize, object.spec.len());
        if let Some(known) = memory.get_mut(&key) {
            let answers: Vec<bool> = known.questions.iter().map(|(kind, key)| exists(*kind, key)).collect();
            if let Some((_, said)) = known.answers.iter().find(|(given, _)| *given == answers) {
                return said.clone();
            }
            let said = said_of(object, exists);
            // What it asks about follows from the spec alone, or from the answers:
            // only the first is remembered.
            if said.references == known.questions {
                known.answers.push((answers, said.clone()));
            }
            return said;
        }
        let answers = RefCell::new(Vec::new());
        let asked = |kind: Kind, key: &ObjectKey| {
            let answer = exists(kind, key);
            answers.borrow_mut().push((kind, key.clone(), answer));
            answer
        };
        let said = said_of(object, &asked);
        let given: Vec<(Kind, ObjectKey, bool)> = answers.into_inner();
        let questions: Vec<_> = given.iter().map(|(kind, key, _)| (*kind, key.clone())).collect();
        if questions == said.references {
            if memory.len() >= LARGEST {
                memory.clear();
            }
            let answers = vec![(given.into_iter().map(|(_, _, answer)| answer).collect(), said.clone())];
            memory.insert(key, Known { _spec: object.spec.clone(), questions, answers });
        }
        said
    }

    fn claims(&self, object: &RawObject) -> Vec<Claim> {
        if is_contested(&object.spec) { AvapigwCompiler::default().claims(object) } else { Vec::new() }
    }

    fn was_withheld(&self, object: &RawObject) -> Option<bool> {
        AvapigwCompiler::default().was_withheld(object)
    }
}
