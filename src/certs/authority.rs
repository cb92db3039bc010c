//! The fleet's own certificate authority.
//!
//! ECDSA on P-256: a replica that starts makes its key in well under a
//! millisecond, and a handshake costs a fraction of what RSA would.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::check::check_key;
use crate::material::parse;
use crate::{CertError, CertificatePem, Identity, TrustRoots, Usage, Validity};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How far a certificate's start lies in the past, for machines whose clocks
/// are behind the issuer's.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: CertificatePem,
    roots: TrustRoots,
    validity: Validity,
}

/// What a leaf certificate is to say.
#[derive(Debug, Clone)]
pub struct LeafRequest {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organisation: a group, to a Kubernetes API server.
    pub organization: Option<String>,
    /// DNS names by which a server is reached.
    pub dns_names: Vec<String>,
    /// Addresses by which a server is reached.
    pub ip_addresses: Vec<IpAddr>,
    /// The identity that gateways and replicas check.
    pub identity: Option<Identity>,
    /// What it may be used for.
    pub usages: Vec<Usage>,
    /// For how long; cut at the authority's own end. Default 30 days.
    pub lifetime: Duration,
}

impl LeafRequest {
    /// A request with no names and no use yet, for 30 days.
    pub fn new(common_name: impl Into<String>) -> Self {
        LeafRequest {
            common_name: common_name.into(),
            organization: None,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            identity: None,
            usages: Vec::new(),
            lifetime: 30 * DAY,
        }
    }

    /// A gateway's certificate: it dials replicas, or is dialled by them.
    pub fn gateway(identity: Identity) -> Self {
        LeafRequest {
            usages: vec![Usage::Client, Usage::Server],
            identity: Some(identity.clone()),
            ..LeafRequest::new(identity.name.as_ref())
        }
    }

    /// A tool's certificate: it dials replicas.
    pub fn tool(identity: Identity) -> Self {
        LeafRequest {
            usages: vec![Usage::Client],
            identity: Some(identity.clone()),
            ..LeafRequest::new(identity.name.as_ref())
        }
    }

    /// A replica's certificate: it serves gateways and peers, and dials peers.
    pub fn controller(identity: Identity, dns_names: Vec<String>, ip_addresses: Vec<IpAddr>) -> Self {
        LeafRequest {
            dns_names,
            ip_addresses,
            usages: vec![Usage::Server, Usage::Client],
            identity: Some(identity.clone()),
            ..LeafRequest::new(identity.name.as_ref())
        }
    }

    /// A fresh key and a request (PKCS #10) that it signed, for an authority
    /// elsewhere: the key never leaves this process.
    ///
    /// # Errors
    /// [`CertError::Issue`] when a name cannot stand in a certificate.
    pub fn signing_request(&self) -> Result<SigningRequest, CertError> {
        let issue = |error: rcgen::Error| CertError::Issue {
            what: self.common_name.clone(),
            problem: error.to_string(),
        };
        let key = KeyPair::generate().map_err(issue)?;
        let request = self.params()?.serialize_request(&key).map_err(issue)?;
        Ok(SigningRequest { request: request.pem().map_err(issue)?, private_key: key.serialize_pem() })
    }

    /// Subject, names and uses.
    fn params(&self) -> Result<CertificateParams, CertError> {
        let issue = |error: rcgen::Error| CertError::Issue {
            what: self.common_name.clone(),
            problem: error.to_string(),
        };
        let mut params = CertificateParams::new(self.dns_names.clone()).map_err(issue)?;
        params.subject_alt_names.extend(self.ip_addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        if let Some(identity) = &self.identity {
            params.subject_alt_names.push(SanType::URI(identity.to_string().try_into().map_err(issue)?));
        }
        params.distinguished_name = subject(&self.common_name, self.organization.as_deref());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self
            .usages
            .iter()
            .map(|usage| match usage {
                Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
                Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            })
            .collect();
        Ok(params)
    }
}

/// A request for a certificate, and the key that it is for.
pub struct SigningRequest {
    /// The request as PEM.
    pub request: String,
    /// The private key as PEM (PKCS #8).
    pub private_key: String,
}

impl Authority {
    /// Makes a new authority that lasts a year.
    ///
    /// # Errors
    /// [`CertError::Issue`] when there is no randomness or the name is no text
    /// for a certificate.
    pub fn generate(common_name: &str, now: SystemTime) -> Result<Self, CertError> {
        Self::generate_for(common_name, now, 365 * DAY)
    }

    /// Makes a new authority that lasts `lifetime`.
    ///
    /// # Errors
    /// See [`Authority::generate`].
    pub fn generate_for(common_name: &str, now: SystemTime, lifetime: Duration) -> Result<Self, CertError> {
        let what = format!("authority {common_name}");
        let issue = |error: rcgen::Error| CertError::Issue { what: what.clone(), problem: error.to_string() };
        let mut params = CertificateParams::default();
        let serial = serial(&what)?;
        params.distinguished_name = subject(common_name, None);
        // Two authorities of the same common name must differ in their subjects:
        // a leaf of the wrong one then fails as "unknown issuer", not as "bad
        // signature", and people can tell them apart.
        let number: String = serial.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), number);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + lifetime).into();
        let key = KeyPair::generate().map_err(issue)?;
        let certificate = params.self_signed(&key).map_err(issue)?;
        let pem = CertificatePem { certificate: certificate.pem(), private_key: key.serialize_pem() };
        Self::assemble(&what, pem, certificate.der(), key)
    }

    /// Takes up an authority that was stored. `what` names the place for
    /// error texts, for example `Secret flotilla-system/flotilla-ca`.
    ///
    /// # Errors
    /// When it is unreadable, expired, not yet valid, no authority, or its key
    /// belongs to another certificate.
    pub fn from_pem(what: &str, pem: CertificatePem, now: SystemTime) -> Result<Self, CertError> {
        let authority = Self::of_any_time(what, pem)?;
        authority.validity.check(what, now)?;
        Ok(authority)
    }

    /// The same for one whose time may be over, or not have come.
    pub(crate) fn of_any_time(what: &str, pem: CertificatePem) -> Result<Self, CertError> {
        let chain = pem.chain(what)?;
        check_key(what, &pem)?;
        let key = KeyPair::from_pem(&pem.private_key).map_err(|error| CertError::Unreadable {
            what: format!("private key of {what}"),
            problem: error.to_string(),
        })?;
        if !parse(what, &chain[0])?.is_ca() {
            return Err(CertError::Unsuitable {
                what: what.to_owned(),
                wanted: "an authority",
                problem: "its basic constraints do not allow it to sign certificates".to_owned(),
            });
        }
        Self::assemble(what, pem, &chain[0], key)
    }

    fn assemble(
        what: &str,
        pem: CertificatePem,
        certificate: &CertificateDer<'_>,
        key: KeyPair,
    ) -> Result<Self, CertError> {
        let issuer = Issuer::from_ca_cert_der(certificate, key)
            .map_err(|error| CertError::Unreadable { what: what.to_owned(), problem: error.to_string() })?;
        let roots = TrustRoots::from_pem(what, &pem.certificate)?;
        Ok(Authority { issuer, validity: Validity::of(what, certificate)?, pem, roots })
    }

    /// Certificate and key as they are to be stored.
    pub fn pem(&self) -> &CertificatePem {
        &self.pem
    }

    /// What those have to trust who deal with this authority's leaves.
    pub fn roots(&self) -> &TrustRoots {
        &self.roots
    }

    /// When the authority itself is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Issues a certificate with a fresh key.
    ///
    /// # Errors
    /// [`CertError::Expired`] when the authority's own time is over,
    /// [`CertError::Issue`] when a name cannot stand in a certificate.
    pub fn issue_leaf(&self, request: &LeafRequest, now: SystemTime) -> Result<CertificatePem, CertError> {
        self.validity.check("the authority's certificate", now)?;
        let what = &request.common_name;
        let issue = |error: rcgen::Error| CertError::Issue { what: what.clone(), problem: error.to_string() };
        let mut params = request.params()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(what)?);
        params.not_before = (now - CLOCK_SKEW).max(self.validity.not_before).into();
        params.not_after = (now + request.lifetime).min(self.validity.not_after).into();
        let key = KeyPair::generate().map_err(issue)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(issue)?;
        Ok(CertificatePem { certificate: certificate.pem(), private_key: key.serialize_pem() })
    }

    /// Issues a plain server certificate, for example for an API server.
    ///
    /// # Errors
    /// See [`Authority::issue_leaf`].
    pub fn issue_server(
        &self,
        common_name: &str,
        dns_names: &[&str],
        ip_addresses: &[IpAddr],
        now: SystemTime,
    ) -> Result<CertificatePem, CertError> {
        let request = LeafRequest {
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            ip_addresses: ip_addresses.to_vec(),
            usages: vec![Usage::Server],
            ..LeafRequest::new(common_name)
        };
        self.issue_leaf(&request, now)
    }

    /// Issues a client certificate as Kubernetes reads it: the common name is
    /// the user, the organisation is the group.
    ///
    /// # Errors
    /// See [`Authority::issue_leaf`].
    pub fn issue_client(
        &self,
        common_name: &str,
        organization: Option<&str>,
        now: SystemTime,
    ) -> Result<CertificatePem, CertError> {
        let request = LeafRequest {
            organization: organization.map(str::to_owned),
            usages: vec![Usage::Client],
            ..LeafRequest::new(common_name)
        };
        self.issue_leaf(&request, now)
    }
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// 16 random bytes: unique without anybody counting.
fn serial(what: &str) -> Result<SerialNumber, CertError> {
    let mut bytes = [0_u8; 16];
    crate::provider().secure_random.fill(&mut bytes).map_err(|_| CertError::Issue {
        what: what.to_owned(),
        problem: "the system gives no random numbers".to_owned(),
    })?;
    // A serial is a positive integer without superfluous zeros in front.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
