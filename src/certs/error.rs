//! What can be wrong with a certificate, said so that a person can mend it.

use std::path::PathBuf;

/// A certificate or key that cannot be used, or could not be made.
///
/// `what` names it as the caller knows it: a file, a Secret's key, a role.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file could not be read.
    #[error("cannot read {}; check the path and its permissions", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no PEM, or not of the right type.
    #[error("{what} is unreadable: {problem}; it must be PEM as written by `flotilla certs`")]
    Unreadable {
        /// The certificate or key.
        what: String,
        /// What was found instead.
        problem: String,
    },
    /// Its time is over.
    #[error("{what} expired at {not_after}; issue a new one, or check this machine's clock")]
    Expired {
        /// The certificate.
        what: String,
        /// When it ended.
        not_after: String,
    },
    /// Its time has not come.
    #[error("{what} is not valid before {not_before}; check the clocks of this machine and the issuer's")]
    NotYetValid {
        /// The certificate.
        what: String,
        /// When it begins.
        not_before: String,
    },
    /// Two machines do not agree on the time.
    #[error(
        "this machine's clock says {ours} and that of {whose} {theirs}; set the clock that is wrong, by NTP for example"
    )]
    Clocks {
        /// This machine's.
        ours: String,
        /// Whose the other one is.
        whose: String,
        /// What it says.
        theirs: String,
    },
    /// The private key belongs to another certificate.
    #[error("the private key of {what} does not belong to its certificate; put a matching pair in place")]
    KeyMismatch {
        /// The certificate.
        what: String,
    },
    /// Another authority signed it.
    #[error("{what} is not signed by the trusted authority ({roots}); issue it from this fleet's authority")]
    Foreign {
        /// The certificate.
        what: String,
        /// Subjects of the authorities that are trusted.
        roots: String,
    },
    /// It lacks names by which its holder is known.
    #[error(
        "{what} does not name {missing}; issue it with these subject alternative names, and let the issuer's role \
         allow them"
    )]
    Names {
        /// The certificate.
        what: String,
        /// What it does not name.
        missing: String,
    },
    /// It does not permit what it is to be used for.
    #[error("{what} cannot be used as {wanted}: {problem}; issue it anew for that use")]
    Unsuitable {
        /// The certificate.
        what: String,
        /// The use.
        wanted: &'static str,
        /// What stands against it.
        problem: String,
    },
    /// A certificate could not be made.
    #[error("cannot issue a certificate for {what}: {problem}")]
    Issue {
        /// For whom.
        what: String,
        /// Why not.
        problem: String,
    },
    /// A TLS configuration could not be made of it.
    #[error("cannot use {what} for TLS: {problem}")]
    Tls {
        /// The certificate.
        what: String,
        /// Why not.
        problem: String,
    },
}
