//! Says in the log when requests begin to fail, why, and when they are answered again:
//! not each time, as a replica asks several times a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::watch::chain;

/// What is wrong with requests, by what they are about. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Trouble {
    /// A request was answered, or failed. That somebody else wrote first, or an object is
    /// not there, is an answer.
    pub fn heard(&self, request: &'static str, error: Option<&Error>) {
        let answered = |error: &&Error| matches!(error, Error::Conflict { .. } | Error::NotFound { .. });
        let news = error.filter(|error| !answered(error)).map(|error| chain(error).to_string());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(request) == news.as_ref() {
            return;
        }
        match news {
            Some(error) => {
                tracing::warn!(request, error, "a request for a Lease or the shard map failed");
                known.insert(request, error);
            }
            None => {
                tracing::info!(request, "requests for Leases and the shard map are answered again");
                known.remove(request);
            }
        }
    }
}
