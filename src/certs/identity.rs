//! Who a certificate says its holder is.
//!
//! A SPIFFE URI among the subject's alternative names:
//! `spiffe://<trust-domain>/ns/<namespace>/gateway/<name>` for gateways and
//! `spiffe://<trust-domain>/ns/<namespace>/controller/<member>` for replicas, and
//! `spiffe://<trust-domain>/ns/<namespace>/tool/<name>` for who only asks.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a certificate's holder is allowed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// An API gateway that gets configuration.
    Gateway,
    /// A replica of the controller.
    Controller,
    /// Somebody who asks replicas which gateways they serve, and may do nothing else.
    Tool,
}

impl Role {
    const fn segment(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Controller => "controller",
            Role::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.segment())
    }
}

/// An identity that a certificate confirms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The fleet, for example `cluster.local`.
    pub trust_domain: Arc<str>,
    /// The holder's Kubernetes namespace.
    pub namespace: Arc<str>,
    /// What the holder is.
    pub role: Role,
    /// The gateway's, the member's or the tool's name.
    pub name: Arc<str>,
}

impl Identity {
    /// The identity of a gateway.
    ///
    /// # Errors
    /// When a part cannot stand in a SPIFFE URI.
    pub fn gateway(trust_domain: &str, namespace: &str, name: &str) -> Result<Self, IdentityError> {
        Self::checked(trust_domain, namespace, Role::Gateway, name)
    }

    /// The identity of a replica.
    ///
    /// # Errors
    /// When a part cannot stand in a SPIFFE URI.
    pub fn controller(trust_domain: &str, namespace: &str, member: &str) -> Result<Self, IdentityError> {
        Self::checked(trust_domain, namespace, Role::Controller, member)
    }

    /// The identity of a tool.
    ///
    /// # Errors
    /// When a part cannot stand in a SPIFFE URI.
    pub fn tool(trust_domain: &str, namespace: &str, name: &str) -> Result<Self, IdentityError> {
        Self::checked(trust_domain, namespace, Role::Tool, name)
    }

    fn checked(trust_domain: &str, namespace: &str, role: Role, name: &str) -> Result<Self, IdentityError> {
        for (part, text) in [("trust domain", trust_domain), ("namespace", namespace), ("name", name)] {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            // "." and ".." would be path steps, not names.
            if text.is_empty() || text.len() > 253 || !text.chars().all(legal) || text.starts_with('.') {
                return Err(IdentityError::Part { part, text: text.to_owned() });
            }
        }
        Ok(Identity {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            role,
            name: name.into(),
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/{}/{}", self.trust_domain, self.namespace, self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed { uri: uri.to_owned() };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(malformed)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [trust_domain, "ns", namespace, role, name] = parts[..] else { return Err(malformed()) };
        let role = [Role::Gateway, Role::Controller, Role::Tool]
            .into_iter()
            .find(|known| known.segment() == role)
            .ok_or_else(malformed)?;
        Self::checked(trust_domain, namespace, role, name)
    }
}

/// Why nobody's identity could be read from a certificate or a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No certificate was presented.
    #[error("no client certificate was presented; connect with one that this fleet's authority signed")]
    NoCertificate,
    /// The certificate could not be parsed.
    #[error("the peer's certificate cannot be parsed: {0}")]
    Unreadable(String),
    /// It names no SPIFFE identity, or more than one.
    #[error(
        "the peer's certificate names {0} SPIFFE identities where exactly one is needed; \
         issue it with `flotilla certs`"
    )]
    Count(usize),
    /// It is a SPIFFE URI of another shape.
    #[error(
        "{uri:?} is no identity of a gateway, a controller or a tool; \
         expected spiffe://<trust-domain>/ns/<namespace>/gateway|controller|tool/<name>"
    )]
    Malformed {
        /// The URI.
        uri: String,
    },
    /// A part is empty, too long, or has characters that names do not have.
    #[error("{part} {text:?} cannot be part of an identity; use letters, digits, '-', '.' and '_'")]
    Part {
        /// Which part.
        part: &'static str,
        /// What it was.
        text: String,
    },
}

/// The identity that a peer's certificate chain confirms, leaf first.
///
/// The chain must have been verified before: this only reads it.
///
/// # Errors
/// When there is no certificate, or it does not name exactly one identity.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<Identity, IdentityError> {
    let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|error| IdentityError::Unreadable(error.to_string()))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("spiffe:") => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => uri.parse(),
        _ => Err(IdentityError::Count(uris.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_their_text() {
        for identity in [
            Identity::gateway("fleet.local", "edge", "gw-1"),
            Identity::controller("fleet.local", "sys", "f-0"),
            Identity::tool("fleet.local", "sys", "dashboard"),
        ] {
            let identity = identity.unwrap();
            assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
        }
    }

    #[test]
    fn other_shapes_are_no_identities() {
        for uri in [
            "",
            "https://fleet.local/ns/a/gateway/b",
            "spiffe://fleet.local/ns/a/gateway",
            "spiffe://fleet.local/ns/a/gateway/b/c",
            "spiffe://fleet.local/ns/a/admin/b",
            "spiffe://fleet.local/ns//gateway/b",
            "spiffe://fleet.local/ns/../gateway/b",
            "spiffe://fleet.local/ns/a/gateway/b%2fc",
            "spiffe:///ns/a/gateway/b",
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
    }

    #[test]
    fn names_cannot_smuggle_structure() {
        assert!(Identity::gateway("d", "a/gateway/x", "b").is_err());
        assert!(Identity::gateway("d", "a", "b\n").is_err());
        assert!(Identity::gateway("d", "a", &"x".repeat(254)).is_err());
    }
}
