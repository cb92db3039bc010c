//! Whether a certificate that somebody handed us can be used, found out before
//! the first handshake fails with a text that nobody understands.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys};
use rustls_pki_types::UnixTime;

use x509_parser::extensions::GeneralName;

use crate::material::parse;
use crate::{CertError, CertificatePem, LeafRequest, TrustRoots, Validity, provider};

/// What a leaf certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Being connected to.
    Server,
    /// Connecting.
    Client,
}

impl Usage {
    const fn text(self) -> &'static str {
        match self {
            Usage::Server => "a server's certificate",
            Usage::Client => "a client's certificate",
        }
    }
}

/// Checks a leaf with its key against the roots that its peers trust. `what`
/// names it for error texts, for example its file.
///
/// # Errors
/// When it is unreadable, expired, not yet valid, signed by a foreign
/// authority, not meant for `usage`, or when the key belongs to another
/// certificate.
pub fn check_leaf(
    what: &str,
    pem: &CertificatePem,
    roots: &TrustRoots,
    usage: Usage,
    now: SystemTime,
) -> Result<Validity, CertError> {
    let chain = pem.chain(what)?;
    check_key(what, pem)?;
    let validity = Validity::of(what, &chain[0])?;
    validity.check(what, now)?;
    let (leaf, intermediates) = (&chain[0], &chain[1..]);
    let moment = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let store = Arc::new(roots.store()?);
    let verified = match usage {
        Usage::Server => ParsedCertificate::try_from(leaf).and_then(|parsed| {
            let algorithms = provider().signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &store, intermediates, moment, algorithms)
        }),
        Usage::Client => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(store, provider()).build().map_err(|error| {
                    CertError::Tls { what: "the trusted authority".to_owned(), problem: error.to_string() }
                })?;
            verifier.verify_client_cert(leaf, intermediates, moment).map(|_| ())
        }
    };
    match verified {
        Ok(()) => Ok(validity),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Err(CertError::Foreign { what: what.to_owned(), roots: roots.subjects() }),
        Err(error) => Err(CertError::Unsuitable {
            what: what.to_owned(),
            wanted: usage.text(),
            problem: error.to_string(),
        }),
    }
}

/// Checks what somebody issued for a request: as [`check_leaf`] for every use that
/// was asked for, and that every name is there.
///
/// # Errors
/// As [`check_leaf`], and [`CertError::Names`].
pub fn check_issued(
    what: &str,
    pem: &CertificatePem,
    roots: &TrustRoots,
    request: &LeafRequest,
    now: SystemTime,
) -> Result<Validity, CertError> {
    for usage in &request.usages {
        check_leaf(what, pem, roots, *usage, now)?;
    }
    let chain = pem.chain(what)?;
    let leaf = parse(what, &chain[0])?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| CertError::Unreadable { what: what.to_owned(), problem: error.to_string() })?;
    let names: Vec<&GeneralName<'_>> =
        names.iter().flat_map(|extension| &extension.value.general_names).collect();
    let dns = request.dns_names.iter().filter(|wanted| {
        !names
            .iter()
            .any(|name| matches!(name, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(wanted)))
    });
    let addresses = request.ip_addresses.iter().filter(|wanted| {
        let wanted = match wanted {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        !names.iter().any(|name| matches!(name, GeneralName::IPAddress(bytes) if *bytes == wanted))
    });
    let identity =
        request.identity.iter().map(ToString::to_string).filter(|wanted| {
            !names.iter().any(|name| matches!(name, GeneralName::URI(uri) if uri == wanted))
        });
    let missing: Vec<String> =
        identity.chain(dns.cloned()).chain(addresses.map(ToString::to_string)).collect();
    if missing.is_empty() {
        Validity::of(what, &chain[0])
    } else {
        Err(CertError::Names { what: what.to_owned(), missing: missing.join(", ") })
    }
}

/// Checks that the private key is the certificate's.
pub(crate) fn check_key(what: &str, pem: &CertificatePem) -> Result<(), CertError> {
    match CertifiedKey::from_der(pem.chain(what)?, pem.key(what)?, &provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(CertError::KeyMismatch { what: what.to_owned() })
        }
        Err(error) => Err(CertError::Unreadable { what: what.to_owned(), problem: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Authority, Identity, LeafRequest};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    fn authority() -> Authority {
        Authority::generate("test authority", now()).unwrap()
    }

    fn gateway(authority: &Authority) -> CertificatePem {
        let identity = Identity::gateway("fleet.local", "edge", "gw").unwrap();
        authority.issue_leaf(&LeafRequest::gateway(identity), now()).unwrap()
    }

    fn check(pem: &CertificatePem, authority: &Authority, at: SystemTime) -> Result<Validity, CertError> {
        check_leaf("gw.crt", pem, authority.roots(), Usage::Client, at)
    }

    #[test]
    fn a_fresh_leaf_lasts_thirty_days_from_a_little_before_now() {
        let authority = authority();
        let validity = check(&gateway(&authority), &authority, now()).unwrap();
        assert_eq!(validity.not_before, now() - crate::CLOCK_SKEW);
        assert_eq!(validity.not_after, now() + 30 * DAY);
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let authority = Authority::generate_for("short", now(), 2 * DAY).unwrap();
        let validity = check(&gateway(&authority), &authority, now()).unwrap();
        assert_eq!(validity.not_after, authority.validity().not_after);
    }

    #[test]
    fn expired_and_future_leaves_are_told_apart() {
        let authority = authority();
        let pem = gateway(&authority);
        let late = check(&pem, &authority, now() + 31 * DAY).unwrap_err();
        assert!(matches!(late, CertError::Expired { .. }), "{late}");
        let early = check(&pem, &authority, now() - DAY).unwrap_err();
        assert!(matches!(early, CertError::NotYetValid { .. }), "{early}");
    }

    #[test]
    fn a_leaf_of_another_authority_of_the_same_name_is_foreign() {
        let ours = authority();
        let error = check(&gateway(&authority()), &ours, now()).unwrap_err();
        assert!(matches!(error, CertError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("gw.crt"), "{error}");
        assert!(error.to_string().contains("test authority"), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_noticed() {
        let authority = authority();
        let mixed = CertificatePem { private_key: gateway(&authority).private_key, ..gateway(&authority) };
        let error = check(&mixed, &authority, now()).unwrap_err();
        assert!(matches!(error, CertError::KeyMismatch { .. }), "{error}");
    }

    #[test]
    fn a_client_certificate_is_no_server_certificate() {
        let authority = authority();
        let pem = authority.issue_client("reader", None, now()).unwrap();
        let error = check_leaf("gw.crt", &pem, authority.roots(), Usage::Server, now()).unwrap_err();
        assert!(matches!(error, CertError::Unsuitable { .. }), "{error}");
    }

    #[test]
    fn what_was_issued_must_have_every_name_that_was_asked_for() {
        let authority = authority();
        let identity = Identity::controller("fleet.local", "sys", "f-0").unwrap();
        let request = |names: &[&str], addresses: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            LeafRequest::controller(identity.clone(), names, addresses)
        };
        let issued = request(&["a.svc", "localhost"], &["127.0.0.1", "::1"]);
        let pem = authority.issue_leaf(&issued, now()).unwrap();
        let missing = |wanted: &LeafRequest| {
            check_issued("f-0", &pem, authority.roots(), wanted, now()).err().map(|error| error.to_string())
        };
        assert_eq!(missing(&issued), None);
        assert_eq!(missing(&request(&["LOCALHOST"], &["::1"])), None);
        for (wanted, named) in [
            (request(&["b.svc"], &[]), "b.svc"),
            (request(&[], &["127.0.0.2"]), "127.0.0.2"),
            (request(&[], &["::2"]), "::2"),
        ] {
            let text = missing(&wanted).unwrap();
            assert!(text.contains(named) && !text.contains("localhost"), "{text}");
        }
        let other = Identity::controller("fleet.local", "sys", "f-1").unwrap();
        let text = missing(&LeafRequest { identity: Some(other), ..issued }).unwrap();
        assert!(text.contains("controller/f-1"), "{text}");
    }

    #[test]
    fn garbage_is_unreadable_and_named() {
        let authority = authority();
        let good = gateway(&authority);
        let cut = good.certificate.replace('A', "");
        let other = authority.pem().private_key.clone();
        for certificate in [String::new(), "no pem".to_owned(), cut, other] {
            let error =
                check(&CertificatePem { certificate, ..good.clone() }, &authority, now()).unwrap_err();
            assert!(matches!(error, CertError::Unreadable { .. }), "{error}");
            assert!(error.to_string().starts_with("gw.crt"), "{error}");
        }
        let no_key = CertificatePem { private_key: good.certificate.clone(), ..good };
        let error = check(&no_key, &authority, now()).unwrap_err();
        assert!(error.to_string().starts_with("private key of gw.crt"), "{error}");
    }

    #[test]
    fn an_authority_is_taken_up_again_and_issues_what_the_first_one_trusts() {
        let first = authority();
        let second = Authority::from_pem("Secret a/b", first.pem().clone(), now()).unwrap();
        check(&gateway(&second), &first, now()).unwrap();
    }

    /// RSA, with the extensions that Helm's `genCA` writes; the key as PKCS #8.
    #[test]
    fn an_authority_that_helm_made_is_taken_up() {
        let pem = CertificatePem {
            certificate: include_str!("tests/helm_ca.crt").to_owned(),
            private_key: include_str!("tests/helm_ca.key").to_owned(),
        };
        let now = SystemTime::now();
        let theirs = Authority::from_pem("Secret a/b", pem, now).unwrap();
        let identity = Identity::controller("fleet.local", "edge", "flotilla-0").unwrap();
        let names = vec!["avapigw-operator.edge.svc".to_owned()];
        let leaf = theirs.issue_leaf(&LeafRequest::controller(identity, names, Vec::new()), now).unwrap();
        check(&leaf, &theirs, now).unwrap();
    }

    #[test]
    fn a_stored_authority_is_checked() {
        let first = authority();
        let at = |pem, moment| Authority::from_pem("Secret a/b", pem, moment).err().unwrap();
        let late = at(first.pem().clone(), now() + 400 * DAY);
        assert!(matches!(late, CertError::Expired { .. }), "{late}");
        let mixed = CertificatePem {
            private_key: authority().pem().private_key.clone(),
            certificate: first.pem().certificate.clone(),
        };
        assert!(matches!(at(mixed, now()), CertError::KeyMismatch { .. }));
        let leaf = at(gateway(&first), now());
        assert!(matches!(leaf, CertError::Unsuitable { .. }), "{leaf}");
    }

    #[test]
    fn an_expired_authority_issues_nothing() {
        let authority = authority();
        let identity = Identity::gateway("fleet.local", "edge", "gw").unwrap();
        let late = authority.issue_leaf(&LeafRequest::gateway(identity), now() + 400 * DAY);
        assert!(matches!(late, Err(CertError::Expired { .. })));
    }

    #[test]
    fn identity_and_group_reach_the_certificate() {
        let authority = authority();
        let chain = gateway(&authority).chain("gw").unwrap();
        let identity = crate::peer_identity(&chain).unwrap();
        assert_eq!(identity.to_string(), "spiffe://fleet.local/ns/edge/gateway/gw");
        let admin = authority.issue_client("admin", Some("system:masters"), now()).unwrap();
        let chain = admin.chain("admin").unwrap();
        let subject = crate::material::parse("admin", &chain[0]).unwrap().subject().to_string();
        assert!(subject.contains("O=system:masters") && subject.contains("CN=admin"), "{subject}");
        assert_eq!(crate::peer_identity(&chain), Err(crate::IdentityError::Count(0)));
    }
}
