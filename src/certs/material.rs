//! Certificates, keys and trust roots as PEM, and what is read from them.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::CertError;

/// A certificate chain, leaf first, and the leaf's private key.
#[derive(Clone)]
pub struct CertificatePem {
    /// The chain as PEM.
    pub certificate: String,
    /// The private key as PEM (PKCS #8, SEC 1 or PKCS #1).
    pub private_key: String,
}

// A private key must not end up in a log.
impl fmt::Debug for CertificatePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificatePem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl CertificatePem {
    /// Reads both parts from files. This blocks: call it at start, or from a
    /// thread that may block.
    ///
    /// # Errors
    /// [`CertError::File`] when a file cannot be read.
    pub fn read(certificate: &Path, private_key: &Path) -> Result<Self, CertError> {
        Ok(CertificatePem { certificate: read(certificate)?, private_key: read(private_key)? })
    }

    /// The chain, leaf first.
    ///
    /// # Errors
    /// [`CertError::Unreadable`], naming `what`.
    pub fn chain(&self, what: &str) -> Result<Vec<CertificateDer<'static>>, CertError> {
        certificates(what, &self.certificate)
    }

    /// The private key.
    ///
    /// # Errors
    /// [`CertError::Unreadable`], naming `what`.
    pub fn key(&self, what: &str) -> Result<PrivateKeyDer<'static>, CertError> {
        PrivateKeyDer::from_pem_slice(self.private_key.as_bytes()).map_err(|error| CertError::Unreadable {
            what: format!("private key of {what}"),
            problem: error.to_string(),
        })
    }

    /// When the leaf is valid.
    ///
    /// # Errors
    /// [`CertError::Unreadable`], naming `what`.
    pub fn validity(&self, what: &str) -> Result<Validity, CertError> {
        Validity::of(what, &self.chain(what)?[0])
    }
}

/// The authorities whose certificates are believed: more than one while a CA
/// is being replaced.
#[derive(Debug, Clone)]
pub struct TrustRoots {
    pem: String,
    certificates: Vec<CertificateDer<'static>>,
}

impl TrustRoots {
    /// Reads one or more CA certificates.
    ///
    /// # Errors
    /// [`CertError::Unreadable`] when there is none, or one cannot be parsed.
    pub fn from_pem(what: &str, pem: &str) -> Result<Self, CertError> {
        let certificates = certificates(what, pem)?;
        for certificate in &certificates {
            parse(what, certificate)?;
        }
        // What else stood there, a private key perhaps, must not get where a bundle gets.
        let pem = certificates.iter().map(certificate_pem).collect();
        Ok(TrustRoots { pem, certificates })
    }

    /// Reads a bundle from a file. This blocks, see [`CertificatePem::read`].
    ///
    /// # Errors
    /// [`CertError::File`] or [`CertError::Unreadable`].
    pub fn read(path: &Path) -> Result<Self, CertError> {
        Self::from_pem(&path.display().to_string(), &read(path)?)
    }

    /// The bundle as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The bundle as rustls wants it.
    ///
    /// # Errors
    /// [`CertError::Tls`] when rustls does not take one of them as a root.
    pub fn store(&self) -> Result<RootCertStore, CertError> {
        let mut store = RootCertStore::empty();
        for certificate in &self.certificates {
            store.add(certificate.clone()).map_err(|error| CertError::Tls {
                what: "the trusted authority".to_owned(),
                problem: error.to_string(),
            })?;
        }
        Ok(store)
    }

    /// These and others, each once; who has ended by `now` is left out.
    ///
    /// # Errors
    /// [`CertError::Expired`] when none is left.
    pub fn and(&self, others: &TrustRoots, now: SystemTime) -> Result<TrustRoots, CertError> {
        let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
        let mut last = None;
        for certificate in self.certificates.iter().chain(&others.certificates) {
            let validity = Validity::of("a trusted authority", certificate)?;
            if validity.not_after < now {
                last = Some(validity);
            } else if !certificates.contains(certificate) {
                certificates.push(certificate.clone());
            }
        }
        if let (true, Some(ended)) = (certificates.is_empty(), last) {
            ended.check("the trusted authority", now)?;
        }
        let pem = certificates.iter().map(|certificate| certificate_pem(certificate)).collect();
        Ok(TrustRoots { pem, certificates })
    }

    /// When the last of them ends.
    pub fn last_end(&self) -> Option<SystemTime> {
        let ends =
            |certificate| Validity::of("a trusted authority", certificate).map(|found| found.not_after);
        self.certificates.iter().filter_map(|certificate| ends(certificate).ok()).max()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.certificates.len()
    }

    /// Whether the same are believed, in whatever order.
    pub fn same(&self, other: &TrustRoots) -> bool {
        let within = |some: &TrustRoots, all: &TrustRoots| {
            some.certificates.iter().all(|certificate| all.certificates.contains(certificate))
        };
        within(self, other) && within(other, self)
    }

    /// The subjects, for messages.
    pub(crate) fn subjects(&self) -> String {
        let subject = |der| match X509Certificate::from_der(der) {
            Ok((_, certificate)) => certificate.subject().to_string(),
            Err(_) => "unreadable".to_owned(),
        };
        self.certificates.iter().map(|der| subject(der)).collect::<Vec<_>>().join("; ")
    }
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// Reads a certificate's validity.
    ///
    /// # Errors
    /// [`CertError::Unreadable`], naming `what`.
    pub fn of(what: &str, certificate: &CertificateDer<'_>) -> Result<Self, CertError> {
        let certificate = parse(what, certificate)?;
        let moment = |at: x509_parser::time::ASN1Time| SystemTime::from(at.to_datetime());
        Ok(Validity {
            not_before: moment(certificate.validity().not_before),
            not_after: moment(certificate.validity().not_after),
        })
    }

    /// When to replace a certificate that came into use at `since`: at two thirds
    /// of its life from then on, or seven days before its end if that is later.
    /// Issuers put the beginning into the past, so that does not count.
    pub fn renew_at(&self, since: SystemTime) -> SystemTime {
        const LEAD: Duration = Duration::from_secs(7 * 24 * 3600);
        let since = since.clamp(self.not_before, self.not_after.max(self.not_before));
        let life = self.not_after.duration_since(since).unwrap_or_default();
        let two_thirds = since + life / 3 * 2;
        // Before the epoch only if the certificate ended before 1970-01-08.
        self.not_after.checked_sub(LEAD).map_or(two_thirds, |early| early.max(two_thirds))
    }

    /// When one that others renew should long have been: half-way from
    /// [`Validity::renew_at`] to its end.
    pub fn overdue_at(&self) -> SystemTime {
        let due = self.renew_at(self.not_before);
        due + self.not_after.duration_since(due).unwrap_or_default() / 2
    }

    /// Whether `now` lies within.
    ///
    /// # Errors
    /// [`CertError::Expired`] or [`CertError::NotYetValid`], naming `what`.
    pub fn check(&self, what: &str, now: SystemTime) -> Result<(), CertError> {
        if now > self.not_after {
            Err(CertError::Expired { what: what.to_owned(), not_after: text(self.not_after) })
        } else if now < self.not_before {
            Err(CertError::NotYetValid { what: what.to_owned(), not_before: text(self.not_before) })
        } else {
            Ok(())
        }
    }
}

/// A moment for people.
pub(crate) fn text(moment: SystemTime) -> String {
    let moment = OffsetDateTime::from(moment);
    moment.format(&Rfc3339).unwrap_or_else(|_| moment.to_string())
}

fn read(path: &Path) -> Result<String, CertError> {
    std::fs::read_to_string(path).map_err(|source| CertError::File { path: path.to_owned(), source })
}

/// All certificates of a PEM text; never an empty list.
fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let unreadable = |problem: String| CertError::Unreadable { what: what.to_owned(), problem };
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(error.to_string()))?;
    if found.is_empty() { Err(unreadable("it holds no certificate".to_owned())) } else { Ok(found) }
}

/// One certificate as PEM (RFC 7468: lines of 64 characters).
pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

pub(crate) fn parse<'a>(
    what: &str,
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CertError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(CertError::Unreadable { what: what.to_owned(), problem: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn days(from: u64, to: u64) -> Validity {
        let at = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY);
        Validity { not_before: at(from), not_after: at(to) }
    }

    #[test]
    fn long_lives_are_renewed_seven_days_early_and_short_ones_at_two_thirds() {
        let at = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3600);
        let renewed = |from, to, since| days(from, to).renew_at(at(since));
        assert_eq!(renewed(100, 130, 100 * 24), at(123 * 24));
        assert_eq!(renewed(100, 101, 100 * 24), at(100 * 24 + 16));
        assert_eq!(renewed(100, 101, 100 * 24 + 12), at(100 * 24 + 20), "what came late");
        assert_eq!(renewed(0, 1, 0), at(16));
        assert_eq!(renewed(0, 1, 100), at(24), "what has ended");
    }

    #[test]
    fn what_others_renew_is_overdue_well_before_its_end() {
        let at = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3600);
        assert_eq!(days(100, 190).overdue_at(), at(186 * 24 + 12));
        assert_eq!(days(100, 101).overdue_at(), at(100 * 24 + 20));
        assert_eq!(days(20, 10).overdue_at(), at(20 * 24), "what never was valid");
    }

    #[test]
    fn validity_has_two_ends() {
        let validity = days(10, 20);
        let at = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY);
        assert!(matches!(validity.check("x", at(9)), Err(CertError::NotYetValid { .. })));
        assert!(validity.check("x", at(10)).is_ok());
        assert!(validity.check("x", at(20)).is_ok());
        let error = validity.check("server certificate", at(21)).unwrap_err().to_string();
        assert_eq!(
            error,
            "server certificate expired at 1970-01-21T00:00:00Z; issue a new one, or check this machine's clock"
        );
    }

    #[test]
    fn private_keys_are_not_printed() {
        let pem = CertificatePem { certificate: "c".to_owned(), private_key: "SECRET".to_owned() };
        assert!(!format!("{pem:?}").contains("SECRET"));
    }
}
