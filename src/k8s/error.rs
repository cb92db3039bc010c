//! Errors of the API server, sorted by what the caller does about them.

use std::time::Duration;

use flotilla_core::ids::Revision;

/// What went wrong while talking to the API server. The variants differ in
/// what to do next; `what` names the request for people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Back off and try again: no connection, overload, 429, 5xx.
    #[error("{what}: the API server is not available")]
    Transient {
        /// The request.
        what: String,
        /// What a 429 or 503 asked for.
        retry_after: Option<Duration>,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Read again, decide again: somebody else wrote first (409).
    #[error("{what}: changed meanwhile")]
    Conflict {
        /// The request.
        what: String,
    },
    /// The resourceVersion is too old (410): list again.
    #[error("{what}: the history before this resourceVersion is gone")]
    Gone {
        /// The request.
        what: String,
    },
    /// The object or its whole kind does not exist (404).
    #[error("{what}: not found; if the whole kind is missing, install the CRDs with `flotilla crds`")]
    NotFound {
        /// The request.
        what: String,
    },
    /// An answer that should be the newest is older than what was seen.
    #[error(
        "{what}: the API server ends at {newest}, but {seen} was seen: it answers from an old cache, or its etcd was \
         restored from a backup"
    )]
    Behind {
        /// The request.
        what: String,
        /// The newest revision that it tells of.
        newest: Revision,
        /// The revision that was seen.
        seen: Revision,
    },
    /// 401 or 403: somebody must grant something.
    #[error("{what}: refused: {message}{}", remedy(.message))]
    Denied {
        /// The request.
        what: String,
        /// The server's words.
        message: String,
    },
    /// Trying again does not help.
    #[error("{what}: {message}")]
    Permanent {
        /// The request.
        what: String,
        /// The server's or our words.
        message: String,
    },
}

/// What to do about a 401 or 403. An admission webhook, our own or another, says so itself.
fn remedy(message: &str) -> &'static str {
    match message.starts_with("admission webhook") {
        true => "",
        false => "; check the credentials and the RBAC rules of this replica",
    }
}

impl Error {
    /// Sorts an error of the client. `what` names the request.
    pub fn from_kube(what: impl Into<String>, error: kube::Error) -> Error {
        let what = what.into();
        match error {
            kube::Error::Api(status) => match status.code {
                401 | 403 => Error::Denied { what, message: status.message.clone() },
                404 => Error::NotFound { what },
                409 => Error::Conflict { what },
                410 => Error::Gone { what },
                429 | 500..=599 => {
                    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                    let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                    Error::Transient { what, retry_after, source: Box::new(kube::Error::Api(status)) }
                }
                _ => Error::Permanent { what, message: status.message.clone() },
            },
            kube::Error::SerdeError(error) => {
                Error::Permanent { what, message: format!("unreadable answer: {error}") }
            }
            other => Error::Transient { what, retry_after: None, source: Box::new(other) },
        }
    }

    /// An answer that did not come in time.
    pub fn timeout(what: impl Into<String>, after: Duration) -> Error {
        let text = format!("no answer within {} s", after.as_secs_f32());
        Error::Transient { what: what.into(), retry_after: None, source: text.into() }
    }

    /// Whether trying the same again later may work without anybody acting.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Transient { .. })
    }
}
